//! Finishes what was accepted: gives each spooled message to a distributor, and again until it has no recipient left.
//!
//! Apart from the sessions, whose 250 is out by now: what the spool row promises is kept here, also after a crash, since
//! the store is searched at the start and whenever a nudge may have been lost.
//!
//! Owns: the list of spooled messages that nobody has in hand, and the distributors.   Receives: Accepted, Done, Again,
//! Scan, the ends of its distributors.   Sends: Distribute to distributors.
//! Bounds: queue.spool_workers distributors, queue.spool_waiting_max ids in memory; the rest stays in the store.
//! On failure: a distributor that dies of a bug is replaced, its message tried again after a back-off of its own.
//! Standards: RFC 5321 §4.1.1.4, §6.1.

mod distribute;
mod distributor;
mod local;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use posthouse_cluster::Placement;
use posthouse_conf::Settings;
use posthouse_mail::stage::{ReceivedMessage, SignedMessage, VettedMessage};
use posthouse_mail::{AccountId, Action, IngestId};
use posthouse_obs::emit;
use posthouse_obs::event::queue::MessagePutOff;
use posthouse_storage::message::AppendBody;
use posthouse_storage::spool::{self, NewSpool, SpoolMessage, SpoolRecipient};
use posthouse_storage::transit::Transit;
use posthouse_storage::{Error, StagedBody, Store};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use crate::queue::Queues;
use crate::queue::bounce::Reports;
use crate::supervise::Restarts;
use distribute::End;
use distributor::{DistributorActor, DistributorArguments, DistributorMsg};
use waiting::Waiting;

pub use local::{LocalDelivery, NodeDelivery, Refusal};

/// Tells the spool of a new row. Made before the spool, so that the queues can hold one.
#[derive(Clone, Default)]
pub struct SpoolNudge(Arc<OnceLock<ActorRef<SpoolMsg>>>);

impl SpoolNudge {
    /// A hint: the row is in the store, and found there too.
    pub fn nudge(&self, id: IngestId) {
        if let Some(actor) = self.0.get() {
            let _ = actor.cast(SpoolMsg::Accepted(id));
        }
    }
}

/// What the spool works with.
pub struct SpoolServices {
    pub store: Store,
    pub placement: Placement,
    pub settings: Arc<Settings>,
    pub local: Arc<dyn LocalDelivery>,
    pub queues: Queues,
    pub reports: Reports,
    pub nudge: SpoolNudge,
}

/// Takes responsibility for messages. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    store: Store,
    nudge: SpoolNudge,
}

impl Spool {
    /// Starts the distributors; what lies in the store is taken up at once.
    pub async fn start(services: SpoolServices, parent: ActorCell) -> Result<Self, SpawnErr> {
        let (store, nudge) = (services.store.clone(), services.nudge.clone());
        let (actor, _) = Actor::spawn_linked(None, SpoolActor, Arc::new(services), parent).await?;
        let _ = nudge.0.set(actor);
        Ok(Self { store, nudge })
    }

    /// A received message: returns after the commit that the 250 stands for.
    pub async fn receive(&self, message: VettedMessage, body: StagedBody) -> Result<(), Error> {
        let VettedMessage { received, verdict, added_headers } = message;
        let junk = matches!(verdict.action, Action::Junk | Action::Quarantine);
        self.insert(received, added_headers, junk, None, body).await
    }

    /// A submitted message: returns after the commit that the 250 stands for.
    pub async fn submit(&self, message: SignedMessage, body: StagedBody) -> Result<(), Error> {
        let SignedMessage { submitted, added_headers } = message;
        self.insert(submitted.received, added_headers, false, Some(submitted.sender), body).await
    }

    async fn insert(
        &self,
        received: ReceivedMessage,
        added_headers: Vec<u8>,
        junk: bool,
        sender: Option<AccountId>,
        body: StagedBody,
    ) -> Result<(), Error> {
        let envelope = received.envelope;
        let id = envelope.id;
        let recipients = envelope.recipients.into_iter();
        let transit = Transit {
            id,
            reverse_path: envelope.reverse_path,
            body_type: envelope.body,
            smtputf8: envelope.smtputf8,
            envelope_id: envelope.envelope_id,
            dsn_return: envelope.dsn_return,
            body: body.body,
            added_headers,
            received_at: received.received_at,
            account: sender.or(received.origin.account),
            client_ip: Some(received.origin.client_ip),
            hello: received.origin.hello,
            protocol: received.origin.protocol.to_owned(),
        };
        let message = SpoolMessage {
            transit,
            recipients: recipients.map(|recipient| SpoolRecipient { recipient, finished: false }).collect(),
            junk,
            report: false,
        };
        spool::insert(&self.store, &NewSpool { message, body: AppendBody::Staged(body) }).await?;
        self.nudge.nudge(id);
        Ok(())
    }
}

/// What the spool actor is told.
pub enum SpoolMsg {
    /// There is a new row.
    Accepted(IngestId),
    /// A distributor has done what it can for a message until its next turn.
    Done { distributor: ActorId, id: IngestId, end: End },
    /// The pause of a message that was put off is over.
    Again(IngestId),
    /// Look into the store.
    Scan,
    /// A distributor is to be started in place of one that died.
    Replace,
}

