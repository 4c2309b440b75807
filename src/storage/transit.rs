//! Mail under way, as spool and queue rows hold it: the envelope, the body, the added headers, and who handed it in.

use std::net::IpAddr;

use posthouse_mail::envelope::{BodyType, DsnNotify, DsnReturn, OriginalRecipient, Recipient};
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{
    AccountId, BlobId, DeliveryOutcome, EnhancedStatus, ForwardPath, IngestId, RemoteReply, ReversePath, UnixMillis,
};

use crate::error::Error;
use crate::record::transport::TransitRow;
use crate::record::{OutcomeRow, RecipientRow};

/// What every step of a message's way needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    pub id: IngestId,
    pub reverse_path: ReversePath,
    pub body_type: BodyType,
    pub smtputf8: bool,
    /// ENVID= (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    pub dsn_return: Option<DsnReturn>,
    pub body: BodyRef,
    /// Header fields above the body, each ending in CRLF.
    pub added_headers: Vec<u8>,
    pub received_at: UnixMillis,
    /// The account that submitted it.
    pub account: Option<AccountId>,
    pub client_ip: Option<IpAddr>,
    /// The argument of EHLO.
    pub hello: String,
    /// The `with` keyword of RFC 5321 §4.4.
    pub protocol: String,
}

/// The last word on an attempt that was deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastOutcome {
    pub host: Option<String>,
    pub status: EnhancedStatus,
    pub reason: String,
    pub reply: Option<RemoteReply>,
}

impl LastOutcome {
    /// What a deferred or bounced attempt leaves; a delivered one leaves nothing.
    pub fn of(outcome: &DeliveryOutcome) -> Option<Self> {
        match outcome.clone() {
            DeliveryOutcome::Delivered { .. } => None,
            DeliveryOutcome::Deferred { host, status, reason, reply }
            | DeliveryOutcome::Bounced { host, status, reason, reply } => Some(Self { host, status, reason, reply }),
        }
    }
}

impl Transit {
    pub(crate) fn to_row(&self) -> TransitRow {
        TransitRow {
            reverse_path: self.reverse_path.to_string(),
            body_type: match self.body_type {
                BodyType::SevenBit => 0,
                BodyType::EightBitMime => 1,
                BodyType::BinaryMime => 2,
            },
            smtputf8: self.smtputf8,
            envelope_id: self.envelope_id.clone(),
            dsn_return: match self.dsn_return {
                None => 0,
                Some(DsnReturn::Full) => 1,
                Some(DsnReturn::Headers) => 2,
            },
            blob: self.body.blob.as_bytes().to_vec(),
            body_size: self.body.size,
            added_headers: self.added_headers.clone(),
            received_at: self.received_at.0,
            account: self.account.map(AccountId::get),
            client_ip: self.client_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            hello: self.hello.clone(),
            protocol: self.protocol.clone(),
        }
    }

    pub(crate) fn from_row(id: IngestId, row: Option<TransitRow>) -> Result<Self, Error> {
        let row = row.ok_or_else(|| damaged(id))?;
        let blob = <[u8; 32]>::try_from(row.blob.as_slice()).map_err(|_| damaged(id))?;
        Ok(Self {
            id,
            reverse_path: ReversePath::parse(&row.reverse_path).map_err(|_| damaged(id))?,
            body_type: match row.body_type {
                1 => BodyType::EightBitMime,
                2 => BodyType::BinaryMime,
                _ => BodyType::SevenBit,
            },
            smtputf8: row.smtputf8,
            envelope_id: row.envelope_id,
            dsn_return: match row.dsn_return {
                1 => Some(DsnReturn::Full),
                2 => Some(DsnReturn::Headers),
                _ => None,
            },
            body: BodyRef { blob: BlobId::new(blob), size: row.body_size },
            added_headers: row.added_headers,
            received_at: UnixMillis(row.received_at),
            account: row.account.map(AccountId::new),
            client_ip: row.client_ip.parse().ok(),
            hello: row.hello,
            protocol: row.protocol,
        })
    }
}

fn damaged(id: IngestId) -> Error {
    Error::Corrupt(format!("message {id} under way has an unreadable row"))
}

const NOTIFY_SUCCESS: u32 = 1;
const NOTIFY_FAILURE: u32 = 2;
const NOTIFY_DELAY: u32 = 4;

pub(crate) fn recipient_row(recipient: &Recipient) -> RecipientRow {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    let DsnNotify { success, failure, delay } = recipient.notify;
    RecipientRow {
        path: recipient.path.to_string(),
        notify: bit(success, NOTIFY_SUCCESS) | bit(failure, NOTIFY_FAILURE) | bit(delay, NOTIFY_DELAY),
        original_type: recipient.original.as_ref().map(|original| original.address_type.clone()),
        original_address: recipient.original.as_ref().map(|original| original.address.clone()),
    }
}

pub(crate) fn recipient(id: IngestId, row: &RecipientRow) -> Result<Recipient, Error> {
    let original = row.original_type.clone().zip(row.original_address.clone());
    Ok(Recipient {
        path: ForwardPath::parse(&row.path).map_err(|_| damaged(id))?,
        notify: DsnNotify {
            success: row.notify & NOTIFY_SUCCESS != 0,
            failure: row.notify & NOTIFY_FAILURE != 0,
            delay: row.notify & NOTIFY_DELAY != 0,
        },
        original: original.map(|(address_type, address)| OriginalRecipient { address_type, address }),
    })
}

pub(crate) fn outcome_row(outcome: &LastOutcome) -> OutcomeRow {
    let reply = outcome.reply.as_ref();
    OutcomeRow {
        host: outcome.host.clone(),
        status: outcome.status.to_string(),
        reason: outcome.reason.clone(),
        reply_code: reply.map_or(0, |reply| u32::from(reply.code)),
        reply_status: reply.and_then(|reply| reply.status).map(|status| status.to_string()).unwrap_or_default(),
        reply_text: reply.map(|reply| reply.text.clone()).unwrap_or_default(),
    }
}

pub(crate) fn outcome(row: &OutcomeRow) -> LastOutcome {
    let code = u16::try_from(row.reply_code).ok().filter(|code| *code != 0);
    LastOutcome {
        host: row.host.clone(),
        status: EnhancedStatus::parse(&row.status).unwrap_or(EnhancedStatus::new(4, 0, 0)),
        reason: row.reason.clone(),
        reply: code.map(|code| RemoteReply {
            code,
            status: EnhancedStatus::parse(&row.reply_status),
            text: row.reply_text.clone(),
        }),
    }
}
