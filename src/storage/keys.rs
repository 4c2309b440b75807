//! The whole key space on one page: every row's key is built here and nowhere else.
//!
//! Three classes of rows (`Class`): *owned* rows begin with their shard, whose fence row is the first key of that range,
//! and are written only under that fence; rows *inserted by anyone* have a unique key and are changed only by their
//! owner; *commutative* rows are moved by atomic operations. A key sorts as the tuple of its parts does (`keys/part.rs`).

mod describe;
mod part;

use posthouse_mail::{
    AccountId, BlobId, Domain, DomainId, EmailId, IngestId, MailboxId, ModSeq, ThreadId, Uid, UnixMillis,
};

use crate::blob::frame::StageId;
use crate::blob::object::ObjectId;
use crate::blob::segment::SegmentNumber;
use crate::shard::ShardId;

pub use describe::{Place, describe, is_sealed, place};
pub use part::{KeyParts, after};

/// Who may write a row, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Written only under the `Fence` of the shard that the key begins with.
    Owned,
    /// Inserted by anyone under a unique key, changed only by the owner.
    Inserted,
    /// Moved by atomic operations, swept by time.
    Commutative,
}

macro_rules! subspaces {
    ($($name:ident = $byte:literal, $class:ident;)*) => {
        /// A family of rows. Its byte never changes once a release has written it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Subspace { $($name,)* }

        impl Subspace {
            pub const ALL: &[Subspace] = &[$(Self::$name,)*];

            const fn byte(self) -> u8 {
                match self { $(Self::$name => $byte,)* }
            }

            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }
        }
    };
}

subspaces! {
    Fence = 0x00, Owned;          // shard -> epoch
    Account = 0x01, Owned;        // account -> profile, ModSeq, counters, next ids, quota
    Credential = 0x02, Owned;     // account -> password hash
    Mailbox = 0x03, Owned;        // account, mailbox -> name, role, UidValidity, UidNext, HighestModSeq, counters
    MailboxName = 0x04, Owned;    // account, parent, name -> mailbox
    Subscription = 0x05, Owned;   // account, path -> nothing
    Email = 0x06, Owned;          // account, email -> prefix, body, structure, thread, keywords, memberships
    Membership = 0x07, Owned;     // account, mailbox, uid -> email, modseq, flags
    Thread = 0x08, Owned;         // account, thread, email -> nothing
    ThreadIndex = 0x09, Owned;    // account, hash of subject and Message-ID, email -> thread
    Change = 0x0a, Owned;         // account, modseq -> what changed
    Done = 0x0b, Owned;           // account, request, item -> result
    Lock = 0x0c, Owned;           // account -> holder, expiry
    Domain = 0x0d, Owned;         // domain -> settings
    DkimKey = 0x0e, Owned;        // domain, selector -> private key
    Address = 0x0f, Owned;        // domain, local part -> account or alias targets
    QueueWork = 0x10, Owned;      // destination, due, message -> open recipients, attempts
    OwnedChunk = 0x1f, Owned;     // rest of an owned key, number -> octets of a split value

    DomainName = 0x40, Inserted;  // name -> domain
    Admin = 0x41, Inserted;       // account -> nothing
    Spool = 0x42, Inserted;       // message -> envelope, body, outcome per forward-path
    QueueMessage = 0x43, Inserted; // message -> envelope, body, destinations with open recipients
    BlobState = 0x44, Inserted;   // blob -> size, content or where it lies
    BlobChunk = 0x45, Inserted;   // stage, number -> one frame, on engines without segments
    BlobStage = 0x46, Inserted;   // time, stage -> nothing: chunks that no blob has yet
    BlobRef = 0x47, Inserted;     // blob, owner -> nothing, or when it was released
    BlobTombstone = 0x48, Inserted; // time, blob, owner -> nothing
    BlobStaged = 0x49, Inserted;  // time, blob -> nothing: what the orphan sweep looks at
    Secret = 0x4a, Inserted;      // name -> octets
    Meta = 0x4b, Inserted;        // name -> facts of the store itself
    Node = 0x4c, Inserted;        // incarnation -> name, formats that it reads, heartbeat
    Gate = 0x4d, Inserted;        // -> level: the format that every node reads
    Lost = 0x4e, Inserted;        // a whole key -> its row as it was, which a repair could not read
    InsertedChunk = 0x4f, Inserted; // a whole key, number -> octets of a split value
    BlobLarge = 0x50, Inserted;   // blob -> nothing: bodies that wait to go to the object store
    BlobObject = 0x51, Inserted;  // time, object -> nothing, or that it is to go: objects that no blob has

    Counter = 0x60, Commutative;  // name -> count
    QueueCount = 0x61, Commutative; // destination -> number of work rows
    Segment = 0x62, Commutative;  // segment file -> octets of live frames
}

