//! The queues of mail for other servers: one virtual queue actor a destination domain, and the way to them.
//!
//! What is to be sent stands in the store; a queue actor is only its schedule. So nothing here is lost with a process: a
//! keeper searches the store for due work and wakes the queues that it belongs to.

pub mod bounce;
mod destination;
mod keeper;
pub mod route;
pub mod schedule;
pub mod services;
pub mod settlement;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use posthouse_cluster::{Entity, EntityKey, Permit, Placement, RouteError, Router};
use posthouse_mail::Domain;
use posthouse_storage::queue::WorkId;
use posthouse_storage::{Error as StoreError, Fence};
use ractor::{Actor, ActorCell, ActorId, ActorRef, RpcReplyPort, SpawnErr};
use thiserror::Error;
use tokio::time::Instant;

use destination::{DestinationActor, DestinationArguments};
use services::QueueServices;

/// The key of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination(pub Domain);

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl EntityKey for Destination {
    // The same octets as `posthouse_storage::keys::queue_shard` hashes.
    fn shard_bytes(&self) -> Vec<u8> {
        self.0.as_str().as_bytes().to_vec()
    }
}

/// What a queue actor is told.
pub enum QueueMsg {
    /// There may be due work.
    Nudge(Permit),
    /// An administrator wants an attempt now.
    Retry { work: WorkId, answer: RpcReplyPort<Result<bool, StoreError>>, permit: Permit },
    /// An administrator gives up; `None` when an attempt is under way.
    Bounce { work: WorkId, answer: RpcReplyPort<Result<Option<bool>, StoreError>>, permit: Permit },
    /// A relay came to the end of an attempt.
    Attempted { relay: ActorId, work: WorkId, settled: bool },
    /// The time that the actor asked for has come.
    Tick,
}

impl ractor::Message for QueueMsg {}

/// How queue actors come to life.
pub struct QueueEntity {
    services: Arc<QueueServices>,
    router: Arc<OnceLock<Router<QueueEntity>>>,
}

impl Entity for QueueEntity {
    type Key = Destination;
    type Msg = QueueMsg;

    const KIND: &'static str = "queue";

    fn inbox_max(&self) -> usize {
        self.services.settings.queue.inbox_max
    }

    async fn spawn(
        &self,
        key: Destination,
        fence: Fence,
        supervisor: ActorCell,
    ) -> Result<ActorRef<QueueMsg>, SpawnErr> {
        let (services, router) = (self.services.clone(), self.router.clone());
        let arguments = DestinationArguments { destination: key, fence, services, router };
        Ok(Actor::spawn_linked(None, DestinationActor, arguments, supervisor).await?.0)
    }
}

/// Why an administrator's command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    #[error("a delivery of this message is under way")]
    UnderWay,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl QueueError {
    /// Whose fault it is, and whether to try again.
    pub fn failure(&self) -> posthouse_mail::Failure {
        match self {
            Self::UnderWay | Self::Route(_) => posthouse_mail::Failure::OURS,
            Self::Store(error) => error.failure(),
        }
    }
}

/// The way to all queues. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    router: Router<QueueEntity>,
    services: Arc<QueueServices>,
}

impl Queues {
    /// Starts the supervisor of the queues and the keeper that wakes them.
    pub async fn start(
        services: Arc<QueueServices>,
        placement: Placement,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let router = Arc::new(OnceLock::new());
        let entity = QueueEntity { services: services.clone(), router: router.clone() };
        let supervise = services.settings.supervise.clone();
        let started = Router::start(entity, placement, supervise, parent.clone()).await?;
        let _ = router.set(started.clone());
        let queues = Self { router: started, services };
        keeper::start(queues.clone(), parent).await?;
        Ok(queues)
    }

    /// Says that a destination has new work. May be lost: the keeper finds the work later.
    pub async fn nudge(&self, destination: &Domain) {
        let deadline = Instant::now() + NUDGE_WAIT;
        self.router.hint(&Destination(destination.clone()), deadline, QueueMsg::Nudge).await;
    }

    /// Makes work due now; whether there was such work.
    pub async fn retry(&self, work: &WorkId) -> Result<bool, QueueError> {
        let key = Destination(work.destination.clone());
        let make = |permit, answer| QueueMsg::Retry { work: work.clone(), answer, permit };
        Ok(self.router.ask(&key, Instant::now() + ASK_WAIT, make).await??)
    }

    /// Returns work to its sender; whether there was such work.
    pub async fn bounce(&self, work: &WorkId) -> Result<bool, QueueError> {
        let key = Destination(work.destination.clone());
        let make = |permit, answer| QueueMsg::Bounce { work: work.clone(), answer, permit };
        self.router.ask(&key, Instant::now() + ASK_WAIT, make).await??.ok_or(QueueError::UnderWay)
    }

    /// Begins no further attempt, and waits for those under way until the deadline; whether all came to their end.
    pub async fn settle(&self, deadline: Instant) -> bool {
        self.services.busy.stop();
        tokio::time::timeout_at(deadline, self.services.busy.idle()).await.is_ok()
    }

    /// Queues in memory.
    pub fn active(&self) -> usize {
        self.router.active()
    }
}

/// Longest wait for a queue to come to life for a hint.
const NUDGE_WAIT: Duration = Duration::from_secs(5);
/// Longest wait of an administrator.
const ASK_WAIT: Duration = Duration::from_secs(30);
