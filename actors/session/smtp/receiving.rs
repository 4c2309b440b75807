//! What port 25 does with paths and messages: local recipients only, the filter, then a mailbox or the spool.

use bytes::Bytes;
use posthouse_mail::flag::Keyword;
use posthouse_mail::stage::{Origin, ReceivedMessage, VettedMessage};
use posthouse_mail::{AccountId, Action, Address, Envelope, Flag, FlagSet, ForwardPath, Reply, SpecialUse};
use posthouse_obs::emit;
use posthouse_obs::event::queue::DeliveredLocally;
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::trace::{Received, return_path_field};

use crate::clock;
use crate::session::smtp::desk::{Desk, Route};
use crate::session::smtp::intake::Taken;

/// A reply to the end of data, and its word in the metrics.
pub(in crate::session) type Answer = (Reply, &'static str);

/// RCPT: RFC 5321 §3.6.2, §7.9: we relay for nobody. Returns the account, where the path is just one.
pub(super) async fn check_forward_path<D: Desk>(
    desk: &D,
    path: &ForwardPath,
    size: Option<u64>,
) -> Result<Option<AccountId>, Reply> {
    match desk.route(path, size).await? {
        Route::NotLocal => Err(reply::relaying_denied()),
        Route::Account(account) => Ok(Some(account)),
        Route::Several => Ok(None),
    }
}

/// VRFY, where the site lets it tell (RFC 5321 §3.5).
pub(super) async fn verify<D: Desk>(desk: &D, name: &str) -> Reply {
    let name = name.strip_prefix('<').and_then(|name| name.strip_suffix('>')).unwrap_or(name);
    let Ok(address) = Address::parse(name) else {
        return reply::cannot_verify();
    };
    match desk.route(&ForwardPath::Address(address.clone()), None).await {
        Ok(Route::NotLocal) => reply::cannot_verify(),
        Ok(Route::Account(_) | Route::Several) => reply::verified(&address),
        Err(refusal) => refusal,
    }
}

/// The message is whole: asks the filter and does what it says. `resolved` is what RCPT found out.
pub(super) async fn receive<D: Desk>(
    desk: &D,
    hostname: &str,
    (envelope, origin): (Envelope, Origin),
    taken: Taken,
    resolved: Option<(ForwardPath, AccountId)>,
) -> Answer {
    let received_at = clock::now();
    let received = Received {
        origin: &origin,
        client_name: None,
        hostname,
        id: envelope.id,
        recipient: only_recipient(&envelope),
        at: received_at,
    }
    .to_field();
    let message = ReceivedMessage { envelope, origin, body: taken.staged.body, received_at };
    let mut vetted = match desk.vet(message).await {
        Ok(vetted) => vetted,
        Err(refusal) => return refused(refusal),
    };
    // RFC 8601 §4.1: what the filter found stands above the Received field of the host that found it.
    vetted.added_headers.extend_from_slice(received.as_bytes());
    match vetted.verdict.action {
        Action::Reject => refused(vetted.verdict.reply.unwrap_or_else(reply::policy_refusal)),
        Action::Defer => refused(vetted.verdict.reply.unwrap_or_else(reply::try_again_later)),
        Action::Discard => (reply::message_accepted(vetted.received.envelope.id), "discarded"),
        Action::Accept | Action::Junk | Action::Quarantine => hand_on(desk, vetted, taken, resolved).await,
    }
}

/// The fast path, or the spool. Either returns after the commit that the 250 stands for.
async fn hand_on<D: Desk>(
    desk: &D,
    vetted: VettedMessage,
    taken: Taken,
    resolved: Option<(ForwardPath, AccountId)>,
) -> Answer {
    let id = vetted.received.envelope.id;
    let done = match only_account(desk, &vetted.received.envelope, resolved).await {
        Some((account, recipient)) => deliver(desk, account, recipient, &vetted, taken).await,
        None => Box::pin(desk.spool(vetted, taken.staged)).await,
    };
    match done {
        Ok(()) => (reply::message_accepted(id), "accepted"),
        Err(refusal) => refused(refusal),
    }
}

async fn deliver<D: Desk>(
    desk: &D,
    account: AccountId,
    recipient: ForwardPath,
    vetted: &VettedMessage,
    taken: Taken,
) -> Result<(), Reply> {
    desk.append(account, delivery(vetted, taken)).await?;
    let ReceivedMessage { envelope, received_at, .. } = &vetted.received;
    let transit_seconds = clock::now().since(*received_at).as_secs_f64();
    emit(DeliveredLocally { message: envelope.id, recipient, account, transit_seconds });
    Ok(())
}

/// The account, where the one recipient is just one. What can't be found out now the spool finds out later.
async fn only_account<D: Desk>(
    desk: &D,
    envelope: &Envelope,
    resolved: Option<(ForwardPath, AccountId)>,
) -> Option<(AccountId, ForwardPath)> {
    let recipient = only_recipient(envelope)?;
    if envelope.recipients.iter().any(|recipient| recipient.notify.success) {
        // RFC 3461 §4.1: a report of success is due, which the spool writes.
        return None;
    }
    if let Some((path, account)) = resolved.filter(|(path, _)| path == recipient) {
        return Some((account, path));
    }
    // Boxed: this is the session that moved since RCPT.
    match Box::pin(desk.route(recipient, None)).await {
        Ok(Route::Account(account)) => Some((account, recipient.clone())),
        _ => None,
    }
}

fn only_recipient(envelope: &Envelope) -> Option<&ForwardPath> {
    match envelope.recipients.as_slice() {
        [recipient] => Some(&recipient.path),
        _ => None,
    }
}

/// Final delivery to one account.
fn delivery(vetted: &VettedMessage, taken: Taken) -> Append {
    let envelope = &vetted.received.envelope;
    let mut prefix = return_path_field(&envelope.reverse_path).into_bytes();
    prefix.extend_from_slice(&vetted.added_headers);
    let is_junk = vetted.verdict.action != Action::Accept;
    Append {
        request: envelope.id,
        item: 0,
        target: Target::Role(if is_junk { SpecialUse::Junk } else { SpecialUse::Inbox }),
        flags: if is_junk { junk_flags() } else { FlagSet::default() },
        received_at: vetted.received.received_at,
        structure: taken.structure.under_prefix(prefix.len() as u64),
        prefix: Bytes::from(prefix),
        body: AppendBody::Staged(taken.staged),
        // Quota was checked at RCPT; what came through is not bounced for the last octets.
        quota: QuotaRule::Tolerate,
    }
}

/// The keyword by which clients know what a filter thought (IANA registry of RFC 5788).
fn junk_flags() -> FlagSet {
    Keyword::new("$Junk").map(Flag::Keyword).into_iter().collect()
}

/// A refusal with its word in the metrics.
pub(in crate::session) fn refused(refusal: Reply) -> Answer {
    let word = if refusal.is_transient() { "deferred" } else { "rejected" };
    (refusal, word)
}
