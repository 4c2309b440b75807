//! One write of a mailbox actor, in a task of its own: commit, then notice, then answers.

use std::sync::Arc;

use posthouse_mail::AccountId;
use posthouse_obs::emit;
use posthouse_obs::event::mailbox::{MailboxWriteFailed, MailboxWritten};
use posthouse_storage::message::{Append, Appended};
use posthouse_storage::{Error, Fence, Writer};
use ractor::ActorRef;

use super::ledger::Ledger;
use super::request::{Answer, MailboxError, Request};
use super::{Ended, MailboxMsg, Waiting};
use crate::clock;
use crate::notice::Notices;

/// What is written at once.
pub(super) enum Job {
    /// Deliveries next to each other, in one transaction.
    Appends(Vec<Waiting>),
    One(Waiting),
}

impl Job {
    pub(super) fn has_asker(&self) -> bool {
        match self {
            Self::Appends(batch) => batch.iter().any(|waiting| waiting.asker.is_some()),
            Self::One(waiting) => waiting.asker.is_some(),
        }
    }
}

/// Tells the actor that the write has ended, also when it panicked.
pub(super) struct Report {
    actor: ActorRef<MailboxMsg>,
    untidy: bool,
}

impl Report {
    pub(super) fn new(actor: ActorRef<MailboxMsg>) -> Self {
        Self { actor, untidy: false }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let ended = Ended { panicked: std::thread::panicking(), untidy: self.untidy };
        // An actor that is gone needs no report.
        let _ = self.actor.cast(MailboxMsg::Written(ended));
    }
}

/// Writes. `report` is dropped last, so that the next write begins after the answers of this one.
pub(super) async fn run<L: Ledger>(
    ledger: L,
    notices: Notices,
    (account, fence): (AccountId, Fence),
    job: Job,
    mut report: Report,
) {
    let writer = Writer { fence, account, now: clock::now() };
    match job {
        Job::Appends(batch) => {
            let appends: Vec<Arc<Append>> = batch.iter().filter_map(|waiting| append_of(&waiting.request)).collect();
            let results = append_all(&ledger, &writer, &appends).await;
            let results: Vec<_> = results.into_iter().map(|result| result.map(Answer::Stored)).collect();
            tell(&writer, &notices, "append", &results);
            for (waiting, result) in batch.into_iter().zip(results) {
                answer(waiting, result);
            }
        }
        Job::One(waiting) => {
            let result = ledger.perform(&writer, &waiting.request).await;
            report.untidy = match &result {
                // What a deleted mailbox holds goes at once; what the asker itself tidies, it asks for again.
                Ok(Answer::Changed(_)) => matches!(waiting.request, Request::Delete(_)),
                Ok(Answer::Tidied { more }) => *more && waiting.asker.is_none(),
                _ => false,
            };
            tell(&writer, &notices, waiting.request.name(), std::slice::from_ref(&result));
            answer(waiting, result);
        }
    }
}

fn append_of(request: &Request) -> Option<Arc<Append>> {
    match request {
        Request::Append(append) => Some(append.clone()),
        _ => None,
    }
}

/// Stores a batch; when that fails as a whole, one by one, so that a message which cannot be stored takes no other with it.
async fn append_all<L: Ledger>(ledger: &L, writer: &Writer, batch: &[Arc<Append>]) -> Appended {
    match ledger.append(writer, batch).await {
        Ok(results) => results,
        Err(error) if batch.len() == 1 => vec![Err(error)],
        Err(_) => {
            let mut results = Vec::with_capacity(batch.len());
            for one in batch {
                let stored = ledger.append(writer, std::slice::from_ref(one)).await;
                results.push(stored.and_then(|mut stored| stored.pop().unwrap_or(Err(Error::NotFound))));
            }
            results
        }
    }
}

/// Listeners hear of the newest change; failures that are ours are told to the operator.
fn tell(writer: &Writer, notices: &Notices, what: &'static str, results: &[Result<Answer, Error>]) {
    let modseq = results.iter().filter_map(|result| result.as_ref().ok().and_then(Answer::modseq)).max();
    if let Some(modseq) = modseq {
        notices.publish(writer.account, modseq);
    }
    emit(MailboxWritten { what, requests: results.len() });
    let ours = |error: &&Error| error.failure().fault == posthouse_mail::Fault::Ours && **error != Error::Busy;
    if let Some(error) = results.iter().filter_map(|result| result.as_ref().err()).find(ours) {
        emit(MailboxWriteFailed { account: writer.account, what, reason: error.to_string() });
    }
}

fn answer(waiting: Waiting, result: Result<Answer, Error>) {
    if let Some(asker) = waiting.asker {
        // Whoever gave up waiting may ask again: the answer is found under the request's id.
        let _ = asker.answer.send(result.map_err(MailboxError::from));
    }
}
