//! The one way to an entity: finds it or brings it to life, and asks it with a deadline.
//!
//! An entity's inbox is bounded by a permit that rides inside each message, because ractor's inboxes are not. An answer that
//! never comes because the actor died is asked for again until the deadline: every request that changes something carries an
//! id under which repeating it does no harm.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use posthouse_conf::Supervise;
use posthouse_obs::emit;
use posthouse_obs::event::actor::InboxFull;
use posthouse_storage::{Fence, ShardId};
use ractor::{Actor, ActorCell, ActorRef, RpcReplyPort, SpawnErr};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::placement::Placement;
use crate::supervisor::{EntitySupervisor, SupervisorArguments, SupervisorMsg};

/// What names an entity within its kind.
pub trait EntityKey: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static {
    /// The bytes that are hashed to a shard; they never change for an entity.
    fn shard_bytes(&self) -> Vec<u8>;
}

/// One kind of virtual actor: how to bring one to life.
pub trait Entity: Send + Sync + 'static {
    type Key: EntityKey;
    type Msg: ractor::Message;

    /// The kind's name in shards, metrics and logs; fixed for ever.
    const KIND: &'static str;

    /// Requests that may wait at one entity.
    fn inbox_max(&self) -> usize;

    /// Spawns the actor, linked to `supervisor`. Called when the first message for `key` arrives.
    fn spawn(
        &self,
        key: Self::Key,
        fence: Fence,
        supervisor: ActorCell,
    ) -> impl Future<Output = Result<ActorRef<Self::Msg>, SpawnErr>> + Send;
}

/// A place in an entity's inbox; freed when the entity drops it with the message that it came in.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

/// Why an entity could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RouteError {
    #[error("the entity has too much to do")]
    Busy,
    #[error("the entity failed repeatedly and is parked")]
    Parked,
    #[error("no answer in time")]
    TimedOut,
    #[error("the node is stopping")]
    Stopping,
}

/// A live entity.
pub(crate) struct Slot<M> {
    pub(crate) actor: ActorRef<M>,
    pub(crate) inbox: Arc<Semaphore>,
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), inbox: self.inbox.clone() }
    }
}

/// The live entities of one kind, shared by the router (reads) and its supervisor (writes).
pub(crate) struct Table<E: Entity>(Mutex<HashMap<E::Key, Slot<E::Msg>>>);

impl<E: Entity> Table<E> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<E::Key, Slot<E::Msg>>> {
        // Every critical section is one map operation, so a poisoned map is a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to all entities of one kind.
pub struct Router<E: Entity> {
    table: Arc<Table<E>>,
    supervisor: ActorRef<SupervisorMsg<E>>,
}

impl<E: Entity> Clone for Router<E> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), supervisor: self.supervisor.clone() }
    }
}

/// Longest pause before an entity that died is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

impl<E: Entity> Router<E> {
    /// Starts the kind's supervisor under `parent`.
    pub async fn start(
        entity: E,
        placement: Placement,
        settings: Supervise,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let table = Arc::new(Table(Mutex::new(HashMap::new())));
        let arguments = SupervisorArguments { entity, placement, settings, table: table.clone() };
        let (supervisor, _) = Actor::spawn_linked(None, EntitySupervisor::<E>::new(), arguments, parent).await?;
        Ok(Self { table, supervisor })
    }

    /// Asks an entity and waits for its answer until `deadline`. `make` builds the message and may be called again when the
    /// actor died before it answered.
    pub async fn ask<T: Send + 'static>(
        &self,
        key: &E::Key,
        deadline: Instant,
        make: impl Fn(Permit, RpcReplyPort<T>) -> E::Msg,
    ) -> Result<T, RouteError> {
        loop {
            let slot = self.slot(key, deadline).await?;
            let Ok(permit) = slot.inbox.clone().try_acquire_owned() else {
                emit(InboxFull { kind: E::KIND });
                return Err(RouteError::Busy);
            };
            let (answer, answered) = tokio::sync::oneshot::channel();
            let sent = slot.actor.cast(make(Permit { _permit: permit }, answer.into()));
            if sent.is_ok() {
                match tokio::time::timeout_at(deadline, answered).await {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(_)) => {} // The actor died, or was passivated, before it answered.
                    Err(_) => return Err(RouteError::TimedOut),
                }
            }
            pause(RETRY_PAUSE.mul_f64(rand::random()), deadline).await?;
        }
    }

    /// Sends a hint that may be lost: to a full inbox it is not sent.
    pub async fn hint(&self, key: &E::Key, deadline: Instant, make: impl FnOnce(Permit) -> E::Msg) {
        let Ok(slot) = self.slot(key, deadline).await else {
            return;
        };
        if let Ok(permit) = slot.inbox.clone().try_acquire_owned() {
            let _ = slot.actor.cast(make(Permit { _permit: permit }));
        }
    }

    /// An idle entity asks to leave memory. What is in its inbox is still handled; what comes later finds its successor.
    pub fn passivate(&self, key: E::Key, actor: &ActorRef<E::Msg>) {
        let _ = self.supervisor.cast(SupervisorMsg::Passivate { key, actor: actor.get_id() });
    }

    /// Entities in memory.
    pub fn active(&self) -> usize {
        self.table.lock().len()
    }

    async fn slot(&self, key: &E::Key, deadline: Instant) -> Result<Slot<E::Msg>, RouteError> {
        loop {
            if let Some(slot) = self.table.lock().get(key) {
                return Ok(slot.clone());
            }
            let (answer, answered) = tokio::sync::oneshot::channel();
            let activate = SupervisorMsg::Activate { key: key.clone(), answer: answer.into() };
            self.supervisor.cast(activate).map_err(|_| RouteError::Stopping)?;
            match tokio::time::timeout_at(deadline, answered).await {
                Ok(Ok(Activation::Active)) => {}
                Ok(Ok(Activation::After(wait))) => pause(wait, deadline).await?,
                Ok(Ok(Activation::Parked)) => return Err(RouteError::Parked),
                Ok(Err(_)) => return Err(RouteError::Stopping),
                Err(_) => return Err(RouteError::TimedOut),
            }
        }
    }
}

/// What a supervisor says to the wish for an entity.
pub(crate) enum Activation {
    Active,
    After(Duration),
    Parked,
}

/// Waits, but never beyond the deadline.
async fn pause(wait: Duration, deadline: Instant) -> Result<(), RouteError> {
    if Instant::now() + wait >= deadline {
        return Err(RouteError::TimedOut);
    }
    tokio::time::sleep(wait).await;
    Ok(())
}

/// The shard of an entity.
pub(crate) fn shard_of<E: Entity>(key: &E::Key) -> ShardId {
    ShardId::of(E::KIND, &key.shard_bytes())
}

#[cfg(test)]
mod tests;
