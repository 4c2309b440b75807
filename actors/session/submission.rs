//! What ports 587 and 465 do with paths and messages: the sender's own addresses, any recipient, a completed and signed
//! message in the spool (RFC 6409).
//!
//! Apart from receiving because here the client is known and its mail may be changed; the dialogue and the flow of data
//! are those of `smtp.rs`.

use bytes::Bytes;
use posthouse_mail::stage::{Origin, ReceivedMessage, SignedMessage, SubmittedMessage};
use posthouse_mail::{Address, Envelope, Flag, ForwardPath, Reply, SpecialUse};
use posthouse_obs::emit;
use posthouse_obs::event::session::SentCopyMissed;
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::Login;
use posthouse_wire::smtp::trace::Received;

use crate::clock;
use crate::session::smtp::desk::Desk;
use crate::session::smtp::intake::Taken;
use crate::session::smtp::receiving::{Answer, refused};

/// The number of the copy in Sent among the deliveries of one message; those of recipients count from 0.
const SENT_COPY: u32 = u32::MAX;

/// MAIL: RFC 6409 §6.1: the reverse-path is an address of the account. The null path is left to everybody: receipts that
/// a client sends must bear it (RFC 8098 §3).
pub(in crate::session) async fn check_sender<D: Desk>(desk: &D, login: &Login, address: &Address) -> Result<(), Reply> {
    if desk.owns(login.account, address).await? { Ok(()) } else { Err(reply::not_your_address()) }
}

/// RCPT: an unknown user of ours is refused at once, others are the queue's business.
pub(in crate::session) async fn check_forward_path<D: Desk>(
    desk: &D,
    path: &ForwardPath,
    size: Option<u64>,
) -> Result<(), Reply> {
    desk.route(path, size).await.map(|_| ())
}

/// One account that submits.
pub(in crate::session) struct Submitter<'a, D> {
    pub desk: &'a D,
    pub hostname: &'a str,
    pub login: &'a Login,
    pub settings: &'a posthouse_conf::Submission,
}

impl<D: Desk> Submitter<'_, D> {
    /// The message is whole: checks its authors, signs it, and takes responsibility for it.
    pub async fn submit(&self, (envelope, origin): (Envelope, Origin), taken: Taken) -> Answer {
        let id = envelope.id;
        let signed = match self.sign((envelope, origin), &taken).await {
            Ok(signed) => signed,
            Err(refusal) => return refused(refusal),
        };
        let copy = self.settings.sent_copy.then(|| sent_copy(&signed, &taken));
        if let Err(refusal) = self.desk.submit(signed, taken.staged).await {
            return refused(refusal);
        }
        // The message is on its way whatever becomes of the copy, so a lost one must not make the client send again.
        if let Some(copy) = copy
            && let Err(refusal) = self.desk.append(self.login.account, copy).await
        {
            emit(SentCopyMissed { message: id, account: self.login.account, reason: refusal.lines.join(" ") });
        }
        (reply::message_accepted(id), "accepted")
    }

    async fn sign(&self, (envelope, origin): (Envelope, Origin), taken: &Taken) -> Result<SignedMessage, Reply> {
        self.check_authors(taken).await?;
        let received_at = clock::now();
        let hostname = self.hostname;
        let trace = Received {
            origin: &origin,
            client_name: None,
            hostname,
            id: envelope.id,
            recipient: None,
            at: received_at,
        };
        let author = taken.authors.from.first().unwrap_or(&self.login.address);
        let mut added_headers = self.desk.sign(author, taken.staged.body, received_at).await?;
        added_headers.extend_from_slice(trace.to_field().as_bytes());
        let received = ReceivedMessage { envelope, origin, body: taken.staged.body, received_at };
        let submitted = SubmittedMessage { received, sender: self.login.account };
        Ok(SignedMessage { submitted, added_headers })
    }

    /// RFC 6409 §6.1: nobody speaks in another's name. Of several authors one must be the account, and RFC 5322 §3.6.2
    /// then wants a Sender, which must be the account's too.
    async fn check_authors(&self, taken: &Taken) -> Result<(), Reply> {
        let mut own = false;
        for author in &taken.authors.from {
            own = own || self.desk.owns(self.login.account, author).await?;
        }
        let sender_own = match &taken.authors.sender {
            Some(sender) => self.desk.owns(self.login.account, sender).await?,
            None => taken.authors.from.len() <= 1,
        };
        if own && sender_own { Ok(()) } else { Err(reply::not_your_address()) }
    }
}

/// The copy for the account's own Sent mailbox.
fn sent_copy(signed: &SignedMessage, taken: &Taken) -> Append {
    let received = &signed.submitted.received;
    Append {
        request: received.envelope.id,
        item: SENT_COPY,
        target: Target::Role(SpecialUse::Sent),
        flags: [Flag::Seen].into_iter().collect(),
        received_at: received.received_at,
        prefix: Bytes::from(signed.added_headers.clone()),
        body: AppendBody::Staged(taken.staged.clone()),
        structure: taken.structure.clone().under_prefix(signed.added_headers.len() as u64),
        quota: QuotaRule::Enforce,
    }
}
