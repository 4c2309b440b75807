//! The mailbox actor: sole writer of one account's mailboxes, so that Uid and ModSeq have one source.
//!
//! A virtual entity. One write is under way at a time, in a task of its own; what comes meanwhile waits in order, and
//! deliveries that wait next to each other become one transaction. So a hot account costs one commit for many messages.
//!
//! Owns: the rows of one account under its shard's fence.   Receives: Ask (request.rs), Written, Tick.
//! Sends: answers, after the commit; notices to the account's listeners.
//! Bounds: conf.mailbox.{inbox_max, merge_max, request_timeout, passivate_after}; `MERGE_OCTETS`.
//! On failure: a panic in a write ends the actor; its requests are asked again of its successor, and what was committed is
//! found by its request id.   Standards: RFC 9051 §2.3.1, RFC 7162 §3.1.

mod client;
#[cfg(test)]
pub(crate) mod fixture;
mod ledger;
mod request;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use posthouse_cluster::{Entity, EntityKey, Permit};
use posthouse_conf::Mailbox as Settings;
use posthouse_mail::AccountId;
use posthouse_storage::{Fence, keys};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::time::Instant;

pub use client::Mailboxes;
pub use ledger::{Ledger, StoreLedger};
pub use request::{Answer, MailboxError, Request};

use crate::notice::Notices;
use write::{Job, Report};

/// An account as the router knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountKey(AccountId);

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl EntityKey for AccountKey {
    fn shard_bytes(&self) -> Vec<u8> {
        self.0.get().to_be_bytes().to_vec()
    }
}

/// What a mailbox actor hears.
pub enum MailboxMsg {
    Ask {
        request: Request,
        permit: Permit,
        answer: RpcReplyPort<Result<Answer, MailboxError>>,
    },
    /// The write under way has ended.
    Written(Ended),
    /// Looks whether something is to be tidied, or whether the actor may leave memory.
    Tick,
}

impl ractor::Message for MailboxMsg {}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    panicked: bool,
    /// There is something to tidy at once.
    untidy: bool,
}

/// How to bring a mailbox actor to life.
pub struct MailboxEntity<L> {
    ledger: L,
    notices: Notices,
    settings: Settings,
}

impl<L: Ledger> Entity for MailboxEntity<L> {
    type Key = AccountKey;
    type Msg = MailboxMsg;

    const KIND: &'static str = keys::ACCOUNT_KIND;

    fn inbox_max(&self) -> usize {
        self.settings.inbox_max
    }

    async fn spawn(
        &self,
        key: AccountKey,
        fence: Fence,
        supervisor: ActorCell,
    ) -> Result<ActorRef<MailboxMsg>, SpawnErr> {
        let now = Instant::now();
        let state = MailboxState {
            account: key.0,
            fence,
            ledger: self.ledger.clone(),
            notices: self.notices.clone(),
            merge_max: self.settings.merge_max.max(1),
            passivate_after: self.settings.passivate_after.get(),
            waiting: VecDeque::new(),
            is_writing: false,
            used_at: now,
            tidied_at: None,
        };
        Ok(Actor::spawn_linked(None, MailboxActor(std::marker::PhantomData), state, supervisor).await?.0)
    }
}

struct MailboxActor<L>(std::marker::PhantomData<fn() -> L>);

/// Octets of added headers and structures in one merged transaction: well under the budget of every engine.
const MERGE_OCTETS: usize = 512 * 1024;
/// How often an account that stays in memory is tidied.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// One account as its actor holds it.
pub(crate) struct MailboxState<L> {
    account: AccountId,
    fence: Fence,
    ledger: L,
    notices: Notices,
    merge_max: usize,
    passivate_after: Duration,
    waiting: VecDeque<Waiting>,
    is_writing: bool,
    used_at: Instant,
    tidied_at: Option<Instant>,
}

/// A request whose turn has not come. What the actor asks of itself has nobody to answer.
struct Waiting {
    request: Request,
    asker: Option<Asker>,
}

struct Asker {
    answer: RpcReplyPort<Result<Answer, MailboxError>>,
    /// The place in the inbox, freed with the answer.
    _permit: Permit,
}

impl<L: Ledger> Actor for MailboxActor<L> {
    type Msg = MailboxMsg;
    type State = MailboxState<L>;
    type Arguments = MailboxState<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<MailboxMsg>,
        state: MailboxState<L>,
    ) -> Result<MailboxState<L>, ActorProcessingErr> {
        myself.send_after(state.passivate_after, || MailboxMsg::Tick);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<MailboxMsg>,
        message: MailboxMsg,
        state: &mut MailboxState<L>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MailboxMsg::Ask { request, permit, answer } => {
                state.waiting.push_back(Waiting { request, asker: Some(Asker { answer, _permit: permit }) });
            }
            MailboxMsg::Written(Ended { panicked: true, .. }) => return Err("a write panicked".into()),
            MailboxMsg::Written(ended) => {
                state.is_writing = false;
                if ended.untidy {
                    state.waiting.push_back(Waiting { request: Request::Tidy, asker: None });
                }
            }
            MailboxMsg::Tick => state.on_tick(&myself),
        }
        state.write_next(&myself);
        Ok(())
    }
}

impl<L: Ledger> MailboxState<L> {
    fn on_tick(&mut self, myself: &ActorRef<MailboxMsg>) {
        let is_idle = !self.is_writing && self.waiting.is_empty();
        if is_idle && self.tidied_at.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            self.tidied_at = Some(Instant::now());
            self.waiting.push_back(Waiting { request: Request::Tidy, asker: None });
        } else if is_idle && self.used_at.elapsed() >= self.passivate_after {
            // A request that comes between is asked again, of the successor.
            myself.stop(None);
            return;
        }
        myself.send_after(self.passivate_after, || MailboxMsg::Tick);
    }

    /// Starts the next write, if none is under way.
    fn write_next(&mut self, myself: &ActorRef<MailboxMsg>) {
        if self.is_writing {
            return;
        }
        // Nobody waits for these any more, and whoever asked may ask again.
        self.waiting.retain(|waiting| waiting.asker.as_ref().is_none_or(|asker| !asker.answer.is_closed()));
        let Some(job) = self.next_job() else { return };
        if job.has_asker() {
            self.used_at = Instant::now();
        }
        self.is_writing = true;
        let report = Report::new(myself.clone());
        let (account, fence) = (self.account, self.fence);
        tokio::spawn(write::run(self.ledger.clone(), self.notices.clone(), (account, fence), job, report));
    }

    /// The request whose turn it is, with the deliveries right behind it if it is one.
    fn next_job(&mut self) -> Option<Job> {
        let first = self.waiting.pop_front()?;
        let Request::Append(append) = &first.request else { return Some(Job::One(first)) };
        let mut octets = append.weight();
        let mut batch = vec![first];
        while batch.len() < self.merge_max {
            let Some(Waiting { request: Request::Append(next), .. }) = self.waiting.front() else { break };
            octets = octets.saturating_add(next.weight());
            if octets > MERGE_OCTETS {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        Some(Job::Appends(batch))
    }
}
