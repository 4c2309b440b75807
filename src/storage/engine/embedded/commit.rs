//! The commit thread: the one writer. It takes whatever waits, checks it, makes it durable with one sync and publishes it.
//!
//! While a group is on its way to the disk the next one gathers, so that no timer is needed. The order within a group:
//! check against what others wrote, write the frames of small bodies, sync every segment that the group touches, beside
//! the work of the index on its rows, commit the index, publish the new snapshot and its version as one pair, fire watches, answer. A body
//! is durable before its row.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::index::{Index, Snapshot};
use super::index_file::Fault;
use super::overlay::Overlay;
use super::resolver::Resolver;
use crate::blob::StagedBody;
use crate::blob::segment::Segment;
use crate::engine::{Commit, Versionstamp};
use crate::error::Error;

/// What a transaction read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) keys: Vec<Bytes>,
    pub(super) ranges: Vec<(Bytes, Bytes)>,
}

/// A transaction on its way to the disk.
pub(super) struct Request {
    /// Absent when nothing was read serialisably.
    pub(super) read_version: Option<u64>,
    pub(super) reads: Reads,
    pub(super) writes: Overlay,
    pub(super) write_conflicts: Vec<(Bytes, Bytes)>,
    pub(super) bodies: Vec<StagedBody>,
    pub(super) size: usize,
    pub(super) reply: oneshot::Sender<Result<Commit, Error>>,
    /// Its place in the queue, given back with the answer.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Request {
    fn answer(self, outcome: Result<Commit, Error>) {
        // The caller may have given up waiting.
        let _ = self.reply.send(outcome);
    }

    fn weight(&self) -> usize {
        self.size + self.bodies.iter().map(|body| body.staged.weight()).sum::<usize>()
    }
}

pub(super) enum Message {
    Commit(Box<Request>),
    Close(oneshot::Sender<()>),
}

/// Whether the thread may write.
enum Condition {
    Sound,
    /// The index stopped at an error that may pass; it is opened anew before the next group.
    Interrupted,
    /// What the disk holds is unknown. Only a restart finds out.
    Failed(String),
}

pub(super) struct Committer {
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    index: Index,
    resolver: Resolver,
    version: u64,
    /// Snapshots that were replaced, to be closed when no transaction may read them any more.
    replaced: VecDeque<(Instant, Arc<Snapshot>)>,
    condition: Condition,
    /// Held as long as files of the directory may be written: dropped last.
    _lock: File,
}

/// Tells everybody that no more commits come.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            emit(event::StoreStopped { reason: "the commit thread ended by a panic".to_owned() });
        }
        self.0.close();
    }
}

/// Transactions of one group: their order is two octets of the versionstamp.
const GROUP_MAX: usize = 16_384;
/// How often the thread looks for snapshots to close when nothing is committed.
const IDLE: Duration = Duration::from_millis(500);

impl Committer {
    pub(super) fn new(queue: Receiver<Message>, shared: Arc<Shared>, index: Index, version: u64, lock: File) -> Self {
        let resolver = Resolver::new(version, shared.limits.max_age);
        let (replaced, condition) = (VecDeque::new(), Condition::Sound);
        Self { queue, shared, index, resolver, version, replaced, condition, _lock: lock }
    }

