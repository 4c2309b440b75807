//! Writes reports to senders and makes them spool messages, ready for the transaction that ends a recipient's way.
//!
//! Apart from the queue because the spool needs it too. A report goes through the spool like any mail, but past filter and
//! quota; none is written to the null reverse-path, so no report ever causes another (RFC 5321 §4.5.5).

use posthouse_mail::stage::BodyRef;
use posthouse_mail::{
    Address, BodyType, DsnNotify, ForwardPath, IngestId, Recipient, RemoteReply, ReversePath, UnixMillis,
};
use posthouse_obs::emit;
use posthouse_obs::event::queue::ReportWritten;
use posthouse_storage::message::AppendBody;
use posthouse_storage::spool::{NewSpool, SpoolMessage, SpoolRecipient};
use posthouse_storage::transit::{LastOutcome, Transit};
use posthouse_storage::{Error, Store};
use posthouse_wire::dsn::{Dsn, Original, Report, ReportAction, ReportedRecipient, returns_full};

use crate::clock;

/// Writes reports; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reports {
    pub hostname: String,
    /// Octets of a message that is returned whole (`queue.dsn_return_max`).
    pub return_max: u64,
}

/// One recipient's end, or delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    pub recipient: Recipient,
    pub action: ReportAction,
    pub last: LastOutcome,
    pub attempted_at: Option<UnixMillis>,
    pub will_retry_until: Option<UnixMillis>,
}

impl Reports {
    /// A report about those of the recipients who are to be reported; `None` where nobody asked or may hear.
    pub async fn write(
        &self,
        store: &Store,
        transit: &Transit,
        fates: &[Fate],
        now: UnixMillis,
    ) -> Result<Option<NewSpool>, Error> {
        let Some(to) = transit.reverse_path.address() else { return Ok(None) };
        let wanted: Vec<_> = fates.iter().filter(|fate| fate.action.is_wanted(fate.recipient.notify)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let recipients: Vec<_> = wanted.iter().map(|fate| reported(fate)).collect();
        let id = clock::ingest_id(now);
        let size = octets(&transit.added_headers) + transit.body.size;
        let full = returns_full(transit.dsn_return, &recipients, size, self.return_max);
        let content = self.original(store, transit, if full { size } else { self.return_max }).await?;
        let report = Report {
            hostname: &self.hostname,
            to,
            now,
            arrived_at: transit.received_at,
            unique: &id.to_string(),
            envelope_id: transit.envelope_id.as_deref(),
            recipients: &recipients,
            original: if full { Original::Full(&content) } else { Original::Header(&content) },
        };
        let action = recipients.first().map_or("failed", |first| first.action.word());
        emit(ReportWritten { message: transit.id, report: id, action, recipients: recipients.len() });
        spooled(store, id, to, report.to_dsn(), now).await.map(Some)
    }

    /// The first octets of the message: all of it, or enough for its header.
    async fn original(&self, store: &Store, transit: &Transit, max: u64) -> Result<Vec<u8>, Error> {
        let mut content = transit.added_headers.clone();
        let room = max.saturating_sub(octets(&content)).min(transit.body.size);
        content.extend_from_slice(&read_prefix(store, &transit.body, room).await?);
        Ok(content)
    }
}

async fn read_prefix(store: &Store, body: &BodyRef, octets: u64) -> Result<bytes::Bytes, Error> {
    if octets == 0 { Ok(bytes::Bytes::new()) } else { store.body_read(body, 0..octets).await }
}

/// The report as a message to one recipient, its body staged.
async fn spooled(store: &Store, id: IngestId, to: &Address, dsn: Dsn, now: UnixMillis) -> Result<NewSpool, Error> {
    let mut writer = store.body_writer();
    writer.write(&dsn.message).await?;
    let staged = writer.finish().await?;
    // RFC 3461 §6.1: a report asks for no report about itself.
    let recipient = Recipient { notify: DsnNotify::NEVER, ..Recipient::new(ForwardPath::Address(to.clone())) };
    let transit = Transit {
        id,
        reverse_path: ReversePath::Null,
        body_type: if dsn.eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8: dsn.needs_smtputf8,
        envelope_id: None,
        dsn_return: None,
        body: staged.body,
        added_headers: Vec::new(),
        received_at: now,
        account: None,
        client_ip: None,
        hello: String::new(),
        protocol: String::new(),
    };
    let recipients = vec![SpoolRecipient { recipient, finished: false }];
    let message = SpoolMessage { transit, recipients, junk: false, report: true };
    Ok(NewSpool { message, body: AppendBody::Staged(staged) })
}

fn reported(fate: &Fate) -> ReportedRecipient {
    let Fate { recipient, action, last, attempted_at, will_retry_until } = fate.clone();
    let status = match action {
        // RFC 3463 §2: the class says what the action says.
        ReportAction::Failed => posthouse_mail::EnhancedStatus { class: 5, ..last.status },
        ReportAction::Delayed => posthouse_mail::EnhancedStatus { class: 4, ..last.status },
        ReportAction::Delivered | ReportAction::Relayed => posthouse_mail::EnhancedStatus { class: 2, ..last.status },
    };
    ReportedRecipient {
        path: recipient.path,
        original: recipient.original,
        action,
        status,
        reason: last.reason,
        remote_mta: last.host,
        reply: last.reply,
        last_attempt_at: attempted_at,
        will_retry_until,
    }
}

/// A fate without a remote server: what we found ourselves.
pub fn own_finding(recipient: Recipient, action: ReportAction, status: (u8, u16, u16), reason: &str) -> Fate {
    let (class, subject, detail) = status;
    let status = posthouse_mail::EnhancedStatus::new(class, subject, detail);
    let last = LastOutcome { host: None, status, reason: reason.to_owned(), reply: None };
    Fate { recipient, action, last, attempted_at: None, will_retry_until: None }
}

/// A fate at a server that answered.
pub fn delivered_there(recipient: Recipient, host: &str, reply: &RemoteReply, now: UnixMillis) -> Fate {
    let status = reply.status.unwrap_or(posthouse_mail::EnhancedStatus::new(2, 0, 0));
    let reason = "handed to a server that sends no reports of its own".to_owned();
    let last = LastOutcome { host: Some(host.to_owned()), status, reason, reply: Some(reply.clone()) };
    Fate { recipient, action: ReportAction::Relayed, last, attempted_at: Some(now), will_retry_until: None }
}

fn octets(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}
