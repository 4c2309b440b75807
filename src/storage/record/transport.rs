//! Rows of mail under way: the spool and the queue.

use crate::codec::Record;

/// A message that was answered with 250 and is not yet with all its recipients.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpoolRow {
    #[prost(message, optional, tag = "1")]
    pub message: Option<TransitRow>,
    #[prost(message, repeated, tag = "2")]
    pub recipients: Vec<SpoolRecipientRow>,
    /// The filter wants it in Junk.
    #[prost(bool, tag = "3")]
    pub junk: bool,
    /// A report of ours: no filter, no quota.
    #[prost(bool, tag = "4")]
    pub report: bool,
}

impl Record for SpoolRow {
    const MAY_SPLIT: bool = true;
}

/// What spool and queue both know of a message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransitRow {
    /// Empty: the null reverse-path.
    #[prost(string, tag = "1")]
    pub reverse_path: String,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    #[prost(uint32, tag = "2")]
    pub body_type: u32,
    #[prost(bool, tag = "3")]
    pub smtputf8: bool,
    #[prost(string, optional, tag = "4")]
    pub envelope_id: Option<String>,
    /// 0 not said, 1 FULL, 2 HDRS.
    #[prost(uint32, tag = "5")]
    pub dsn_return: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub blob: Vec<u8>,
    #[prost(uint64, tag = "7")]
    pub body_size: u64,
    #[prost(bytes = "vec", tag = "8")]
    pub added_headers: Vec<u8>,
    #[prost(uint64, tag = "9")]
    pub received_at: u64,
    /// The account that submitted it.
    #[prost(uint64, optional, tag = "10")]
    pub account: Option<u64>,
    #[prost(string, tag = "11")]
    pub client_ip: String,
    #[prost(string, tag = "12")]
    pub hello: String,
    #[prost(string, tag = "13")]
    pub protocol: String,
}

/// One forward-path and what became of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpoolRecipientRow {
    #[prost(message, optional, tag = "1")]
    pub recipient: Option<RecipientRow>,
    #[prost(bool, tag = "2")]
    pub finished: bool,
}

/// One RCPT with its DSN parameters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RecipientRow {
    /// `Postmaster` without a domain stands for itself.
    #[prost(string, tag = "1")]
    pub path: String,
    /// 1 success, 2 failure, 4 delay.
    #[prost(uint32, tag = "2")]
    pub notify: u32,
    #[prost(string, optional, tag = "3")]
    pub original_type: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub original_address: Option<String>,
}

/// A message with recipients on other servers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueueMessageRow {
    #[prost(message, optional, tag = "1")]
    pub message: Option<TransitRow>,
    #[prost(uint64, tag = "2")]
    pub queued_at: u64,
    #[prost(uint64, tag = "3")]
    pub expires_at: u64,
    #[prost(message, repeated, tag = "4")]
    pub destinations: Vec<DestinationRow>,
}

impl Record for QueueMessageRow {
    const MAY_SPLIT: bool = true;
}

/// Where a message's work rows stand.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DestinationRow {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(uint64, tag = "2")]
    pub due: u64,
}

/// What is still to do for one message at one destination.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueueWorkRow {
    #[prost(string, tag = "1")]
    pub destination: String,
    #[prost(message, repeated, tag = "2")]
    pub recipients: Vec<RecipientRow>,
    #[prost(uint32, tag = "3")]
    pub attempt_count: u32,
    #[prost(uint64, optional, tag = "4")]
    pub last_attempt_at: Option<u64>,
    #[prost(message, optional, tag = "5")]
    pub last_outcome: Option<OutcomeRow>,
    /// The sender heard of the delay.
    #[prost(bool, tag = "6")]
    pub delay_reported: bool,
}

impl Record for QueueWorkRow {
    const MAY_SPLIT: bool = true;
}

/// Why the last attempt failed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutcomeRow {
    #[prost(string, optional, tag = "1")]
    pub host: Option<String>,
    #[prost(string, tag = "2")]
    pub status: String,
    #[prost(string, tag = "3")]
    pub reason: String,
    /// 0: no reply was heard.
    #[prost(uint32, tag = "4")]
    pub reply_code: u32,
    #[prost(string, tag = "5")]
    pub reply_status: String,
    #[prost(string, tag = "6")]
    pub reply_text: String,
}