impl ractor::Message for SpoolMsg {}

struct SpoolActor;

struct SpoolState {
    services: Arc<SpoolServices>,
    waiting: Waiting,
    distributors: HashMap<ActorId, Distributor>,
    /// How often each message was put off in a row.
    put_off: HashMap<IngestId, u32>,
    /// Messages that killed their distributor.
    failed: HashMap<IngestId, Restarts>,
}

struct Distributor {
    actor: ActorRef<DistributorMsg>,
    message: Option<IngestId>,
}

impl Actor for SpoolActor {
    type Msg = SpoolMsg;
    type State = SpoolState;
    type Arguments = Arc<SpoolServices>;

    async fn pre_start(
        &self,
        myself: ActorRef<SpoolMsg>,
        services: Arc<SpoolServices>,
    ) -> Result<SpoolState, ActorProcessingErr> {
        let waiting = Waiting::new(services.settings.queue.spool_waiting_max);
        let workers = services.settings.queue.spool_workers.max(1);
        let mut state = SpoolState {
            services,
            waiting,
            distributors: HashMap::new(),
            put_off: HashMap::new(),
            failed: HashMap::new(),
        };
        for _ in 0..workers {
            state.start_distributor(&myself).await?;
        }
        myself.cast(SpoolMsg::Scan)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SpoolMsg>,
        message: SpoolMsg,
        state: &mut SpoolState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SpoolMsg::Accepted(id) => state.waiting.add(id),
            SpoolMsg::Done { distributor, id, end } => state.done(&myself, distributor, id, end),
            SpoolMsg::Again(id) => state.waiting.resume(id),
            SpoolMsg::Scan => {
                state.scan().await;
                myself.send_after(state.services.settings.queue.scan_interval.get(), || SpoolMsg::Scan);
            }
            SpoolMsg::Replace => {
                if state.start_distributor(&myself).await.is_err() {
                    myself.send_after(REPLACE_PAUSE, || SpoolMsg::Replace);
                }
            }
        }
        if state.waiting.wants_scan() {
            state.scan().await;
        }
        state.assign();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SpoolMsg>,
        event: SupervisionEvent,
        state: &mut SpoolState,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, _) => (cell, "it stopped".to_owned()),
            _ => return Ok(()),
        };
        if let Some(distributor) = state.distributors.remove(&cell.get_id()) {
            if let Some(id) = distributor.message {
                let pause = state.failure(id, reason);
                myself.send_after(pause, move || SpoolMsg::Again(id));
            }
            myself.cast(SpoolMsg::Replace)?;
        }
        Ok(())
    }
}

impl SpoolState {
    async fn start_distributor(&mut self, myself: &ActorRef<SpoolMsg>) -> Result<(), SpawnErr> {
        let arguments = DistributorArguments { spool: myself.clone(), services: self.services.clone() };
        let (actor, _) = Actor::spawn_linked(None, DistributorActor, arguments, myself.get_cell()).await?;
        self.distributors.insert(actor.get_id(), Distributor { actor, message: None });
        Ok(())
    }

    /// Finds rows that nobody told of. An error leaves that to the next scan.
    async fn scan(&mut self) {
        let mut after = None;
        while self.waiting.has_room() {
            let Ok(page) = spool::list(&self.services.store, after, SCAN_PAGE).await else { return };
            let Some(last) = page.last().copied() else { return self.waiting.all_seen() };
            after = Some(last);
            page.into_iter().for_each(|id| self.waiting.add(id));
        }
        self.waiting.not_all_seen();
    }

    fn assign(&mut self) {
        for distributor in self.distributors.values_mut().filter(|distributor| distributor.message.is_none()) {
            let Some(id) = self.waiting.next() else { return };
            distributor.message = Some(id);
            // One that has just died is reported by its supervision event, which puts the message back.
            let _ = distributor.actor.cast(DistributorMsg::Distribute(id));
        }
    }

    fn done(&mut self, myself: &ActorRef<SpoolMsg>, distributor: ActorId, id: IngestId, end: End) {
        if let Some(distributor) = self.distributors.get_mut(&distributor) {
            distributor.message = None;
        }
        match end {
            End::Finished => {
                self.waiting.forget(id);
                self.put_off.remove(&id);
                self.failed.remove(&id);
            }
            End::Again { open, reason } => {
                let times = self.put_off.entry(id).or_default();
                *times = times.saturating_add(1);
                let pause = self.services.settings.queue.spool_retry.get() * (1 << (*times - 1).min(PAUSE_DOUBLINGS));
                emit(MessagePutOff { message: id, open, reason });
                myself.send_after(pause, move || SpoolMsg::Again(id));
            }
        }
    }

    fn failure(&mut self, id: IngestId, reason: String) -> Duration {
        let settings = &self.services.settings.supervise;
        let restarts = self.failed.entry(id);
        restarts.or_insert_with(|| Restarts::new("distributor", id.to_string(), settings.clone())).next_start(reason)
    }
}

/// Ids read from the store at once.
const SCAN_PAGE: usize = 500;
const REPLACE_PAUSE: Duration = Duration::from_millis(200);
/// The pause of a message that is put off grows to 64 times `queue.spool_retry`.
const PAUSE_DOUBLINGS: u32 = 6;
