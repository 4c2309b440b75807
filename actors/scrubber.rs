//! Keeps the bodies of a node in order in the background: verifies each once in a while, empties segments that are
//! mostly dead, brings large ones to the object store.
//!
//! Owns: a timer.   Receives: Scrub, Scrubbed.   Sends: nothing.
//! Bounds: one pass at a time, storage.background_rate octets a second.   On failure: its supervisor starts it again; how
//! far it was stands in the store.   Standards: none.

use std::time::Duration;

use posthouse_obs::emit;
use posthouse_obs::event::store::SweepFailed;
use posthouse_storage::Store;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use crate::clock;
use crate::sweeper::pass;

/// What a scrubber works on.
#[derive(Clone)]
pub struct ScrubberArguments {
    pub store: Store,
    /// Between looks at the segments.
    pub interval: Duration,
    pub duty: Duty,
}

/// What a scrubber takes care of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    All,
    /// Segments alone: the node that owns the mail has no way to the files, and does the rest.
    Segments,
}

/// Starts the scrubber of a node under `supervisor`.
pub async fn start(arguments: ScrubberArguments, supervisor: ActorCell) -> Result<ActorRef<ScrubberMsg>, SpawnErr> {
    Ok(Actor::spawn_linked(None, ScrubberActor, arguments, supervisor).await?.0)
}

pub enum ScrubberMsg {
    Scrub,
    /// `more`: the pass is not over.
    Scrubbed {
        more: bool,
    },
}

impl ractor::Message for ScrubberMsg {}

struct ScrubberActor;

impl Actor for ScrubberActor {
    type Msg = ScrubberMsg;
    type State = ScrubberArguments;
    type Arguments = ScrubberArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ScrubberMsg>,
        arguments: ScrubberArguments,
    ) -> Result<ScrubberArguments, ActorProcessingErr> {
        myself.send_after(arguments.interval, || ScrubberMsg::Scrub);
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: ActorRef<ScrubberMsg>,
        message: ScrubberMsg,
        state: &mut ScrubberArguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ScrubberMsg::Scrub => {
                let state = state.clone();
                tokio::spawn(async move {
                    let more = pass(async move { scrub(&state).await }).await.unwrap_or(false);
                    let _ = myself.cast(ScrubberMsg::Scrubbed { more });
                });
            }
            ScrubberMsg::Scrubbed { more: true } => myself.cast(ScrubberMsg::Scrub)?,
            ScrubberMsg::Scrubbed { more: false } => {
                myself.send_after(state.interval, || ScrubberMsg::Scrub);
            }
        }
        Ok(())
    }
}

/// One look at the segments and one slice of a scrub; whether there is more to do at once.
async fn scrub(state: &ScrubberArguments) -> bool {
    if let Err(error) = state.store.rewrite_segments().await {
        emit(SweepFailed { what: "segments", reason: error.to_string() });
    }
    if state.duty == Duty::Segments {
        if let Err(error) = state.store.remove_dead_segments().await {
            emit(SweepFailed { what: "segments", reason: error.to_string() });
        }
        return false;
    }
    if let Err(error) = state.store.move_large(clock::now()).await {
        emit(SweepFailed { what: "large bodies", reason: error.to_string() });
    }
    match state.store.scrub(clock::now(), state.interval).await {
        Ok(report) => report.more,
        Err(error) => {
            emit(SweepFailed { what: "a scrub", reason: error.to_string() });
            false
        }
    }
}
