//! The supervisor of one kind of entity: activates, counts failures, backs off, parks, passivates.
//!
//! Owns: the live entities of its kind.   Receives: Activate, Passivate, and the ends of its children.
//! Sends: nothing but answers.   Bounds: conf.supervise.{restarts_max, window, backoff_min, backoff_max, parked_retry};
//! one small record per entity that failed lately.   On failure: the node ends and is started anew; entities come back on their next message.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use posthouse_conf::Supervise;
use posthouse_obs::emit;
use posthouse_obs::event::actor::{ActorEnded, ActorParked, ActorRestarted, ActorStarted};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::placement::Placement;
use crate::router::{Activation, Entity, Slot, Table, shard_of};

pub(crate) enum SupervisorMsg<E: Entity> {
    Activate { key: E::Key, answer: RpcReplyPort<Activation> },
    Passivate { key: E::Key, actor: ActorId },
}

impl<E: Entity> ractor::Message for SupervisorMsg<E> {}

pub(crate) struct SupervisorArguments<E: Entity> {
    pub(crate) entity: E,
    pub(crate) placement: Placement,
    pub(crate) settings: Supervise,
    pub(crate) table: Arc<Table<E>>,
}

pub(crate) struct SupervisorState<E: Entity> {
    arguments: SupervisorArguments<E>,
    children: HashMap<ActorId, E::Key>,
    /// Entities that are handling what is left in their inboxes, with those who wait for their successors: two actors of
    /// one entity never live at once.
    leaving: HashMap<E::Key, Vec<RpcReplyPort<Activation>>>,
    failures: HashMap<E::Key, VecDeque<Instant>>,
}

pub(crate) struct EntitySupervisor<E>(PhantomData<fn() -> E>);

impl<E> EntitySupervisor<E> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Entity> Actor for EntitySupervisor<E> {
    type Msg = SupervisorMsg<E>;
    type State = SupervisorState<E>;
    type Arguments = SupervisorArguments<E>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(SupervisorState { arguments, children: HashMap::new(), leaving: HashMap::new(), failures: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMsg::Activate { key, answer } => {
                if let Some(waiting) = state.leaving.get_mut(&key) {
                    waiting.push(answer);
                } else {
                    let activation = state.activate(key, myself.get_cell()).await;
                    let _ = answer.send(activation);
                }
            }
            SupervisorMsg::Passivate { key, actor } => state.passivate(key, actor),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => state.ended(cell.get_id(), None, &myself),
            SupervisionEvent::ActorFailed(cell, error) => state.ended(cell.get_id(), Some(error.to_string()), &myself),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        state.arguments.table.lock().clear();
        Ok(())
    }
}

impl<E: Entity> SupervisorState<E> {
    async fn activate(&mut self, key: E::Key, myself: ActorCell) -> Activation {
        if self.arguments.table.lock().contains_key(&key) {
            return Activation::Active;
        }
        if let Some(refusal) = self.refusal(&key) {
            return refusal;
        }
        let fence = self.arguments.placement.fence(shard_of::<E>(&key));
        match self.arguments.entity.spawn(key.clone(), fence, myself).await {
            Ok(actor) => {
                self.children.insert(actor.get_id(), key.clone());
                let inbox = Arc::new(Semaphore::new(self.arguments.entity.inbox_max()));
                self.arguments.table.lock().insert(key, Slot { actor, inbox });
                emit(ActorStarted { kind: E::KIND });
                Activation::Active
            }
            Err(error) => {
                self.note_failure(&key, error.to_string());
                Activation::After(self.arguments.settings.backoff_min.get())
            }
        }
    }

    /// An entity that failed lately waits; one that failed too often is parked until `parked_retry` after its last failure.
    fn refusal(&mut self, key: &E::Key) -> Option<Activation> {
        let settings = &self.arguments.settings;
        let times = self.failures.get(key)?;
        let (count, since) = (times.len(), times.back()?.elapsed());
        if count >= settings.restarts_max {
            return (since < settings.parked_retry.get()).then_some(Activation::Parked);
        }
        if since >= settings.window.get() {
            self.failures.remove(key);
            return None;
        }
        let wait = backoff(count, settings);
        (since < wait).then(|| Activation::After(wait - since))
    }

    fn passivate(&mut self, key: E::Key, actor: ActorId) {
        let mut table = self.arguments.table.lock();
        if table.get(&key).is_none_or(|slot| slot.actor.get_id() != actor) {
            return;
        }
        if let Some(slot) = table.remove(&key) {
            drop(table);
            self.leaving.insert(key, Vec::new());
            // A drained actor handles what is in its inbox, then stops.
            if slot.actor.get_cell().drain().is_err() {
                slot.actor.stop(None);
            }
        }
    }

    fn ended(&mut self, actor: ActorId, failure: Option<String>, myself: &ActorRef<SupervisorMsg<E>>) {
        let Some(key) = self.children.remove(&actor) else {
            return;
        };
        emit(ActorEnded { kind: E::KIND });
        let mut table = self.arguments.table.lock();
        if table.get(&key).is_some_and(|slot| slot.actor.get_id() == actor) {
            table.remove(&key);
        }
        drop(table);
        if let Some(reason) = failure {
            self.note_failure(&key, reason);
        }
        for answer in self.leaving.remove(&key).unwrap_or_default() {
            let _ = myself.cast(SupervisorMsg::Activate { key: key.clone(), answer });
        }
    }

    fn note_failure(&mut self, key: &E::Key, reason: String) {
        let settings = &self.arguments.settings;
        let now = Instant::now();
        self.failures.retain(|_, times| times.back().is_some_and(|t| now - *t < settings.parked_retry.get()));
        let times = self.failures.entry(key.clone()).or_default();
        while times.front().is_some_and(|t| now - *t > settings.window.get()) {
            times.pop_front();
        }
        times.push_back(now);
        emit(ActorRestarted { kind: E::KIND, entity: key.to_string(), reason });
        if times.len() >= settings.restarts_max {
            emit(ActorParked { kind: E::KIND, entity: key.to_string(), failures: times.len() });
        }
    }
}

/// Doubles with each failure, between the two bounds.
fn backoff(failures: usize, settings: &Supervise) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    settings.backoff_min.get().saturating_mul(1 << doublings).min(settings.backoff_max.get())
}
