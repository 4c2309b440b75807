//! Carries mail of one destination to its servers: one message after the other over one line that is kept for the next.
//!
//! Apart from the queue actor so that a slow server holds up nobody, and a bug that kills a relay kills one attempt: the
//! queue gives the message to another relay.
//!
//! Owns: one connection to another server.   Receives: Carry, Quit.   Sends: Attempted to its queue.
//! Bounds: one message at a time; every wait of `conf.queue`; `queue.relays_max` of them on a node.
//! On failure: the queue actor, its supervisor, tries the message again with back-off.   Standards: RFC 5321 §4.5.4.1, §6.1.

mod connection;
mod content;
mod smtp;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use posthouse_mail::Recipient;
use posthouse_obs::emit;
use posthouse_obs::event::queue::{AttemptEnded, QueueStoreFailed};
use posthouse_storage::queue::{self, QueueMessage, Settlement, Work};
use posthouse_storage::{Error, Fence};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::clock;
use crate::queue::QueueMsg;
use crate::queue::services::QueueServices;
use crate::queue::settlement::{Attempted, plan, tell};

pub use connection::Line;
pub use smtp::{CourierError, Outbound, SmtpCourier};

/// One message for one destination.
#[derive(Debug, Clone)]
pub struct Load {
    pub message: QueueMessage,
    pub work: Work,
}

impl Load {
    pub fn recipients(&self) -> &[Recipient] {
        &self.work.recipients
    }
}

/// Takes a load to where it belongs. A trait, so that tests can put a courier in its place that fails or panics.
pub trait Courier: Send + Sync + 'static {
    /// Gives one outcome for each recipient. `line` may hold a connection from before, and may keep one for later.
    fn carry<'a>(&'a self, load: &'a Load, line: &'a mut Line) -> BoxFuture<'a, Vec<Attempted>>;

    /// Ends the kept connection with QUIT.
    fn hang_up<'a>(&'a self, line: &'a mut Line) -> BoxFuture<'a, ()>;
}

/// What a relay is asked to do.
pub enum RelayMsg {
    Carry(Box<Work>),
    Quit,
}

impl ractor::Message for RelayMsg {}

/// What a relay works with.
pub struct RelayArguments {
    pub queue: ActorRef<QueueMsg>,
    pub services: Arc<QueueServices>,
    pub fence: Fence,
}

pub struct RelayState {
    arguments: RelayArguments,
    line: Line,
}

pub struct RelayActor;

impl Actor for RelayActor {
    type Msg = RelayMsg;
    type State = RelayState;
    type Arguments = RelayArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<RelayMsg>,
        arguments: RelayArguments,
    ) -> Result<RelayState, ActorProcessingErr> {
        Ok(RelayState { arguments, line: Line::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<RelayMsg>,
        message: RelayMsg,
        state: &mut RelayState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RelayMsg::Carry(work) => {
                let id = work.id.clone();
                let settled = state.carry(*work).await;
                emit(AttemptEnded {
                    message: id.message,
                    destination: id.destination.clone(),
                    end: if settled { "settled" } else { "failed" },
                });
                let _ = state.arguments.queue.cast(QueueMsg::Attempted { relay: myself.get_id(), work: id, settled });
            }
            RelayMsg::Quit => {
                state.arguments.services.courier.hang_up(&mut state.line).await;
                myself.stop(None);
            }
        }
        Ok(())
    }
}

impl RelayState {
    /// Carries and settles; whether the store knows the end of it.
    async fn carry(&mut self, work: Work) -> bool {
        let services = self.arguments.services.clone();
        let _busy = services.busy.enter();
        let message = match queue::message(&services.store, work.id.message).await {
            Ok(Some(message)) => message,
            // Settled by an earlier attempt whose end this one did not hear.
            Ok(None) => return true,
            Err(error) => return self.complain(&work, &error),
        };
        let load = Load { message, work };
        let attempted = services.courier.carry(&load, &mut self.line).await;
        settle(&services, self.arguments.fence, &load, attempted).await
    }

    fn complain(&self, work: &Work, error: &Error) -> bool {
        emit(QueueStoreFailed { destination: work.id.destination.to_string(), reason: error.to_string() });
        false
    }
}

/// Makes the end of an attempt durable: who is through, who waits, and the reports, in one transaction.
pub(crate) async fn settle(services: &QueueServices, fence: Fence, load: &Load, attempted: Vec<Attempted>) -> bool {
    let now = clock::now();
    let plan = plan(&services.settings.queue, (&load.message, &load.work), attempted.clone(), now, rand::random());
    let expires = plan.later.is_none();
    let mut wait = SETTLE_PAUSE;
    loop {
        match write(services, fence, load, &plan).await {
            Ok(()) => {
                tell(&load.message, &load.work, &attempted, expires, now);
                return true;
            }
            Err(error) => {
                emit(QueueStoreFailed { destination: load.work.id.destination.to_string(), reason: error.to_string() });
                // What was delivered and is not noted will be sent again: worth some patience.
                if !error.failure().try_again || wait > SETTLE_PATIENCE {
                    return false;
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
        }
    }
}

async fn write(
    services: &QueueServices,
    fence: Fence,
    load: &Load,
    plan: &crate::queue::settlement::Plan,
) -> Result<(), Error> {
    let now = clock::now();
    let report = services.reports.write(&services.store, &load.message.transit, &plan.fates, now).await?;
    let report_id = report.as_ref().map(|report| report.message.transit.id);
    let settlement = Settlement {
        finished: plan.finished.clone(),
        later: plan.later.clone(),
        reports: report.into_iter().collect(),
    };
    queue::settle(&services.store, fence, &load.work.id, &settlement, now).await?;
    if let Some(id) = report_id {
        services.spool.nudge(id);
    }
    Ok(())
}

/// The first pause before a settlement is written again; it doubles up to the patience.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
