//! Moves what the journal made durable into the index, on a thread of its own, so that commits go on meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::disk::Fault;
use super::index::{Index, IndexRows, Position};
use super::layer::Layer;
use crate::blob::segment::{Segment, Segments};
use crate::error::{Error, from_io};

/// A layer to be taken in.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) layer: Arc<Layer>,
    /// Where the index stands afterwards.
    pub(super) position: Position,
    /// Segments with frames that only the journal made durable.
    pub(super) segments: Vec<Arc<Segment>>,
}

pub(super) enum Outcome {
    /// The index holds the layer; these are its rows now.
    Done(Arc<IndexRows>),
    /// It may be tried again. The index was opened anew where rows come with it.
    Later { error: Error, rows: Option<Arc<IndexRows>> },
    /// What the disk holds is unknown. Only a restart finds out.
    Failed(String),
}

/// The commit thread's end. Dropping it waits for the work under way.
pub(super) struct Checkpointer {
    work: Option<Sender<Work>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Begins with the frames of bodies that a crash left in the journal alone: they go back into their files first.
    pub(super) fn start(index: Index, segments: Arc<Segments>) -> Result<Self, Error> {
        let (work, waiting) = channel();
        let (answer, outcomes) = channel();
        let run = move || run(index, &segments, &waiting, &answer);
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run);
        let thread = thread.map_err(|error| from_io(&error, "starting the checkpoint thread"))?;
        Ok(Self { work: Some(work), outcomes, thread: Some(thread) })
    }

    /// Hands a layer over; one at a time.
    pub(super) fn begin(&self, work: Work) {
        if let Some(sender) = &self.work {
            // A thread that ended is seen when its outcome is asked for.
            let _ = sender.send(work);
        }
    }

    /// The outcome, if it is there.
    pub(super) fn poll(&self) -> Option<Outcome> {
        match self.outcomes.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(ended()),
        }
    }

    /// Waits for the outcome.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Outcome> {
        match self.outcomes.recv_timeout(timeout) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(ended()),
        }
    }
}

fn ended() -> Outcome {
    Outcome::Failed("the checkpoint thread ended by a panic".to_owned())
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // The directory must not be given back while somebody writes in it.
            let _ = thread.join();
        }
    }
}

fn run(mut index: Index, segments: &Segments, waiting: &Receiver<Work>, answer: &Sender<Outcome>) {
    if let Err(error) = segments.put_back() {
        // Repeated with each checkpoint: the journal forgets no frame that is not back.
        emit(event::StoreFailed { operation: "put bodies back", reason: error.to_string() });
    }
    while let Ok(work) = waiting.recv() {
        let started = Instant::now();
        let outcome = match segments.put_back() {
            Ok(()) => take_in(&mut index, &work),
            Err(error) => Outcome::Later { error, rows: None },
        };
        match &outcome {
            Outcome::Done(_) => emit(event::StoreCheckpointed { seconds: started.elapsed().as_secs_f64() }),
            Outcome::Later { error, .. } => {
                emit(event::StoreFailed { operation: "checkpoint", reason: error.to_string() });
            }
            Outcome::Failed(_) => {}
        }
        drop(work);
        if answer.send(outcome).is_err() {
            break;
        }
    }
}

fn take_in(index: &mut Index, work: &Work) -> Outcome {
    // A frame is durable in its segment before the journal forgets it.
    for segment in &work.segments {
        if let Err(error) = segment.sync() {
            return Outcome::Failed(format!("a sync of a segment failed: {error}"));
        }
    }
    match index.take_in(&work.layer, work.position).and_then(|()| index.rows()) {
        Ok(rows) => Outcome::Done(rows),
        Err(error) => reopen(index, work.position, error),
    }
}

/// Finds out what an error of the index left behind.
fn reopen(index: &mut Index, wanted: Position, error: Error) -> Outcome {
    match index.take_fault() {
        Some(Fault::Sync(reason)) => return Outcome::Failed(format!("a sync of the index failed: {reason}")),
        Some(Fault::Other(reason)) => return Outcome::Failed(format!("the index can't be written: {reason}")),
        Some(Fault::Full) | None => {}
    }
    // After an error the index refuses all work until it is opened anew; what it holds tells whether it got through.
    let found = index.reopen().and_then(|()| index.position()).and_then(|found| Ok((found, index.rows()?)));
    match found {
        Ok((found, rows)) if found.version == wanted.version => Outcome::Done(rows),
        Ok((_, rows)) => Outcome::Later { error, rows: Some(rows) },
        Err(_) => Outcome::Later { error, rows: None },
    }
}
