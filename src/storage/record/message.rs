//! Rows of messages: the email, where it stands, and the proof that a request was done.

use posthouse_mail::structure::MessageStructure;

use crate::codec::Record;

/// One email of an account.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EmailRow {
    /// Header fields that we put above the body.
    #[prost(bytes = "bytes", tag = "1")]
    pub prefix: bytes::Bytes,
    #[prost(bytes = "vec", tag = "2")]
    pub blob: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub body_size: u64,
    #[prost(uint64, tag = "4")]
    pub received_at: u64,
    #[prost(uint64, tag = "5")]
    pub thread: u64,
    /// System flags but `\Deleted`, as bits; keywords beside them.
    #[prost(uint32, tag = "6")]
    pub flags: u32,
    #[prost(string, repeated, tag = "7")]
    pub keywords: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub mailboxes: Vec<EmailMailbox>,
    #[prost(message, optional, tag = "9")]
    pub structure: Option<MessageStructure>,
}

impl Record for EmailRow {
    const MAY_SPLIT: bool = true;
}

/// Where an email stands.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct EmailMailbox {
    #[prost(uint64, tag = "1")]
    pub mailbox: u64,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
}

/// One message of a mailbox. Size and time are repeated here so that lists need no email row.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MembershipRow {
    #[prost(uint64, tag = "1")]
    pub email: u64,
    #[prost(uint64, tag = "2")]
    pub modseq: u64,
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    #[prost(string, repeated, tag = "4")]
    pub keywords: Vec<String>,
    #[prost(uint64, tag = "5")]
    pub size: u64,
    #[prost(uint64, tag = "6")]
    pub received_at: u64,
}

impl Record for MembershipRow {}

/// Proof that a request was done, and what came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DoneRow {
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
    #[prost(uint64, tag = "2")]
    pub mailbox: u64,
    #[prost(uint64, tag = "3")]
    pub email: u64,
    /// What became of each: source Uids, then target Uids where there is a target, in the same order.
    #[prost(uint32, repeated, tag = "4")]
    pub uids: Vec<u32>,
    #[prost(uint32, repeated, tag = "5")]
    pub target_uids: Vec<u32>,
    #[prost(uint32, tag = "6")]
    pub uid_validity: u32,
    /// Uids that a condition kept from being changed.
    #[prost(uint32, repeated, tag = "7")]
    pub refused: Vec<u32>,
}

impl Record for DoneRow {
    const MAY_SPLIT: bool = true;
}
