//! What a message is called as it moves along the data path; each type holds just what is known then.
//!
//! `ReceivedMessage -> VettedMessage -> StoredMessage` on the way in;
//! `SubmittedMessage -> SignedMessage -> QueuedMessage -> DeliveryAttempt` on the way out. Bodies stay in the blob store:
//! a stage carries the blob's id and size.

use std::net::IpAddr;

use crate::address::{Address, Domain};
use crate::envelope::{Envelope, Recipient};
use crate::id::{AccountId, BlobId, EmailId, IngestId, MailboxId};
use crate::time::UnixMillis;
use crate::uid::{ModSeq, Uid, UidValidity};
use crate::verdict::Verdict;

/// Who handed us a message, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub client_ip: IpAddr,
    /// The argument of EHLO or HELO, as it was sent.
    pub hello: String,
    /// The `with` keyword of RFC 5321 §4.4 and RFC 3848: `ESMTPS`, `ESMTPSA`.
    pub protocol: &'static str,
    /// TLS version and suite, for the Received field.
    pub tls: Option<String>,
    /// The account that authenticated.
    pub account: Option<AccountId>,
}

/// A body in the blob store, staged but maybe not yet referenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRef {
    pub blob: BlobId,
    /// Octets of the body as received.
    pub size: u64,
}

/// End of data has been seen; nothing is decided.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    pub envelope: Envelope,
    pub origin: Origin,
    pub body: BodyRef,
    pub received_at: UnixMillis,
}

/// The filter has spoken.
#[derive(Debug, Clone)]
pub struct VettedMessage {
    pub received: ReceivedMessage,
    pub verdict: Verdict,
    /// Header fields to put above the body: Received, Authentication-Results, X-Spam-*; each ends with CRLF. Return-Path is
    /// added at final delivery (RFC 5321 §4.4).
    pub added_headers: Vec<u8>,
}

/// One account has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    pub account: AccountId,
    pub email: EmailId,
    pub mailbox: MailboxId,
    pub uid: Uid,
    pub uid_validity: UidValidity,
    pub modseq: ModSeq,
}

/// A message of one of our accounts for somewhere, checked and completed.
#[derive(Debug, Clone)]
pub struct SubmittedMessage {
    pub received: ReceivedMessage,
    pub sender: AccountId,
}

/// With its DKIM-Signature and trace fields.
#[derive(Debug, Clone)]
pub struct SignedMessage {
    pub submitted: SubmittedMessage,
    pub added_headers: Vec<u8>,
}

/// In the queue for one destination domain.
#[derive(Debug, Clone)]
pub struct QueuedMessage {
    pub id: IngestId,
    pub destination: Domain,
    pub recipients: Vec<Recipient>,
    pub attempt_count: u32,
    pub next_attempt_at: UnixMillis,
}

/// A try under way.
#[derive(Debug, Clone)]
pub struct DeliveryAttempt {
    pub queued: QueuedMessage,
    pub next_hop: NextHop,
}

/// Where routing sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// Ask DNS for the domain's MX records (RFC 5321 §5.1).
    Mx(Domain),
    /// A configured host, whatever DNS says.
    Smarthost { host: String, port: u16 },
}

/// An identity as an account may use it in MAIL and From.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub account: AccountId,
    pub address: Address,
}
