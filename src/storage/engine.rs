//! The key-value store under everything: what each engine must do, and the choice among them.
//!
//! Shaped after FoundationDB, so that the engine of one machine and that of a cluster keep one contract: ordered byte
//! keys, serialisable optimistic transactions with conflict ranges, snapshot reads, range scans, atomic operations,
//! versionstamps in commit order, watches. One conformance suite (`engine/conformance.rs`) runs on every engine.
//! Nothing outside this crate is generic over the engine: `Engine` is an enum.

use std::time::Duration;

use bytes::Bytes;

use crate::blob::StagedBody;
use crate::error::Error;

pub(crate) mod atomic;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod embedded;
pub(crate) mod foundationdb;
pub mod served;
mod watch;

pub(crate) use embedded::{Embedded, EmbeddedTxn};
pub(crate) use foundationdb::{FoundationDb, FoundationDbTxn};
use served::{Served, ServedTxn};
pub use watch::Watch;

/// Octets of a key, on every engine: FoundationDB's limit less the room for the prefix under which a cluster is shared.
pub const MAX_KEY: usize = 9_900;
/// Octets of a value, on every engine.
pub const MAX_VALUE: usize = 100_000;
/// Octets of a transaction: keys and values written, keys of conflict ranges. FoundationDB counts about a hundred more for
/// each row. Aim for a tenth.
pub const MAX_TXN: usize = 10_000_000;
/// Age of a transaction's snapshot.
pub const MAX_AGE: Duration = Duration::from_secs(5);
/// Keys from here on belong to the engine itself.
pub const KEYS_END: &[u8] = &[0xff];

/// Commit version and order within it: ten octets that rise in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versionstamp(pub [u8; 10]);

impl Versionstamp {
    pub(crate) fn new(version: u64, order: u16) -> Self {
        let mut octets = [0; 10];
        octets[..8].copy_from_slice(&version.to_be_bytes());
        octets[8..].copy_from_slice(&order.to_be_bytes());
        Self(octets)
    }

    /// The commit version in it.
    pub(crate) fn version(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Whether a read is checked against other writers at the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    #[default]
    Serializable,
    Snapshot,
}

/// Changes that need no read of the value, so that they never conflict with each other. Numbers are little-endian and as
/// long as the argument; an absent or shorter value is filled with zeros, a longer one cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    Add,
    Max,
    Min,
    ByteMax,
    ByteMin,
    And,
    Or,
    Xor,
    /// Clears the row when its value equals the argument.
    CompareAndClear,
}

/// A scan over keys from `begin` (included) to `end` (excluded).
#[derive(Debug, Clone, Copy)]
pub struct RangeRequest<'a> {
    pub begin: &'a [u8],
    pub end: &'a [u8],
    /// Rows at most.
    pub limit: usize,
    /// Octets of keys and values after which no further row is added.
    pub bytes: usize,
    /// From the last key down.
    pub reverse: bool,
    pub isolation: Isolation,
}

impl<'a> RangeRequest<'a> {
    /// All rows of the range in ascending order, read serialisably, in pages of at most a megabyte.
    pub fn new(begin: &'a [u8], end: &'a [u8]) -> Self {
        Self { begin, end, limit: usize::MAX, bytes: 1 << 20, reverse: false, isolation: Isolation::Serializable }
    }

    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    pub fn reverse(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// Adds no conflict range.
    pub fn snapshot(self) -> Self {
        Self { isolation: Isolation::Snapshot, ..self }
    }
}

/// Rows of a scan, in the order asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<(Bytes, Bytes)>,
    /// A limit ended the page; there may be more behind its last row. The conflict range ends there too.
    pub more: bool,
}

impl Page {
    /// The part of the range asked for that the page tells of: up to its last row when a limit ended it.
    pub(crate) fn covers(&self, request: &RangeRequest<'_>) -> (Bytes, Bytes) {
        let (begin, end) = (Bytes::copy_from_slice(request.begin), Bytes::copy_from_slice(request.end));
        match self.rows.last() {
            Some((last, _)) if self.more && request.reverse => (last.clone(), end),
            Some((last, _)) if self.more => (begin, [last, &[0][..]].concat().into()),
            _ => (begin, end),
        }
    }
}

