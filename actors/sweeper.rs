//! Frees from time to time what no longer has a use: bodies that nothing refers to, proofs and changes that expired, and
//! what deleted accounts and mailboxes left.
//!
//! Owns: a timer.   Receives: Sweep, Swept.   Sends: Tidy to mailbox actors, one account at a time.
//! Bounds: one sweep at a time; each step is a small transaction.   On failure: its supervisor starts it again; a sweep may
//! stop anywhere and run twice.   Standards: none.

use std::time::Duration;

use posthouse_obs::emit;
use posthouse_obs::event::store::SweepFailed;
use posthouse_storage::{ShardId, Store, account};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use crate::clock;
use crate::mailbox::Mailboxes;

/// What a sweeper works on.
#[derive(Clone)]
pub struct SweeperArguments {
    pub store: Store,
    pub mailboxes: Mailboxes,
    pub interval: Duration,
}

/// Starts the sweeper of a node under `supervisor`.
pub async fn start(arguments: SweeperArguments, supervisor: ActorCell) -> Result<ActorRef<SweeperMsg>, SpawnErr> {
    Ok(Actor::spawn_linked(None, SweeperActor, arguments, supervisor).await?.0)
}

pub enum SweeperMsg {
    Sweep,
    Swept,
}

impl ractor::Message for SweeperMsg {}

struct SweeperActor;

impl Actor for SweeperActor {
    type Msg = SweeperMsg;
    type State = SweeperArguments;
    type Arguments = SweeperArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SweeperMsg>,
        arguments: SweeperArguments,
    ) -> Result<SweeperArguments, ActorProcessingErr> {
        myself.send_after(arguments.interval, || SweeperMsg::Sweep);
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: ActorRef<SweeperMsg>,
        message: SweeperMsg,
        state: &mut SweeperArguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SweeperMsg::Sweep => {
                let state = state.clone();
                tokio::spawn(async move {
                    pass(async move { sweep(&state).await }).await;
                    let _ = myself.cast(SweeperMsg::Swept);
                });
            }
            SweeperMsg::Swept => {
                myself.send_after(state.interval, || SweeperMsg::Sweep);
            }
        }
        Ok(())
    }
}

/// Runs one pass of work in the background; `None`: it broke off, which is told and keeps no later one from running.
pub(crate) async fn pass<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    match tokio::spawn(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            // A runtime that ends cancels it, and that is no fault.
            if error.is_panic() {
                emit(SweepFailed { what: "a pass", reason: error.to_string() });
            }
            None
        }
    }
}

async fn sweep(state: &SweeperArguments) {
    if let Err(error) = state.store.sweep(clock::now()).await {
        emit(SweepFailed { what: "bodies", reason: error.to_string() });
    }
    for shard in (0..ShardId::COUNT).filter_map(ShardId::new) {
        let accounts = match account::in_shard(&state.store, shard).await {
            Ok(accounts) => accounts,
            Err(error) => return emit(SweepFailed { what: "accounts", reason: error.to_string() }),
        };
        for id in accounts {
            if let Err(error) = state.mailboxes.tidy(id).await {
                emit(SweepFailed { what: "an account", reason: error.to_string() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pass_that_panics_ends_only_itself() {
        assert_eq!(pass(async { 1 }).await, Some(1));
        let broken: Option<u32> = pass(async { panic!("a bug") }).await;
        assert_eq!(broken, None);
        assert_eq!(pass(async { 2 }).await, Some(2));
    }
}