/// First octet of every owned key; the shard follows.
const OWNED: u8 = 0x10;

/// Whether a key lies in the range of a shard.
pub(crate) fn is_owned(key: &[u8]) -> bool {
    key.first() == Some(&OWNED)
}

/// The shard of an owned key.
pub(crate) fn shard_of(key: &[u8]) -> Option<ShardId> {
    match key {
        [OWNED, high, low, ..] => ShardId::new(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// One row's key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// Every key from `begin` up to but without `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub begin: Vec<u8>,
    pub end: Vec<u8>,
}

/// Who holds a body: the reference row is proof that it must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobOwner {
    Email { account: AccountId, email: EmailId },
    Spool(IngestId),
    Queue(IngestId),
}

/// The kinds of entities under which shards are found; fixed for ever, as they decide where rows lie.
pub const ACCOUNT_KIND: &str = "mailbox";
pub const DOMAIN_KIND: &str = "domain";
pub const QUEUE_KIND: &str = "queue";

/// The shard of an account: all its rows and its mailbox actor live there.
pub fn account_shard(account: AccountId) -> ShardId {
    ShardId::of(ACCOUNT_KIND, &account.get().to_be_bytes())
}

/// The shard of a local domain: its settings, keys and addresses.
pub fn domain_shard(domain: DomainId) -> ShardId {
    ShardId::of(DOMAIN_KIND, &domain.get().to_be_bytes())
}

/// The shard of a destination's queue.
pub fn queue_shard(destination: &Domain) -> ShardId {
    ShardId::of(QUEUE_KIND, destination.as_str().as_bytes())
}

/// The shard whose owner finishes a spooled message.
pub fn spool_shard(message: IngestId) -> ShardId {
    ShardId::of("spool", &message.get().to_be_bytes())
}

// Rows of a shard.
pub fn fence(shard: ShardId) -> Key {
    Key::owned(shard, Subspace::Fence)
}
pub fn shard_rows(shard: ShardId) -> KeyRange {
    Key(vec![OWNED]).number(&shard.get().to_be_bytes()).children()
}

// Rows of an account.
pub fn account(account: AccountId) -> Key {
    of_account(account, Subspace::Account)
}
/// The accounts of a shard.
pub fn accounts_in(shard: ShardId) -> KeyRange {
    Key::owned(shard, Subspace::Account).children()
}
pub fn credential(account: AccountId) -> Key {
    of_account(account, Subspace::Credential)
}
pub fn mailbox(account: AccountId, mailbox: MailboxId) -> Key {
    of_account(account, Subspace::Mailbox).u64(mailbox.get())
}
pub fn mailboxes(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Mailbox).children()
}
/// `parent` is `None` at the top.
pub fn mailbox_name(account: AccountId, parent: Option<MailboxId>, name: &str) -> Key {
    of_account(account, Subspace::MailboxName).u64(parent.map_or(0, MailboxId::get)).text(name.as_bytes())
}
pub fn mailbox_names(account: AccountId, parent: Option<MailboxId>) -> KeyRange {
    of_account(account, Subspace::MailboxName).u64(parent.map_or(0, MailboxId::get)).children()
}
pub fn all_mailbox_names(account: AccountId) -> KeyRange {
    of_account(account, Subspace::MailboxName).children()
}
pub fn subscription(account: AccountId, path: &str) -> Key {
    of_account(account, Subspace::Subscription).text(path.as_bytes())
}
pub fn subscriptions(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Subscription).children()
}
pub fn email(account: AccountId, email: EmailId) -> Key {
    of_account(account, Subspace::Email).u64(email.get())
}
pub fn emails(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Email).children()
}
pub fn membership(account: AccountId, mailbox: MailboxId, uid: Uid) -> Key {
    of_account(account, Subspace::Membership).u64(mailbox.get()).u32(uid.get())
}
pub fn memberships(account: AccountId, mailbox: MailboxId) -> KeyRange {
    of_account(account, Subspace::Membership).u64(mailbox.get()).children()
}
pub fn all_memberships(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Membership).children()
}
/// Memberships from a Uid up to but without another.
pub fn memberships_between(account: AccountId, mailbox: MailboxId, from: Uid, end: Uid) -> KeyRange {
    KeyRange { begin: membership(account, mailbox, from).0, end: membership(account, mailbox, end).0 }
}
pub fn thread_email(account: AccountId, thread: ThreadId, email: EmailId) -> Key {
    of_account(account, Subspace::Thread).u64(thread.get()).u64(email.get())
}
pub fn threads(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Thread).children()
}
pub fn thread_index(account: AccountId, hash: u64, email: EmailId) -> Key {
    of_account(account, Subspace::ThreadIndex).u64(hash).u64(email.get())
}
pub fn thread_index_of(account: AccountId, hash: u64) -> KeyRange {
    of_account(account, Subspace::ThreadIndex).u64(hash).children()
}
pub fn thread_indexes(account: AccountId) -> KeyRange {
    of_account(account, Subspace::ThreadIndex).children()
}
pub fn change(account: AccountId, modseq: ModSeq) -> Key {
    of_account(account, Subspace::Change).u64(modseq.get())
}
pub fn changes(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Change).children()
}
/// Ids begin with their time, so that done rows of one account lie in time order and are swept as a range.
pub fn done(account: AccountId, request: IngestId, item: u32) -> Key {
    of_account(account, Subspace::Done).u128(request.get()).u32(item)
}
pub fn dones(account: AccountId) -> KeyRange {
    of_account(account, Subspace::Done).children()
}
/// Every done row whose request id is this one or a later one.
pub fn dones_from(account: AccountId, request: IngestId) -> KeyRange {
    KeyRange { begin: of_account(account, Subspace::Done).u128(request.get()).0, ..dones(account) }
}
/// Every done row whose request id was made before a time.
pub fn dones_before(account: AccountId, time: UnixMillis) -> KeyRange {
    let all = of_account(account, Subspace::Done);
    let end = all.clone().u128(IngestId::from_parts(time.0, 0).get());
    KeyRange { begin: all.0, end: end.0 }
}
pub fn lock(account: AccountId) -> Key {
    of_account(account, Subspace::Lock)
}
/// Every row of an account, by subspace; for the sweep of a deleted one.
pub fn account_rows(account: AccountId) -> Vec<KeyRange> {
    use Subspace as S;
    let all = [
        S::Account,
        S::Credential,
        S::Mailbox,
        S::MailboxName,
        S::Subscription,
        S::Email,
        S::Membership,
        S::Thread,
        S::ThreadIndex,
        S::Change,
        S::Done,
        S::Lock,
    ];
    all.into_iter().map(|subspace| of_account(account, subspace).children()).collect()
}