/// What a commit yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub version: u64,
    /// `None` when nothing was written.
    pub stamp: Option<Versionstamp>,
}

/// An engine.
pub(crate) trait Kv: Clone + Send + Sync + 'static {
    type Txn: KvTxn;

    /// A transaction; its snapshot is taken at the first read.
    fn begin(&self) -> Self::Txn;

    /// Fires after a durable commit, later than this call, that changed the row; may be spurious. What the caller reads
    /// after this call is not older than what the watch compares with, so no change slips between.
    fn watch(&self, key: &[u8]) -> impl Future<Output = Result<Watch, Error>> + Send;
}

/// A transaction of an engine. Limits are reported at the commit.
pub(crate) trait KvTxn: Send {
    fn read_version(&mut self) -> impl Future<Output = Result<u64, Error>> + Send;
    fn get(&mut self, key: &[u8], isolation: Isolation) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
    fn range(&mut self, request: RangeRequest<'_>) -> impl Future<Output = Result<Page, Error>> + Send;
    fn set(&mut self, key: &[u8], value: &[u8]);
    fn clear(&mut self, key: &[u8]);
    fn clear_range(&mut self, begin: &[u8], end: &[u8]);
    fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]);
    /// Writes the key `prefix + versionstamp + suffix`.
    fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]);
    /// Writes the value `prefix + versionstamp + suffix`.
    fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]);
    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]);
    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]);
    /// The commit makes this body durable first.
    fn attach(&mut self, body: &StagedBody);
    fn size(&self) -> usize;
    fn commit(self) -> impl Future<Output = Result<Commit, Error>> + Send;
}

/// The engine that a store runs on.
#[derive(Clone)]
pub(crate) enum Engine {
    Embedded(Embedded),
    FoundationDb(FoundationDb),
    Served(Served),
}

/// A transaction of the engine that a store runs on.
pub(crate) enum EngineTxn {
    Embedded(EmbeddedTxn),
    FoundationDb(FoundationDbTxn),
    Served(ServedTxn),
}

impl Kv for Engine {
    type Txn = EngineTxn;

    fn begin(&self) -> EngineTxn {
        match self {
            Self::Embedded(engine) => EngineTxn::Embedded(engine.begin()),
            Self::FoundationDb(engine) => EngineTxn::FoundationDb(engine.begin()),
            Self::Served(engine) => EngineTxn::Served(engine.begin()),
        }
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        match self {
            Self::Embedded(engine) => engine.watch(key).await,
            Self::FoundationDb(engine) => engine.watch(key).await,
            Self::Served(engine) => engine.watch(key).await,
        }
    }
}

/// Hands a call on to the engine's own transaction.
macro_rules! each {
    ($self:ident, $txn:ident => $call:expr) => {
        match $self {
            EngineTxn::Embedded($txn) => $call,
            EngineTxn::FoundationDb($txn) => $call,
            EngineTxn::Served($txn) => $call,
        }
    };
}

impl KvTxn for EngineTxn {
    async fn read_version(&mut self) -> Result<u64, Error> {
        each!(self, txn => txn.read_version().await)
    }

    async fn get(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, Error> {
        each!(self, txn => txn.get(key, isolation).await)
    }

    async fn range(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        each!(self, txn => txn.range(request).await)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        each!(self, txn => txn.set(key, value));
    }

    fn clear(&mut self, key: &[u8]) {
        each!(self, txn => txn.clear(key));
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        each!(self, txn => txn.clear_range(begin, end));
    }

    fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        each!(self, txn => txn.atomic(key, op, argument));
    }

    fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        each!(self, txn => txn.set_stamped_key(prefix, suffix, value));
    }

    fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        each!(self, txn => txn.set_stamped_value(key, prefix, suffix));
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        each!(self, txn => txn.add_read_conflict(begin, end));
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        each!(self, txn => txn.add_write_conflict(begin, end));
    }

    fn attach(&mut self, body: &StagedBody) {
        each!(self, txn => txn.attach(body));
    }

    fn size(&self) -> usize {
        each!(self, txn => txn.size())
    }

    async fn commit(self) -> Result<Commit, Error> {
        each!(self, txn => txn.commit().await)
    }
}
