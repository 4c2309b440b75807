//! What stands in a backup besides bodies: prost messages, so that fields can be added while old points stay readable.
//!
//! Rows of the store stand in them as they are there; what the store derives (references, threads' rows, counters) does not.

use crate::record::{
    AccountRow, CredentialRow, DkimKeyRow, DomainRow, EmailRow, MailboxRow, MembershipRow, QueueMessageRow,
    QueueWorkRow, SpoolRow, UidRange,
};

/// The layout that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// What a target is: the one object that is not sealed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TargetRow {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// Random; what names and checksums depend on where there is no key.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Absent: not encrypted.
    #[prost(message, optional, tag = "3")]
    pub key: Option<KeyRow>,
}

/// The target's key, encrypted under what argon2id makes of a passphrase.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyRow {
    #[prost(bytes = "vec", tag = "1")]
    pub salt: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub memory_kib: u32,
    #[prost(uint32, tag = "3")]
    pub passes: u32,
    #[prost(uint32, tag = "4")]
    pub lanes: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub wrapped: Vec<u8>,
}

/// Who works on a target.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LockObject {
    #[prost(string, tag = "1")]
    pub holder: String,
    /// By the holder's clock: for whoever looks at it, no proof of anything.
    #[prost(uint64, tag = "2")]
    pub renewed_at: u64,
    /// Milliseconds of silence after which the holder gives it up; 0: it does not say.
    #[prost(uint64, tag = "3")]
    pub ttl: u64,
}

/// One point. The lists are bundles, named by their contents.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PointRow {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    #[prost(uint64, tag = "2")]
    pub started_at: u64,
    #[prost(uint64, tag = "3")]
    pub finished_at: u64,
    /// Of the program that took it.
    #[prost(string, tag = "4")]
    pub version: String,
    #[prost(string, tag = "5")]
    pub hostname: String,
    /// Of `SiteEntry`.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub site: Vec<Vec<u8>>,
    /// Of `TransitEntry`.
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub transit: Vec<Vec<u8>>,
    /// Of `AccountEntry`, in the order of shard and id.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub accounts: Vec<Vec<u8>>,
    /// Of `PackRow`.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub packs: Vec<Vec<u8>>,
    #[prost(uint64, tag = "10")]
    pub account_count: u64,
    #[prost(uint64, tag = "11")]
    pub messages: u64,
    /// Octets that the run wrote.
    #[prost(uint64, tag = "12")]
    pub written: u64,
    /// The id of an empty body: stores that name bodies alike have the same.
    #[prost(bytes = "vec", tag = "13")]
    pub naming: Vec<u8>,
}

/// One fact of the site.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SiteEntry {
    #[prost(oneof = "SiteFact", tags = "1, 2, 3, 4")]
    pub fact: Option<SiteFact>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum SiteFact {
    #[prost(message, tag = "1")]
    Domain(DomainEntry),
    #[prost(message, tag = "2")]
    DkimKey(DkimEntry),
    /// An alias; addresses of accounts stand in their own rows.
    #[prost(message, tag = "3")]
    Alias(AliasEntry),
    #[prost(message, tag = "4")]
    Secret(SecretEntry),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DomainEntry {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<DomainRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DkimEntry {
    #[prost(uint64, tag = "1")]
    pub domain: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<DkimKeyRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AliasEntry {
    #[prost(uint64, tag = "1")]
    pub domain: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<crate::record::AddressRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SecretEntry {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub octets: Vec<u8>,
}

/// A message under way: all rows of its id, from one snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TransitEntry {
    /// Big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub spool: Option<SpoolRow>,
    #[prost(message, optional, tag = "3")]
    pub queue: Option<QueueMessageRow>,
    #[prost(message, repeated, tag = "4")]
    pub works: Vec<WorkEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WorkEntry {
    #[prost(string, tag = "1")]
    pub destination: String,
    #[prost(uint64, tag = "2")]
    pub due: u64,
    #[prost(message, optional, tag = "3")]
    pub row: Option<QueueWorkRow>,
}

/// An account in a point's list.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AccountEntry {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub address: String,
    /// The closing ModSeq.
    #[prost(uint64, tag = "3")]
    pub modseq: u64,
    /// Its `AccountHead`.
    #[prost(bytes = "vec", tag = "4")]
    pub head: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub messages: u64,
}

/// An account as it was at its closing ModSeq.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AccountHead {
    #[prost(message, optional, tag = "1")]
    pub account: Option<AccountRow>,
    #[prost(message, optional, tag = "2")]
    pub credential: Option<CredentialRow>,
    #[prost(message, repeated, tag = "3")]
    pub mailboxes: Vec<MailboxEntry>,
    #[prost(string, repeated, tag = "4")]
    pub subscriptions: Vec<String>,
    /// Messages: what a later run says of one holds.
    #[prost(message, repeated, tag = "5")]
    pub runs: Vec<RunRow>,
    /// Uids that left since they were read: bundles of `GoneEntry`.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub gone: Vec<Vec<u8>>,
    /// Proofs of deliveries that the spool might repeat.
    #[prost(message, repeated, tag = "7")]
    pub dones: Vec<DoneEntry>,
    /// The store could not read all of it: the next run begins anew.
    #[prost(bool, tag = "8")]
    pub incomplete: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MailboxEntry {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<MailboxRow>,
}

/// Messages in the order of their email ids.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunRow {
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<PartRow>,
}

/// A bundle of `MessageEntry`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PartRow {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// The first email in it.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint32, tag = "3")]
    pub messages: u32,
}

/// One email with the places where it stood.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MessageEntry {
    #[prost(uint64, tag = "1")]
    pub email: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<EmailRow>,
    #[prost(message, repeated, tag = "3")]
    pub places: Vec<PlaceEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PlaceEntry {
    #[prost(uint64, tag = "1")]
    pub mailbox: u64,
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    #[prost(message, optional, tag = "3")]
    pub row: Option<MembershipRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GoneEntry {
    #[prost(uint64, tag = "1")]
    pub mailbox: u64,
    #[prost(message, repeated, tag = "2")]
    pub uids: Vec<UidRange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DoneEntry {
    /// The request, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub item: u32,
    #[prost(message, optional, tag = "3")]
    pub row: Option<crate::record::DoneRow>,
}

/// One pack in a point's list.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PackRow {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The least and the greatest body in it.
    #[prost(bytes = "vec", tag = "2")]
    pub first: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub last: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub bodies: u64,
    /// Of the whole object.
    #[prost(uint64, tag = "5")]
    pub octets: u64,
    /// Bodies that the store still had when the point was taken.
    #[prost(uint64, tag = "6")]
    pub live: u64,
}

/// What stands at the end of a pack.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PackIndexRow {
    #[prost(message, repeated, tag = "1")]
    pub bodies: Vec<PackedRow>,
}

/// One body in a pack.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PackedRow {
    #[prost(bytes = "vec", tag = "1")]
    pub blob: Vec<u8>,
    /// Octets of the content.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Octets of each of its frames, which follow each other.
    #[prost(uint32, repeated, tag = "3")]
    pub frames: Vec<u32>,
    /// Where the first one lies, and its number in the pack.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(uint32, tag = "5")]
    pub first_frame: u32,
}
