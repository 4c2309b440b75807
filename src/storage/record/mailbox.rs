//! Rows of mailboxes and of the change log.

use crate::codec::Record;

/// One mailbox with its counters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxRow {
    /// Its own name, the last level of its path.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The mailbox above; 0 at the top.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Its special use, numbered as `mailbox::role_number` says; 0: none.
    #[prost(uint32, tag = "3")]
    pub role: u32,
    #[prost(uint32, tag = "4")]
    pub uid_validity: u32,
    #[prost(uint32, tag = "5")]
    pub uid_next: u32,
    #[prost(uint64, tag = "6")]
    pub highest_modseq: u64,
    #[prost(uint32, tag = "7")]
    pub messages: u32,
    #[prost(uint32, tag = "8")]
    pub unseen: u32,
    #[prost(uint32, tag = "9")]
    pub deleted: u32,
    /// Octets of its messages.
    #[prost(uint64, tag = "10")]
    pub size: u64,
    #[prost(uint64, optional, tag = "11")]
    pub deleted_at: Option<u64>,
}

impl Record for MailboxRow {}

/// What one transaction changed in an account.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeRow {
    #[prost(uint64, tag = "1")]
    pub at: u64,
    #[prost(message, repeated, tag = "2")]
    pub mailboxes: Vec<MailboxChange>,
}

impl Record for ChangeRow {
    const MAY_SPLIT: bool = true;
}

/// What it changed in one mailbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxChange {
    #[prost(uint64, tag = "1")]
    pub mailbox: u64,
    #[prost(message, repeated, tag = "2")]
    pub added: Vec<UidRange>,
    #[prost(message, repeated, tag = "3")]
    pub flags: Vec<UidRange>,
    #[prost(message, repeated, tag = "4")]
    pub expunged: Vec<UidRange>,
    /// 0 none, 1 created, 2 renamed or subscribed, 3 deleted.
    #[prost(uint32, tag = "5")]
    pub itself: u32,
}

/// Uids from `first`, `count` of them.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct UidRange {
    #[prost(uint32, tag = "1")]
    pub first: u32,
    #[prost(uint32, tag = "2")]
    pub count: u32,
}
