//! The root supervisor of a node.
//!
//! Owns: the children that are always there, and how to start each again.   Receives: Adopt, StartAgain, ends of children.
//! Sends: a request to stop the node.   Bounds: conf.supervise, for each child.
//! On failure: the process ends; whoever runs it starts it anew.   Standards: none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use posthouse_conf::{Settings, Supervise};
use posthouse_obs::emit;
use posthouse_obs::event::actor::NodeFailed;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::StartError;
use crate::supervise::Restarts;

/// Starts a child under the root, again after each failure.
pub(crate) type StartChild = Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<ActorId, SpawnErr>> + Send + Sync>;

pub(crate) enum RootMsg {
    /// A child that was started and is to be started again when it fails.
    Adopt {
        kind: &'static str,
        name: String,
        id: ActorId,
        start: StartChild,
    },
    StartAgain(Box<Child>),
}

impl ractor::Message for RootMsg {}

pub(crate) struct Child {
    start: StartChild,
    restarts: Restarts,
}

pub(crate) struct RootArguments {
    supervise: Supervise,
    failed: Arc<AtomicBool>,
    stop_requested: Arc<Notify>,
}

pub(crate) struct RootState {
    arguments: RootArguments,
    children: HashMap<ActorId, Child>,
}

/// Starts the root.
pub(crate) async fn start(
    settings: &Settings,
    failed: Arc<AtomicBool>,
    stop_requested: Arc<Notify>,
) -> Result<(ActorRef<RootMsg>, JoinHandle<()>), StartError> {
    let arguments = RootArguments { supervise: settings.supervise.clone(), failed, stop_requested };
    Actor::spawn(None, RootActor, arguments).await.map_err(StartError::actor("the root"))
}

struct RootActor;

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<RootMsg>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        Ok(RootState { arguments, children: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Adopt { kind, name, id, start } => {
                let restarts = Restarts::new(kind, name, state.arguments.supervise.clone());
                state.children.insert(id, Child { start, restarts });
            }
            RootMsg::StartAgain(child) => match (child.start)(myself.get_cell()).await {
                Ok(id) => {
                    state.children.insert(id, *child);
                }
                Err(error) => start_later(&myself, *child, error.to_string()),
            },
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            // A listener ends by itself after the drain: that is no failure.
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                state.children.remove(&cell.get_id());
            }
            SupervisionEvent::ActorFailed(cell, error) => match state.children.remove(&cell.get_id()) {
                Some(child) => start_later(&myself, child, error.to_string()),
                None => state.fail(&cell, error.to_string()),
            },
            _ => {}
        }
        Ok(())
    }
}

impl RootState {
    /// A supervisor of entities, or of a pool, died of a bug: what it knew is gone, so the node starts anew as a whole.
    fn fail(&self, cell: &ActorCell, reason: String) {
        emit(NodeFailed { actor: cell.get_id().to_string(), reason });
        self.arguments.failed.store(true, Ordering::Release);
        self.arguments.stop_requested.notify_one();
    }
}

fn start_later(myself: &ActorRef<RootMsg>, mut child: Child, reason: String) {
    let wait = child.restarts.next_start(reason);
    myself.send_after(wait, move || RootMsg::StartAgain(Box::new(child)));
}
