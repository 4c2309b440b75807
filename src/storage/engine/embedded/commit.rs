//! The commit thread: the one writer. It takes whatever waits, checks it, makes it durable with one sync and publishes it.
//!
//! While a group is on its way to the disk the next one gathers, so that no timer is needed. The order within a group:
//! check against what others wrote, write the frames of small bodies to their segments, work out the rows, write rows and
//! frames to the journal and sync it, lay the rows over the index, publish the new snapshot and its version as one pair,
//! fire watches, answer. Longer bodies are durable since their writer ended. When the journal is full
//! or old enough, its rows go into the index (`checkpoint`) while the next epoch is written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::Batch;
use super::checkpoint::{Checkpointer, Outcome, Work};
use super::disk::Fault;
use super::index::{IndexRows, Position};
use super::journal::{Journal, PlacedFrame};
use super::layer::Layer;
use super::overlay::Overlay;
use super::recovery::Epoch;
use super::resolver::Resolver;
use super::snapshot::Snapshot;
use super::{Lock, Shared};
use crate::blob::StagedBody;
use crate::blob::segment::{Segment, SegmentNumber};
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

/// Rows on their way into the index.
struct Frozen {
    work: Work,
    /// When it is handed over again after a failure; absent while it is under way.
    retry_at: Option<Instant>,
}

pub(super) struct Committer {
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    journal: Journal,
    checkpointer: Checkpointer,
    resolver: Resolver,
    version: u64,
    /// What the present epoch of the journal wrote, and since when.
    active: Arc<Layer>,
    active_since: Instant,
    frozen: Option<Frozen>,
    index: Arc<IndexRows>,
    /// Segments with frames that only the journal made durable.
    unsynced: BTreeMap<SegmentNumber, Arc<Segment>>,
    /// Rows of the index that were replaced, to be closed when no transaction may read them any more.
    replaced: VecDeque<(Instant, Arc<IndexRows>)>,
    /// Why nothing may be written any more.
    failed: Option<String>,
    /// Held as long as files of the directory may be written: dropped last.
    _lock: Lock,
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

/// What the thread works with.
pub(super) struct Parts {
    pub(super) journal: Journal,
    /// What the journal holds since before the start, the oldest epoch first.
    pub(super) epochs: Vec<Epoch>,
    pub(super) checkpointer: Checkpointer,
    pub(super) index: Arc<IndexRows>,
    pub(super) lock: Lock,
}

/// Transactions of one group: their order is two octets of the versionstamp.
const GROUP_MAX: usize = 16_384;
/// How often the thread looks after what is not caused by a commit.
const IDLE: Duration = Duration::from_millis(500);
/// How long a checkpoint that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

impl Committer {
    pub(super) fn new(queue: Receiver<Message>, shared: Arc<Shared>, parts: Parts) -> Self {
        let Parts { journal, mut epochs, checkpointer, index, lock } = parts;
        let version = journal.position().version;
        let Epoch { layer, segments, .. } = epochs.pop().unwrap_or_default();
        // One before the last was on its way into the index.
        let frozen = epochs.pop().map(|epoch| {
            let position = Position { epoch: epoch.last.epoch + 1, ..epoch.last };
            let work = Work { layer: epoch.layer, position, segments: epoch.segments.into_values().collect() };
            checkpointer.begin(work.clone());
            Frozen { work, retry_at: None }
        });
        Self {
            resolver: Resolver::new(version, shared.limits.max_age),
            queue,
            shared,
            journal,
            checkpointer,
            version,
            active: layer,
            active_since: Instant::now(),
            frozen,
            index,
            unsynced: segments,
            replaced: VecDeque::new(),
            failed: None,
            _lock: lock,
        }
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
            self.look_after_checkpoint();
            self.forget_old();
        }
        drop(closing);
        self.finish();
        // Closes the index and gives the lock back. Requests dropped with the queue are answered by the end of their channel.
        drop(self);
        if let Some(done) = closer {
            let _ = done.send(());
        }
    }

