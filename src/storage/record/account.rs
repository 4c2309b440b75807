//! Rows of accounts and domains.

use crate::codec::Record;

/// One account: who it is, and every counter that a delivery moves, so that a delivery reads and writes one row of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AccountRow {
    /// The primary address as it was given.
    #[prost(string, tag = "1")]
    pub address: String,
    #[prost(uint64, tag = "2")]
    pub domain: u64,
    #[prost(uint64, tag = "3")]
    pub created_at: u64,
    #[prost(bool, tag = "4")]
    pub disabled: bool,
    #[prost(bool, tag = "5")]
    pub admin: bool,
    /// Octets allowed; 0 is no limit.
    #[prost(uint64, tag = "6")]
    pub quota_max: u64,
    /// Octets of all emails.
    #[prost(uint64, tag = "7")]
    pub quota_used: u64,
    /// Emails.
    #[prost(uint64, tag = "8")]
    pub email_count: u64,
    /// The last change's number.
    #[prost(uint64, tag = "9")]
    pub modseq: u64,
    /// Changes up to this one may be gone from the change log.
    #[prost(uint64, tag = "10")]
    pub change_floor: u64,
    #[prost(uint64, tag = "11")]
    pub next_mailbox: u64,
    #[prost(uint64, tag = "12")]
    pub next_email: u64,
    #[prost(uint64, tag = "13")]
    pub next_thread: u64,
    /// The UidValidity given last.
    #[prost(uint32, tag = "14")]
    pub uid_validity: u32,
    #[prost(uint32, tag = "15")]
    pub mailbox_count: u32,
    /// Which mailbox has which special use, so that a delivery needs no search.
    #[prost(message, repeated, tag = "16")]
    pub roles: Vec<RoleMailbox>,
    /// Set when the account was deleted; its rows wait for the sweep.
    #[prost(uint64, optional, tag = "17")]
    pub deleted_at: Option<u64>,
    /// A large COPY under way, whose rows nobody sees yet.
    #[prost(message, optional, tag = "18")]
    pub pending_copy: Option<PendingCopy>,
    /// Deleted mailboxes whose messages wait for the sweep.
    #[prost(uint64, repeated, tag = "19")]
    pub sweeping: Vec<u64>,
    /// Subscriptions: rows that no other row repeats are counted, so that a lost one is seen.
    #[prost(uint32, tag = "20")]
    pub subscription_count: u32,
    /// Proofs of requests.
    #[prost(uint64, tag = "21")]
    pub done_count: u64,
    /// A lock row is there, perhaps an expired one.
    #[prost(bool, tag = "22")]
    pub locked: bool,
    /// Raised when a backup takes the account back in time: a state that a client remembers is its ModSeq in a generation.
    #[prost(uint64, tag = "23")]
    pub generation: u64,
}

impl Record for AccountRow {}

/// A mailbox and its special use, numbered as `mailbox::role_number` says.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RoleMailbox {
    #[prost(uint32, tag = "1")]
    pub role: u32,
    #[prost(uint64, tag = "2")]
    pub mailbox: u64,
}

/// Rows of a COPY that lie beyond UidNext until its last transaction moves that.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PendingCopy {
    /// The request, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub target: u64,
    /// Messages written so far; the next has UidNext plus this.
    #[prost(uint32, tag = "3")]
    pub done: u32,
    /// Octets written so far.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    #[prost(uint32, tag = "5")]
    pub unseen: u32,
    #[prost(uint32, tag = "6")]
    pub deleted: u32,
    /// The ModSeq that all of them bear.
    #[prost(uint64, tag = "7")]
    pub modseq: u64,
}

/// How an account proves who it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialRow {
    /// PHC string of argon2id; empty: no password opens the account.
    #[prost(string, tag = "1")]
    pub password_hash: String,
    #[prost(uint64, tag = "2")]
    pub changed_at: u64,
}

impl Record for CredentialRow {}

/// The POP3 maildrop lock (RFC 1939 §4).
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockRow {
    /// The session that holds it.
    #[prost(bytes = "vec", tag = "1")]
    pub holder: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub expires_at: u64,
}

impl Record for LockRow {}

/// One local domain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DomainRow {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub created_at: u64,
    /// Takes what no address row takes; empty: none.
    #[prost(string, tag = "3")]
    pub catch_all: String,
    #[prost(uint64, optional, tag = "4")]
    pub deleted_at: Option<u64>,
    /// Selectors of its signing keys: each has a row.
    #[prost(string, repeated, tag = "5")]
    pub selectors: Vec<String>,
    /// Addresses of accounts and aliases.
    #[prost(uint64, tag = "6")]
    pub address_count: u64,
}

impl Record for DomainRow {}

/// One signing key (RFC 6376 §3.6).
#[derive(Clone, PartialEq, prost::Message)]
pub struct DkimKeyRow {
    #[prost(string, tag = "1")]
    pub selector: String,
    /// 1 RSA, 2 Ed25519.
    #[prost(uint32, tag = "2")]
    pub algorithm: u32,
    /// PKCS #8 DER.
    #[prost(bytes = "vec", tag = "3")]
    pub private_key: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub created_at: u64,
}

impl Record for DkimKeyRow {}

/// What an address stands for: an account, or the targets of an alias.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddressRow {
    /// As it was given, before folding.
    #[prost(string, tag = "1")]
    pub address: String,
    #[prost(uint64, optional, tag = "2")]
    pub account: Option<u64>,
    #[prost(string, repeated, tag = "3")]
    pub targets: Vec<String>,
}

impl Record for AddressRow {
    const MAY_SPLIT: bool = true;
}

/// A domain's id under its name.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct IdRow {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

impl Record for IdRow {}
