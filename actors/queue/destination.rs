//! The queue actor of one destination: takes due work from the store, gives it to relays, wakes when the next is due.
//!
//! Apart from the relays, which do the waiting: this actor's handlers only read rows, count and assign.
//!
//! Owns: the schedule of one destination's work rows and the relays that carry them.   Receives: Nudge, Retry, Bounce,
//! Attempted, Tick, the ends of its relays.   Sends: Carry and Quit to relays.
//! Bounds: queue.connections_per_domain_max relays, queue.relays_max on the node, queue.inbox_max requests.
//! On failure: its supervisor restarts it on the next nudge; the store has all work. A relay that dies of a bug is
//! replaced, and its message tried again after a back-off of its own.   Standards: RFC 5321 §4.5.4.1.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use posthouse_cluster::Router;
use posthouse_mail::{DeliveryOutcome, EnhancedStatus, IngestId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::queue::QueueStoreFailed;
use posthouse_storage::queue::{self, Work, WorkId};
use posthouse_storage::{Error as StoreError, Fence};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::services::QueueServices;
use super::settlement::Attempted;
use super::{Destination, QueueEntity, QueueMsg};
use crate::clock;
use crate::relay::{self, Load, RelayActor, RelayArguments, RelayMsg};
use crate::supervise::Restarts;

pub(super) struct DestinationActor;

pub(super) struct DestinationArguments {
    pub(super) destination: Destination,
    pub(super) fence: Fence,
    pub(super) services: Arc<QueueServices>,
    pub(super) router: Arc<OnceLock<Router<QueueEntity>>>,
}

pub(super) struct DestinationState {
    arguments: DestinationArguments,
    relays: HashMap<ActorId, Relay>,
    /// Messages whose relay died, and when each may be tried again.
    failed: HashMap<IngestId, Failed>,
    last_active: Instant,
    timer: Option<JoinHandle<Result<(), ractor::MessagingErr<QueueMsg>>>>,
}

/// One relay.
struct Relay {
    actor: ActorRef<RelayMsg>,
    carrying: Option<WorkId>,
    idle_since: Instant,
    _permit: OwnedSemaphorePermit,
}

struct Failed {
    restarts: Restarts,
    until: Instant,
}

impl Actor for DestinationActor {
    type Msg = QueueMsg;
    type State = DestinationState;
    type Arguments = DestinationArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<QueueMsg>,
        arguments: DestinationArguments,
    ) -> Result<DestinationState, ActorProcessingErr> {
        Ok(DestinationState {
            arguments,
            relays: HashMap::new(),
            failed: HashMap::new(),
            last_active: Instant::now(),
            timer: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut DestinationState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::Nudge(_permit) => state.last_active = Instant::now(),
            QueueMsg::Retry { work, answer, permit: _permit } => {
                let _ = answer.send(state.retry(&work).await);
            }
            QueueMsg::Bounce { work, answer, permit: _permit } => {
                let _ = answer.send(state.bounce(&work).await);
            }
            QueueMsg::Attempted { relay, work, settled } => state.attempted(relay, &work, settled),
            QueueMsg::Tick => {}
        }
        state.work(&myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<QueueMsg>,
        event: SupervisionEvent,
        state: &mut DestinationState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => state.relay_failed(cell.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                state.relays.remove(&cell.get_id());
            }
            _ => return Ok(()),
        }
        state.work(&myself).await;
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<QueueMsg>,
        state: &mut DestinationState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop_timer();
        Ok(())
    }
}

impl DestinationState {
    /// Gives out what is due, lets idle relays go, and sets the time of the next look.
    async fn work(&mut self, myself: &ActorRef<QueueMsg>) {
        let pause = match self.assign(myself).await {
            Ok(pause) => pause,
            Err(error) => {
                self.complain(&error.to_string());
                STORE_PAUSE
            }
        };
        let pause = self.dismiss_idle().map_or(pause, |idle| pause.min(idle));
        self.stop_timer();
        if self.relays.is_empty() && self.failed.is_empty() && self.is_idle_for(pause) {
            if let Some(router) = self.arguments.router.get() {
                router.passivate(self.arguments.destination.clone(), myself);
            }
            // Passivation comes at once; should it be refused, the keeper's next hint is the next look.
            return;
        }
        self.timer = Some(myself.send_after(pause, || QueueMsg::Tick));
    }

    /// Nothing to do for as long as a sleeping actor is worth its memory.
    fn is_idle_for(&self, pause: Duration) -> bool {
        let after = self.arguments.services.settings.queue.passivate_after.get();
        pause >= after && self.last_active.elapsed() >= after
    }

    /// Assigns due work to relays; gives the time until the next look.
    async fn assign(&mut self, myself: &ActorRef<QueueMsg>) -> Result<Duration, StoreError> {
        let services = self.arguments.services.clone();
        if services.busy.is_stopping() {
            return Ok(FOREVER);
        }
        let carrying = self.relays.values().filter(|relay| relay.carrying.is_some()).count();
        let free = services.settings.queue.connections_per_domain_max.saturating_sub(carrying);
        let now = clock::now();
        self.failed.retain(|_, failed| failed.until + FORGET_AFTER > Instant::now());
        if free == 0 {
            return Ok(LOOK_WHILE_BUSY);
        }
        let destination = &self.arguments.destination.0;
        let limit = carrying + self.failed.len() + free;
        let due = queue::due(&services.store, destination, now, limit).await?;
        let seen_all = due.len() < limit;
        let mut given = 0;
        for work in due {
            if given == free {
                break;
            }
            if self.is_taken(&work.id) {
                continue;
            }
            if !self.give(myself, work).await {
                return Ok(NO_RELAY_PAUSE);
            }
            given += 1;
        }
        if given > 0 || carrying > 0 || !seen_all {
            return Ok(LOOK_WHILE_BUSY);
        }
        self.until_next(now).await
    }

    /// The time until work is due, or may be tried again after a failure.
    async fn until_next(&self, now: UnixMillis) -> Result<Duration, StoreError> {
        let blocked = self.failed.values().map(|failed| failed.until.saturating_duration_since(Instant::now()));
        let blocked = blocked.filter(|wait| !wait.is_zero()).min();
        let store = &self.arguments.services.store;
        let next = queue::next_due(store, &self.arguments.destination.0).await?;
        let next = next.filter(|due| *due > now).map(|due| due.since(now));
        let passivate = self.arguments.services.settings.queue.passivate_after.get();
        // An actor that will sleep looks once more before it does.
        let rest = passivate.saturating_sub(self.last_active.elapsed());
        let wait = [blocked, next].into_iter().flatten().min().unwrap_or(FOREVER);
        Ok(if rest.is_zero() { wait } else { wait.min(rest) })
    }

    /// Whether a relay has the work, or a failure keeps it back.
    fn is_taken(&self, work: &WorkId) -> bool {
        let carried = self.relays.values().any(|relay| relay.carrying.as_ref() == Some(work));
        carried || self.failed.get(&work.message).is_some_and(|failed| failed.until > Instant::now())
    }

    /// Gives work to an idle relay or a new one; false when the node has no relay to spare.
    async fn give(&mut self, myself: &ActorRef<QueueMsg>, work: Work) -> bool {
        self.last_active = Instant::now();
        let idle = self.relays.iter().find(|(_, relay)| relay.carrying.is_none()).map(|(id, _)| *id);
        let id = match idle {
            Some(id) => id,
            None => match self.new_relay(myself).await {
                Ok(Some(id)) => id,
                Ok(None) => return false,
                Err(error) => {
                    self.complain(&error.to_string());
                    return false;
                }
            },
        };
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        relay.carrying = Some(work.id.clone());
        // A relay that has just died is reported by its supervision event, which frees the work.
        let _ = relay.actor.cast(RelayMsg::Carry(Box::new(work)));
        true
    }

    async fn new_relay(&mut self, myself: &ActorRef<QueueMsg>) -> Result<Option<ActorId>, SpawnErr> {
        let services = self.arguments.services.clone();
        let Ok(permit) = services.relays.clone().try_acquire_owned() else { return Ok(None) };
        let arguments = RelayArguments { queue: myself.clone(), services, fence: self.arguments.fence };
        let (actor, _) = Actor::spawn_linked(None, RelayActor, arguments, myself.get_cell()).await?;
        let id = actor.get_id();
        self.relays.insert(id, Relay { actor, carrying: None, idle_since: Instant::now(), _permit: permit });
        Ok(Some(id))
    }

    fn attempted(&mut self, relay: ActorId, work: &WorkId, settled: bool) {
        self.last_active = Instant::now();
        if let Some(relay) = self.relays.get_mut(&relay) {
            relay.carrying = None;
            relay.idle_since = Instant::now();
        }
        if settled {
            self.failed.remove(&work.message);
        } else {
            // The store did not take the end of the attempt: not again at once.
            self.hold_back(work.message, "the store did not take the outcome".to_owned());
        }
    }

    /// A relay died of a bug. Its message is tried by another one, each time later; the others are not held up.
    fn relay_failed(&mut self, relay: ActorId, reason: String) {
        let Some(relay) = self.relays.remove(&relay) else { return };
        if let Some(work) = relay.carrying {
            self.hold_back(work.message, reason);
        }
    }

    fn hold_back(&mut self, message: IngestId, reason: String) {
        let settings = &self.arguments.services.settings.supervise;
        let entry = self.failed.entry(message).or_insert_with(|| Failed {
            restarts: Restarts::new("relay", message.to_string(), settings.clone()),
            until: Instant::now(),
        });
        entry.until = Instant::now() + entry.restarts.next_start(reason);
    }

    /// Lets relays go whose connection waited long enough; gives the time until the next one is due.
    fn dismiss_idle(&mut self) -> Option<Duration> {
        let ttl = self.arguments.services.settings.queue.idle_connection_ttl.get();
        let mut next: Option<Duration> = None;
        self.relays.retain(|_, relay| {
            if relay.carrying.is_some() {
                return true;
            }
            let left = ttl.saturating_sub(relay.idle_since.elapsed());
            if left.is_zero() {
                let _ = relay.actor.cast(RelayMsg::Quit);
                return false;
            }
            next = Some(next.map_or(left, |next| next.min(left)));
            true
        });
        next
    }

    async fn retry(&mut self, work: &WorkId) -> Result<bool, StoreError> {
        self.failed.remove(&work.message);
        if self.is_taken(work) {
            // It is being tried at this moment.
            return Ok(true);
        }
        let now = clock::now();
        queue::reschedule(&self.arguments.services.store, self.arguments.fence, work, now, now).await
    }

    async fn bounce(&mut self, id: &WorkId) -> Result<Option<bool>, StoreError> {
        if self.relays.values().any(|relay| relay.carrying.as_ref() == Some(id)) {
            return Ok(None);
        }
        let services = self.arguments.services.clone();
        let works = queue::works_of(&services.store, id.message).await?;
        let Some(work) = works.into_iter().find(|work| work.id == *id) else { return Ok(Some(false)) };
        let Some(message) = queue::message(&services.store, id.message).await? else { return Ok(Some(false)) };
        let outcome = DeliveryOutcome::Bounced {
            host: None,
            status: EnhancedStatus::new(5, 7, 0),
            reason: "the administrator of the server returned the message".to_owned(),
            reply: None,
        };
        let attempted = |recipient: &posthouse_mail::Recipient| Attempted {
            recipient: recipient.clone(),
            outcome: outcome.clone(),
            reports_itself: false,
        };
        let attempted = work.recipients.iter().map(attempted).collect();
        let load = Load { message, work };
        let settled = relay::settle(&services, self.arguments.fence, &load, attempted).await;
        if settled { Ok(Some(true)) } else { Err(StoreError::Unavailable("the queue row was not written".to_owned())) }
    }

    fn complain(&self, reason: &str) {
        emit(QueueStoreFailed { destination: self.arguments.destination.to_string(), reason: reason.to_owned() });
    }

    fn stop_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}

/// No time is known at which there is something to do.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Work that falls due while others are under way is seen this late at most.
const LOOK_WHILE_BUSY: Duration = Duration::from_secs(1);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// All relays of the node are busy elsewhere.
const NO_RELAY_PAUSE: Duration = Duration::from_millis(200);
/// A message that failed is remembered this long after its wait, so that its next failure waits longer.
const FORGET_AFTER: Duration = Duration::from_secs(120);