    /// Waits without end only when there is nothing to look after meanwhile.
    fn next_message(&self) -> Result<Message, RecvTimeoutError> {
        let is_quiet = self.replaced.is_empty() && self.resolver.is_empty();
        if is_quiet && self.frozen.is_none() && self.journal.octets() == 0 {
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
        if let Err(error) = self.make_room() {
            return refuse(group, &error);
        }
        let version = self.version + 1;
        self.version = version;
        let accepted = write_bodies(self.check(group, version));
        let written = if accepted.is_empty() { Ok(()) } else { self.make_durable(version, &accepted) };
        // Also when nothing was written: whoever begins now must not conflict with what was refused, which the resolver knows by
        // this version.
        self.publish();
        match written {
            Ok(()) if accepted.is_empty() => return,
            Ok(()) => {}
            Err(error) => return refuse(accepted, &error),
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

    /// Writes rows and bodies so that they outlast everything.
    fn make_durable(&mut self, version: u64, group: &[Request]) -> Result<(), Error> {
        let batch = Batch::of(group, version, &*self.shared.latest()?)?;
        let frames = placed_frames(group);
        let outcome = self.journal.append(version, &batch, &frames);
        for (segment, ..) in frames {
            self.unsynced.entry(segment.number).or_insert_with(|| segment.clone());
        }
        match outcome {
            Ok(()) => {
                self.active.add(version, batch.into_rows());
                Ok(())
            }
            Err(Fault::Full) => {
                emit(event::StoreFailed { operation: "commit", reason: Error::Full.to_string() });
                Err(Error::Full)
            }
            Err(Fault::Sync(reason)) => Err(self.fail(format!("a sync of the journal failed: {reason}"))),
            Err(Fault::Other(reason)) => Err(self.fail(format!("the journal can't be written: {reason}"))),
        }
    }

    /// Refuses all writes from now on; reads go on. What was under way may have happened.
    fn fail(&mut self, reason: String) -> Error {
        emit(event::StoreStopped { reason: reason.clone() });
        self.failed = Some(reason);
        Error::MaybeCommitted
    }

    fn publish(&self) {
        let frozen = self.frozen.iter().map(|frozen| frozen.work.layer.clone());
        let layers = std::iter::once(self.active.clone()).chain(frozen).collect();
        self.shared.publish(Arc::new(Snapshot::new(self.version, layers, self.index.clone())));
    }

    /// Whether another group may be written.
    fn make_room(&mut self) -> Result<(), Error> {
        if let Some(reason) = &self.failed {
            return Err(Error::Unavailable(reason.clone()));
        }
        let octets = self.journal.octets();
        if octets < self.shared.limits.journal_max {
            return Ok(());
        }
        self.look_after_checkpoint();
        // Commits go on for as much again while the checkpoint before is under way; then they wait for it.
        if self.frozen.is_some() && octets >= self.shared.limits.journal_max.saturating_mul(2) {
            self.hand_over_again(Instant::now() + RETRY);
            if let Some(outcome) = self.checkpointer.wait(self.shared.limits.commit_timeout) {
                self.finish_checkpoint(outcome)?;
            }
            if self.frozen.is_some() {
                return Err(Error::Unavailable("the index can't take in what the journal holds".to_owned()));
            }
            self.begin_checkpoint();
        }
        match &self.failed {
            Some(reason) => Err(Error::Unavailable(reason.clone())),
            None => Ok(()),
        }
    }

    /// Ends, repeats or begins a checkpoint where it is time.
    fn look_after_checkpoint(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if self.frozen.as_ref().is_some_and(|frozen| frozen.retry_at.is_none())
            && let Some(outcome) = self.checkpointer.poll()
        {
            // Why it failed was told; it is repeated.
            let _ = self.finish_checkpoint(outcome);
        }
        self.hand_over_again(Instant::now());
        let is_due = self.journal.octets() >= self.shared.limits.journal_max
            || (self.journal.octets() > 0 && self.active_since.elapsed() >= self.shared.limits.checkpoint_interval);
        if self.frozen.is_none() && is_due {
            self.begin_checkpoint();
        }
    }

    /// Freezes what the present epoch wrote and begins the next.
    fn begin_checkpoint(&mut self) {
        let layer = std::mem::take(&mut self.active);
        let segments = std::mem::take(&mut self.unsynced).into_values().collect();
        let work = Work { layer, position: self.journal.position(), segments };
        self.journal.turn();
        self.active_since = Instant::now();
        self.checkpointer.begin(work.clone());
        self.frozen = Some(Frozen { work, retry_at: None });
    }

    /// Repeats a checkpoint that failed, unless that was after `now` less the pause.
    fn hand_over_again(&mut self, now: Instant) {
        if let Some(frozen) = &mut self.frozen
            && frozen.retry_at.is_some_and(|at| at <= now)
        {
            frozen.retry_at = None;
            self.checkpointer.begin(frozen.work.clone());
        }
    }

    fn finish_checkpoint(&mut self, outcome: Outcome) -> Result<(), Error> {
        let (index, result) = match outcome {
            Outcome::Done(index) => {
                self.frozen = None;
                (Some(index), Ok(()))
            }
            Outcome::Later { error, rows } => {
                if let Some(frozen) = &mut self.frozen {
                    frozen.retry_at = Some(Instant::now() + RETRY);
                }
                (rows, Err(error))
            }
            Outcome::Failed(reason) => {
                self.fail(reason.clone());
                (None, Err(Error::Unavailable(reason)))
            }
        };
        if let Some(index) = index {
            let replaced = std::mem::replace(&mut self.index, index);
            self.replaced.push_back((Instant::now(), replaced));
            self.publish();
        }
        result
    }

    /// Leaves nothing in the journal, so that the next start is quick. What fails here is found again from it.
    fn finish(&mut self) {
        for _ in 0..2 {
            if self.failed.is_some() {
                return;
            }
            if self.frozen.is_none() && self.journal.octets() > 0 {
                self.begin_checkpoint();
            }
            if self.frozen.as_ref().is_some_and(|frozen| frozen.retry_at.is_none())
                && let Some(outcome) = self.checkpointer.wait(self.shared.limits.commit_timeout)
            {
                let _ = self.finish_checkpoint(outcome);
            }
        }
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        self.resolver.prune(now);
        while let Some((since, index)) = self.replaced.front() {
            if now.duration_since(*since) <= self.shared.limits.max_age || !index.try_close() {
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

/// The frames of small bodies in the order of their places, each once.
fn placed_frames(group: &[Request]) -> Vec<PlacedFrame<'_>> {
    let mut frames: Vec<_> =
        group.iter().flat_map(|request| &request.bodies).filter_map(|body| body.staged.unwritten()).collect();
    frames.sort_by_key(|(segment, offset, _)| (segment.number, *offset));
    frames.dedup_by_key(|(segment, offset, _)| (segment.number, *offset));
    frames
}

/// Writes the frames of small bodies, neighbours with one call. Who can't have his body written is refused.
fn write_bodies(group: Vec<Request>) -> Vec<Request> {
    let Err(error) = write_frames(&placed_frames(&group)) else {
        return group;
    };
    emit(event::StoreFailed { operation: "write bodies", reason: error.to_string() });
    let (with_bodies, without) = group.into_iter().partition(|request| !request.bodies.is_empty());
    refuse(with_bodies, &error);
    without
}

/// Frames in the order of their places.
fn write_frames(frames: &[PlacedFrame<'_>]) -> Result<(), Error> {
    let follows = |a: &PlacedFrame<'_>, b: &PlacedFrame<'_>| a.0.number == b.0.number && a.1 + a.2.len() as u64 == b.1;
    for run in frames.chunk_by(follows) {
        match run {
            [(segment, offset, frame)] => segment.write(*offset, frame)?,
            [(segment, offset, _), ..] => {
                let octets: Vec<&[u8]> = run.iter().map(|(_, _, frame)| frame.as_ref()).collect();
                segment.write(*offset, &octets.concat())?;
            }
            [] => {}
        }
    }
    Ok(())
}