// Rows of a local domain.
pub fn domain(domain: DomainId) -> Key {
    of_domain(domain, Subspace::Domain)
}
/// The domains of a shard.
pub fn domains_in(shard: ShardId) -> KeyRange {
    Key::owned(shard, Subspace::Domain).children()
}
pub fn dkim_key(domain: DomainId, selector: &str) -> Key {
    of_domain(domain, Subspace::DkimKey).text(selector.as_bytes())
}
pub fn dkim_keys(domain: DomainId) -> KeyRange {
    of_domain(domain, Subspace::DkimKey).children()
}
/// `local` is folded to lower case by the caller (`Address::key`).
pub fn address(domain: DomainId, local: &str) -> Key {
    of_domain(domain, Subspace::Address).text(local.as_bytes())
}
pub fn addresses(domain: DomainId) -> KeyRange {
    of_domain(domain, Subspace::Address).children()
}
pub fn domain_name(name: &Domain) -> Key {
    Key::open(Subspace::DomainName).text(name.as_str().as_bytes())
}
pub fn domain_names() -> KeyRange {
    Key::open(Subspace::DomainName).children()
}
pub fn admin(account: AccountId) -> Key {
    Key::open(Subspace::Admin).u64(account.get())
}
pub fn admins() -> KeyRange {
    Key::open(Subspace::Admin).children()
}

