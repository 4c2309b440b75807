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
                    sweep(&state).await;
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
