//! A transaction as the functions of this crate see it: one engine's transaction and the bodies that it makes durable.
//!
//! Every row that no atomic operation moves is sealed here (`seal`), so that damage is an error and never a wrong answer.
//! It lives for one run of the closure given to `Store::transact` and may be run again, so what uses it touches nothing
//! outside. The lifetime stands for what the closure borrows from its caller.

use std::marker::PhantomData;

use bytes::Bytes;
use posthouse_mail::BlobId;

use crate::blob::{self, StagedBody};
use crate::engine::{Atomic, Commit, EngineTxn, Isolation, KvTxn, Page, RangeRequest};
use crate::error::Error;
use crate::gate;
use crate::keys;
use crate::seal;
use crate::shard::{Epoch, Fence};

/// Reads and buffered writes; nothing happens before the commit, which `Store::transact` makes.
pub struct Transaction<'env> {
    engine: EngineTxn,
    staged: Vec<Attached>,
    mode: Mode,
    /// The format of the records that it writes.
    format: u8,
    env: PhantomData<fn() -> &'env ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    ReadWrite,
    /// Every read is a snapshot read, a write is a bug.
    Snapshot,
}

struct Attached {
    body: StagedBody,
    /// A reference row of this transaction points to it.
    referenced: bool,
}

impl Transaction<'_> {
    pub(crate) fn new(engine: EngineTxn) -> Self {
        Self { engine, staged: Vec::new(), mode: Mode::ReadWrite, format: gate::FORMAT_SURE, env: PhantomData }
    }

    /// Writes records in a newer format than every node reads that ever was.
    pub(crate) fn with_format(&mut self, format: u8) {
        self.format = format;
    }

    /// The format of the records that it writes.
    pub(crate) fn format(&self) -> u8 {
        self.format
    }

    pub(crate) fn snapshot(engine: EngineTxn) -> Self {
        Self { mode: Mode::Snapshot, ..Self::new(engine) }
    }

    /// Reads a row serialisably: the commit fails if somebody else wrote it meanwhile.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let isolation = self.isolation(Isolation::Serializable);
        unsealed(key, self.engine.get(key, isolation).await?)
    }

    /// Reads a row without a conflict.
    pub async fn get_snapshot(&mut self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        unsealed(key, self.engine.get(key, Isolation::Snapshot).await?)
    }

    /// Reads a page of rows. Its conflict range ends at the last row returned.
    pub async fn range(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let mut page = self.range_sealed(request).await?;
        for (key, value) in page.rows.iter_mut().filter(|(key, _)| keys::is_sealed(key)) {
            *value = seal::open(key, value)?;
        }
        Ok(page)
    }

    /// Reads a page of rows as they lie in the engine, seals included: what looks for damaged rows must get past them.
    pub async fn range_sealed(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let isolation = self.isolation(request.isolation);
        self.engine.range(RangeRequest { isolation, ..request }).await
    }

    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        if keys::is_sealed(key) {
            self.set_sealed(key, &seal::close(key, value));
        } else {
            self.set_sealed(key, value);
        }
    }

    /// Writes the octets of a row as they are to lie in the engine, seal included.
    pub fn set_sealed(&mut self, key: &[u8], octets: &[u8]) {
        self.expect_writable();
        self.engine.set(key, octets);
    }

    pub fn clear(&mut self, key: &[u8]) {
        self.expect_writable();
        self.engine.clear(key);
    }

    /// Clears every row from `begin` up to but without `end`.
    pub fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.expect_writable();
        self.engine.clear_range(begin, end);
    }

    /// Adds to a little-endian counter of eight octets; absent is zero.
    pub fn atomic_add(&mut self, key: &[u8], delta: i64) {
        self.atomic(key, Atomic::Add, &delta.to_le_bytes());
    }

    /// Changes a row of a commutative subspace without reading it.
    pub fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        self.expect_writable();
        debug_assert!(!keys::is_sealed(key), "a sealed row is not moved by atomic operations");
        self.engine.atomic(key, op, argument);
    }

    /// Writes the key `prefix + versionstamp + suffix`, in commit order. What gets its octets at the commit cannot be sealed
    /// before it, so that such a row lies in a commutative subspace.
    pub fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        self.expect_writable();
        debug_assert!(!keys::is_sealed(prefix), "a stamped row carries no seal");
        self.engine.set_stamped_key(prefix, suffix, value);
    }

    /// Writes the value `prefix + versionstamp + suffix`, unsealed as `set_stamped_key` says.
    pub fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        self.expect_writable();
        debug_assert!(!keys::is_sealed(key), "a stamped row carries no seal");
        self.engine.set_stamped_value(key, prefix, suffix);
    }

    /// The commit fails if somebody writes into this range, as if it had been read.
    pub fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.engine.add_read_conflict(begin, end);
    }

    /// Others that read in this range fail, as if it had been written.
    pub fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.expect_writable();
        self.engine.add_write_conflict(begin, end);
    }

    /// Octets so far; see `MAX_TXN`.
    pub fn size(&self) -> usize {
        self.engine.size()
    }

    /// The commit makes the body durable before it and writes the body's row, unless an equal body has one already.
    pub fn attach(&mut self, body: &StagedBody) {
        self.expect_writable();
        if self.staged.iter().all(|attached| attached.body.body.blob != body.body.blob) {
            self.staged.push(Attached { body: body.clone(), referenced: false });
        }
    }

    /// The attached body of this id, which now has a reference.
    pub(crate) fn refer(&mut self, blob: &BlobId) -> Option<StagedBody> {
        let attached = self.staged.iter_mut().find(|attached| attached.body.body.blob == *blob)?;
        attached.referenced = true;
        Some(attached.body.clone())
    }

    /// The engine writes this body out before the commit.
    pub(crate) fn make_durable(&mut self, body: &StagedBody) {
        self.engine.attach(body);
    }

    /// Commits. Attached bodies without a reference get their rows here.
    pub(crate) async fn commit(mut self) -> Result<Commit, Error> {
        let open: Vec<StagedBody> =
            self.staged.iter().filter(|attached| !attached.referenced).map(|attached| attached.body.clone()).collect();
        for body in open {
            blob::keep_unreferenced(&mut self, &body).await?;
        }
        self.engine.commit().await
    }

    fn isolation(&self, wanted: Isolation) -> Isolation {
        match self.mode {
            Mode::ReadWrite => wanted,
            Mode::Snapshot => Isolation::Snapshot,
        }
    }

    fn expect_writable(&self) {
        debug_assert!(self.mode == Mode::ReadWrite, "a snapshot is only read");
    }
}

fn unsealed(key: &[u8], value: Option<Bytes>) -> Result<Option<Bytes>, Error> {
    match value {
        Some(value) if keys::is_sealed(key) => seal::open(key, &value).map(Some),
        value => Ok(value),
    }
}

/// Aborts with `Fenced` when the shard has another epoch than the writer believes. The fence row is read serialisably, so a
/// change of owner that commits first makes this transaction conflict. An absent row is `Epoch::FIRST`.
pub async fn check_fence(txn: &mut Transaction<'_>, fence: Fence) -> Result<(), Error> {
    let row = txn.get(&keys::fence(fence.shard)).await?;
    let current = match row {
        None => Epoch::FIRST,
        Some(value) => decode_epoch(&value)?,
    };
    if current != fence.epoch {
        return Err(Error::Fenced { shard: fence.shard, epoch: fence.epoch });
    }
    Ok(())
}

fn decode_epoch(value: &[u8]) -> Result<Epoch, Error> {
    let octets = value.try_into().map_err(|_| Error::Corrupt("a fence row is not eight octets".to_owned()))?;
    Ok(Epoch::new(u64::from_be_bytes(octets)))
}