// Mail under way.
pub fn spool(message: IngestId) -> Key {
    Key::open(Subspace::Spool).u128(message.get())
}
pub fn spools() -> KeyRange {
    Key::open(Subspace::Spool).children()
}
pub fn queue_message(message: IngestId) -> Key {
    Key::open(Subspace::QueueMessage).u128(message.get())
}
pub fn queue_messages() -> KeyRange {
    Key::open(Subspace::QueueMessage).children()
}
pub fn queue_work(destination: &Domain, due: UnixMillis, message: IngestId) -> Key {
    of_queue(destination).u64(due.0).u128(message.get())
}
/// The work of every destination of a shard.
pub(crate) fn queue_works_in(shard: ShardId) -> KeyRange {
    Key::owned(shard, Subspace::QueueWork).children()
}
pub fn queue_works(destination: &Domain) -> KeyRange {
    of_queue(destination).children()
}

// Bodies.
pub fn blob_state(blob: &BlobId) -> Key {
    Key::open(Subspace::BlobState).number(blob.as_bytes())
}
pub fn blob_states() -> KeyRange {
    Key::open(Subspace::BlobState).children()
}
pub fn blob_ref(blob: &BlobId, owner: BlobOwner) -> Key {
    Key::open(Subspace::BlobRef).number(blob.as_bytes()).owner(owner)
}
pub fn blob_refs(blob: &BlobId) -> KeyRange {
    Key::open(Subspace::BlobRef).number(blob.as_bytes()).children()
}
pub fn all_blob_refs() -> KeyRange {
    Key::open(Subspace::BlobRef).children()
}
pub fn blob_tombstone(at: UnixMillis, blob: &BlobId, owner: BlobOwner) -> Key {
    Key::open(Subspace::BlobTombstone).u64(at.0).number(blob.as_bytes()).owner(owner)
}
pub fn blob_tombstones() -> KeyRange {
    Key::open(Subspace::BlobTombstone).children()
}
/// Tombstones set before a time.
pub fn blob_tombstones_before(time: UnixMillis) -> KeyRange {
    KeyRange { end: Key::open(Subspace::BlobTombstone).u64(time.0).0, ..blob_tombstones() }
}
pub fn blob_staged(at: UnixMillis, blob: &BlobId) -> Key {
    Key::open(Subspace::BlobStaged).u64(at.0).number(blob.as_bytes())
}
pub fn blob_stageds() -> KeyRange {
    Key::open(Subspace::BlobStaged).children()
}
/// Bodies staged before a time.
pub fn blob_stageds_before(time: UnixMillis) -> KeyRange {
    KeyRange { end: Key::open(Subspace::BlobStaged).u64(time.0).0, ..blob_stageds() }
}
/// One frame of a body, by the stage that wrote it.
pub(crate) fn blob_chunk(stage: &StageId, number: u32) -> Key {
    Key::open(Subspace::BlobChunk).number(stage.as_bytes()).u32(number)
}
pub(crate) fn blob_chunks(stage: &StageId) -> KeyRange {
    Key::open(Subspace::BlobChunk).number(stage.as_bytes()).children()
}
pub(crate) fn all_blob_chunks() -> KeyRange {
    Key::open(Subspace::BlobChunk).children()
}
/// Frames from a number up to but without another.
pub(crate) fn blob_chunks_between(stage: &StageId, from: u32, end: u32) -> KeyRange {
    KeyRange { begin: blob_chunk(stage, from).0, end: blob_chunk(stage, end).0 }
}
pub(crate) fn blob_stage(at: UnixMillis, stage: &StageId) -> Key {
    Key::open(Subspace::BlobStage).u64(at.0).number(stage.as_bytes())
}
/// Stages begun before a time.
pub(crate) fn blob_stages_before(time: UnixMillis) -> KeyRange {
    KeyRange { begin: Key::open(Subspace::BlobStage).0, end: Key::open(Subspace::BlobStage).u64(time.0).0 }
}
pub(crate) fn large_blob(blob: &BlobId) -> Key {
    Key::open(Subspace::BlobLarge).number(blob.as_bytes())
}
pub(crate) fn large_blobs() -> KeyRange {
    Key::open(Subspace::BlobLarge).children()
}
pub(crate) fn blob_object(at: UnixMillis, object: &ObjectId) -> Key {
    Key::open(Subspace::BlobObject).u64(at.0).number(object.as_bytes())
}
/// Objects begun before a time.
pub(crate) fn blob_objects_before(time: UnixMillis) -> KeyRange {
    KeyRange { begin: Key::open(Subspace::BlobObject).0, end: Key::open(Subspace::BlobObject).u64(time.0).0 }
}
/// Octets of live frames in a segment file.
pub(crate) fn segment(number: SegmentNumber) -> Key {
    Key::open(Subspace::Segment).u32(number.get())
}
pub fn segments() -> KeyRange {
    Key::open(Subspace::Segment).children()
}