    /// Works until the store is closed or its last handle is gone.
    pub(super) fn run(mut self) {
        // Also when the thread panics: nobody must wait for a commit that can't come.
        let closing = Closing(self.shared.clone());
        let mut closer = None;
        while closer.is_none() {
            match self.next_message() {
                Ok(Message::Close(done)) => closer = Some(done),
                Ok(Message::Commit(first)) => closer = self.take_group(*first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.forget_old();
        }
        drop(closing);
        // Closes the index and gives the lock back. Requests dropped with the queue are answered by the end of their channel.
        drop(self);
        if let Some(done) = closer {
            let _ = done.send(());
        }
    }

    /// Waits without end only when there is nothing to forget meanwhile.
    fn next_message(&self) -> Result<Message, RecvTimeoutError> {
        if self.replaced.is_empty() && self.resolver.is_empty() {
            return self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        self.queue.recv_timeout(IDLE)
    }

    /// Adds what else waits to the first request and commits it all.
    fn take_group(&mut self, first: Request) -> Option<oneshot::Sender<()>> {
        let mut weight = first.weight();
        let mut group = vec![first];
        let mut closer = None;
        while weight < self.shared.limits.group_max && group.len() < GROUP_MAX {
            match self.queue.try_recv() {
                Ok(Message::Commit(request)) => {
                    weight += request.weight();
                    group.push(*request);
                }
                Ok(Message::Close(done)) => {
                    closer = Some(done);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit_group(group);
        closer
    }

    fn commit_group(&mut self, group: Vec<Request>) {
        let started = Instant::now();
        if let Err(error) = self.make_ready() {
            return refuse(group, &error);
        }
        let version = self.version + 1;
        self.version = version;
        let accepted = write_bodies(self.check(group, version));
        if accepted.is_empty() {
            return;
        }
        let outcome = self.make_durable(version, &accepted).and_then(|()| self.publish(version));
        if let Err(error) = outcome {
            return refuse(accepted, &error);
        }
        self.shared.watches.fire(&accepted);
        let group = accepted.len();
        emit(event::StoreCommitted { group, seconds: started.elapsed().as_secs_f64() });
        for (request, order) in accepted.into_iter().zip(0u16..) {
            for body in &request.bodies {
                body.staged.set_durable();
            }
            request.answer(Ok(Commit { version, stamp: Some(Versionstamp::new(version, order)) }));
        }
        // A segment that can't be made now is tried again after the next group; the old one grows meanwhile.
        if let Err(error) = self.shared.segments.prepare() {
            emit(event::StoreFailed { operation: "make segment", reason: error.to_string() });
        }
    }

    fn make_ready(&mut self) -> Result<(), Error> {
        match &self.condition {
            Condition::Sound => Ok(()),
            Condition::Failed(reason) => Err(Error::Unavailable(reason.clone())),
            Condition::Interrupted => {
                let found = self.index.reopen()?;
                self.condition = Condition::Sound;
                self.publish(found)
            }
        }
    }

    /// Sorts out what conflicts, with others or within the group.
    fn check(&mut self, group: Vec<Request>, version: u64) -> Vec<Request> {
        let mut accepted = Vec::with_capacity(group.len());
        for request in group {
            match self.resolver.check(&request) {
                Ok(()) => {
                    self.resolver.record(version, &request);
                    accepted.push(request);
                }
                Err(error) => {
                    emit(event::StoreConflict { is_too_old: error == Error::TooOld });
                    request.answer(Err(error));
                }
            }
        }
        accepted
    }

    /// Commits rows and bodies: a body is durable before its row counts.
    fn make_durable(&mut self, version: u64, group: &[Request]) -> Result<(), Error> {
        match self.index.commit(version, group, unsynced_segments(group)) {
            Ok(()) => Ok(()),
            Err(error) => self.recover(version, error),
        }
    }

    /// Finds out what an error of the index left behind.
    fn recover(&mut self, version: u64, error: Error) -> Result<(), Error> {
        emit(event::StoreFailed { operation: "commit", reason: error.to_string() });
        match self.index.take_fault() {
            Some(Fault::Sync(reason)) => {
                self.fail(format!("a sync failed: {reason}"));
                return Err(Error::MaybeCommitted);
            }
            Some(Fault::Other(reason)) => {
                self.fail(format!("the index can't be written: {reason}"));
                return Err(Error::MaybeCommitted);
            }
            Some(Fault::Full) | None => self.condition = Condition::Interrupted,
        }
        // The last version in the file tells whether the commit got through before the error.
        match self.index.reopen() {
            Ok(found) => {
                self.condition = Condition::Sound;
                if found == version {
                    return Ok(());
                }
                // Readers must not be left with a snapshot of the file as it was open before.
                self.publish(found)?;
                Err(error)
            }
            Err(_) => Err(Error::MaybeCommitted),
        }
    }

    /// Refuses all writes from now on; reads go on.
    fn fail(&mut self, reason: String) -> Error {
        emit(event::StoreStopped { reason: reason.clone() });
        self.condition = Condition::Failed(reason.clone());
        Error::Unavailable(reason)
    }

    fn publish(&mut self, version: u64) -> Result<(), Error> {
        let snapshot = self.index.snapshot(version).map_err(|_| Error::MaybeCommitted)?;
        let replaced = self.shared.publish(snapshot);
        self.replaced.extend(replaced.map(|snapshot| (Instant::now(), snapshot)));
        Ok(())
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        self.resolver.prune(now);
        while let Some((since, snapshot)) = self.replaced.front() {
            if now.duration_since(*since) <= self.shared.limits.max_age || !snapshot.try_close() {
                break;
            }
            self.replaced.pop_front();
        }
    }
}

fn refuse(group: Vec<Request>, error: &Error) {
    for request in group {
        request.answer(Err(error.clone()));
    }
}

/// Writes the frames of small bodies, neighbours with one call. Who can't have his body written is refused.
fn write_bodies(group: Vec<Request>) -> Vec<Request> {
    let mut frames: Vec<_> =
        group.iter().flat_map(|request| &request.bodies).filter_map(|body| body.staged.unwritten()).collect();
    frames.sort_by_key(|(segment, offset, _)| (segment.number, *offset));
    frames.dedup_by_key(|(segment, offset, _)| (segment.number, *offset));
    let Err(error) = write_frames(&frames) else {
        return group;
    };
    emit(event::StoreFailed { operation: "write bodies", reason: error.to_string() });
    let (with_bodies, without) = group.into_iter().partition(|request| !request.bodies.is_empty());
    refuse(with_bodies, &error);
    without
}

/// The segments that must be synced before the rows of a group are.
fn unsynced_segments(group: &[Request]) -> Vec<Arc<Segment>> {
    let bodies = group.iter().flat_map(|request| &request.bodies).filter(|body| !body.staged.is_durable());
    let mut segments: Vec<Arc<Segment>> = bodies.flat_map(|body| body.staged.segments()).cloned().collect();
    segments.sort_by_key(|segment| segment.number);
    segments.dedup_by_key(|segment| segment.number);
    segments
}

/// Frames in the order of their places.
fn write_frames(frames: &[(&Arc<Segment>, u64, &Bytes)]) -> Result<(), Error> {
    let follows = |a: &(&Arc<Segment>, u64, &Bytes), b: &(&Arc<Segment>, u64, &Bytes)| {
        a.0.number == b.0.number && a.1 + a.2.len() as u64 == b.1
    };
    for run in frames.chunk_by(follows) {
        match run {
            [(segment, offset, frame)] => segment.write(*offset, frame)?,
            [(segment, offset, _), ..] => {
                let octets: Vec<u8> = run.iter().flat_map(|(_, _, frame)| frame.iter().copied()).collect();
                segment.write(*offset, &octets)?;
            }
            [] => {}
        }
    }
    Ok(())
}