// Facts of the server and the store.
pub fn secret(name: &str) -> Key {
    Key::open(Subspace::Secret).text(name.as_bytes())
}
pub fn secrets() -> KeyRange {
    Key::open(Subspace::Secret).children()
}
pub fn meta(name: &str) -> Key {
    Key::open(Subspace::Meta).text(name.as_bytes())
}
/// Where a repair lays a row aside.
pub fn lost(key: &[u8]) -> Key {
    Key::open(Subspace::Lost).number(key)
}
pub fn node(incarnation: u64) -> Key {
    Key::open(Subspace::Node).u64(incarnation)
}
pub fn nodes() -> KeyRange {
    Key::open(Subspace::Node).children()
}
pub fn gate() -> Key {
    Key::open(Subspace::Gate)
}
pub fn counter(name: &str) -> Key {
    Key::open(Subspace::Counter).text(name.as_bytes())
}
pub fn counters() -> KeyRange {
    Key::open(Subspace::Counter).children()
}

pub fn queue_count(destination: &Domain) -> Key {
    Key::open(Subspace::QueueCount).text(destination.as_str().as_bytes())
}
pub fn queue_counts() -> KeyRange {
    Key::open(Subspace::QueueCount).children()
}

/// Where the pieces of a split value lie: in the same shard as its row, if that is owned.
pub fn chunks(key: &[u8]) -> KeyRange {
    chunk_prefix(key).children()
}
pub fn chunk(key: &[u8], number: u32) -> Key {
    chunk_prefix(key).u32(number)
}

/// Where the pieces of all values of a range lie. A piece's key has its row's key with zeros escaped, which keeps order.
pub fn chunks_within(range: &KeyRange) -> KeyRange {
    let open = |bound: &[u8]| {
        let Key(mut bytes) = chunk_prefix(bound);
        bytes.truncate(bytes.len() - 2);
        bytes
    };
    KeyRange { begin: open(&range.begin), end: open(&range.end) }
}

fn chunk_prefix(key: &[u8]) -> Key {
    match key {
        [OWNED, high, low, rest @ ..] => Key(vec![OWNED, *high, *low, Subspace::OwnedChunk.byte()]).text(rest),
        _ => Key::open(Subspace::InsertedChunk).text(key),
    }
}

fn of_account(account: AccountId, subspace: Subspace) -> Key {
    Key::owned(account_shard(account), subspace).u64(account.get())
}

fn of_domain(domain: DomainId, subspace: Subspace) -> Key {
    Key::owned(domain_shard(domain), subspace).u64(domain.get())
}

fn of_queue(destination: &Domain) -> Key {
    Key::owned(queue_shard(destination), Subspace::QueueWork).text(destination.as_str().as_bytes())
}

/// Octets before the text in a key of an owned subspace whose first part is an account or domain id.
pub const OWNED_ID_WIDTH: usize = 1 + 2 + 1 + 8;
/// Octets before the text in a `MailboxName` key.
pub const MAILBOX_NAME_WIDTH: usize = OWNED_ID_WIDTH + 8;
/// Octets before the text in a key that is not owned.
pub const OPEN_WIDTH: usize = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(subspace: Subspace, shard: ShardId) -> KeyRange {
        match subspace.class() {
            Class::Owned => Key::owned(shard, subspace).children(),
            Class::Inserted | Class::Commutative => Key::open(subspace).children(),
        }
    }

    #[test]
    fn no_two_subspaces_overlap() {
        let [shard, next] = [ShardId::of("account", b"1"), ShardId::of("account", b"2")];
        assert_ne!(shard, next);
        let mut ranges: Vec<_> = Subspace::ALL
            .iter()
            .flat_map(|subspace| match subspace.class() {
                Class::Owned => vec![whole(*subspace, shard), whole(*subspace, next)],
                Class::Inserted | Class::Commutative => vec![whole(*subspace, shard)],
            })
            .collect();
        ranges.sort_by(|a, b| a.begin.cmp(&b.begin));
        for pair in ranges.windows(2) {
            assert!(pair[0].end <= pair[1].begin, "{pair:?}");
        }
    }

    #[test]
    fn all_but_commutative_rows_are_sealed() {
        for subspace in Subspace::ALL {
            let key = whole(*subspace, ShardId::of("account", b"1")).begin;
            assert_eq!(is_sealed(&key), subspace.class() != Class::Commutative, "{subspace:?}");
        }
    }

    #[test]
    fn the_fence_is_the_first_key_of_its_shard() {
        let shard = domain_shard(DomainId::new(7));
        assert_eq!(fence(shard).as_slice()[..3], shard_rows(shard).begin[..]);
        for subspace in Subspace::ALL.iter().filter(|s| s.class() == Class::Owned && **s != Subspace::Fence) {
            assert!(fence(shard).as_slice() < &whole(*subspace, shard).begin[..]);
        }
    }

    #[test]
    fn all_rows_of_an_account_lie_in_one_shard() {
        let account_id = AccountId::new(0xfeed);
        let rows = shard_rows(account_shard(account_id));
        for key in [account(account_id), lock(account_id), chunk(&email(account_id, EmailId::new(1)), 3)] {
            assert!(key.as_slice() >= &rows.begin[..] && key.as_slice() < &rows.end[..]);
        }
    }

    #[test]
    fn parts_are_read_back() {
        let blob = BlobId::new([9; 32]);
        let owner = BlobOwner::Email { account: AccountId::new(u64::MAX), email: EmailId::new(5) };
        let key = blob_tombstone(UnixMillis(77), &blob, owner);
        let mut parts = KeyParts::of(&key);
        assert_eq!((parts.owner(), parts.blob(), parts.u64()), (Some(owner), Some(blob), Some(77)));
        let key = mailbox_name(AccountId::new(1), None, "a\0b");
        assert_eq!(KeyParts::of(&key).text_after(MAILBOX_NAME_WIDTH), Some(b"a\0b".to_vec()));
        assert_eq!(KeyParts::of(b"x").u64(), None);
    }

    proptest! {
        #[test]
        fn texts_keep_their_order(a: Vec<u8>, b: Vec<u8>, x: u32, y: u32) {
            let key = |text: &[u8], number| Key::open(Subspace::Secret).text(text).u32(number);
            prop_assert_eq!((&a, x).cmp(&(&b, y)), key(&a, x).cmp(&key(&b, y)));
        }

        #[test]
        fn a_range_holds_exactly_the_keys_with_its_prefix(prefix: Vec<u8>, other: Vec<u8>) {
            prop_assume!(prefix.iter().any(|byte| *byte != 0xff));
            let range = Key(prefix.clone()).children();
            prop_assert_eq!(other.starts_with(&prefix), other >= range.begin && other < range.end);
        }
    }
}
