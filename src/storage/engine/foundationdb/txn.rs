//! A transaction in FoundationDB.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use foundationdb::future::FdbValues;
use foundationdb::options::{ConflictRangeType, MutationType, StreamingMode};
use foundationdb::{KeySelector, RangeOption, Transaction};

use super::Core;
use super::fault::{self, During};
use super::stamped::Stamped;
use crate::blob::StagedBody;
use crate::engine::{
    Atomic, Commit, Isolation, KEYS_END, KvTxn, MAX_KEY, MAX_TXN, MAX_VALUE, Page, RangeRequest, Versionstamp,
};
use crate::error::Error;

pub(crate) struct FoundationDbTxn {
    core: Arc<Core>,
    /// The error is told at the first read or at the commit.
    trx: Result<Transaction, Error>,
    /// When the snapshot was taken, with the first read.
    since: Option<Instant>,
    has_read_conflicts: bool,
    has_writes: bool,
    stamped: Stamped,
    /// Octets by our own count, which is the same on every engine; FoundationDB adds some for each row.
    size: usize,
    /// The first limit that a write broke; told at the commit.
    broken: Option<Error>,
}

impl FoundationDbTxn {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            trx: core.begin(),
            core,
            since: None,
            has_read_conflicts: false,
            has_writes: false,
            stamped: Stamped::default(),
            size: 0,
            broken: None,
        }
    }

    /// The transaction, for a read of its snapshot.
    fn reading(&mut self) -> Result<&Transaction, Error> {
        self.check_age()?;
        self.since.get_or_insert_with(Instant::now);
        self.trx.as_ref().map_err(Clone::clone)
    }

    fn check_age(&self) -> Result<(), Error> {
        let is_old = self.since.is_some_and(|since| since.elapsed() > self.core.max_age);
        if is_old { Err(Error::TooOld) } else { Ok(()) }
    }

    /// Writes, unless a limit was broken: then there is nothing to commit any more.
    fn write(&mut self, write: impl FnOnce(&Transaction, &Core)) {
        self.has_writes = true;
        if let (Ok(trx), None) = (&self.trx, &self.broken) {
            write(trx, &self.core);
        }
    }

    /// Counts a write and checks its limits.
    fn admit(&mut self, key: usize, value: usize) {
        self.size += key + value;
        for (what, size, max) in [("a key", key, MAX_KEY), ("a value", value, MAX_VALUE)] {
            if size > max {
                self.broken.get_or_insert(Error::TooLarge { what, size: size as u64, max: max as u64 });
            }
        }
    }

    fn admit_key(&mut self, key: &[u8], value: usize) {
        if key >= KEYS_END {
            self.broken.get_or_insert(Error::Invalid("a key of the engine itself"));
        }
        self.admit(key.len(), value);
    }

    fn add_conflict(&mut self, begin: &[u8], end: &[u8], kind: ConflictRangeType) {
        if begin >= end {
            return;
        }
        self.size += begin.len() + end.len();
        let Ok(trx) = &self.trx else { return };
        if let Err(fault) = trx.add_conflict_range(&self.core.key(begin), &self.core.key(end), kind) {
            self.broken.get_or_insert(fault::error(fault, During::Reads));
        }
    }

    /// Reads batch after batch until a limit of the page is reached.
    async fn scan(&mut self, request: &RangeRequest<'_>) -> Result<Page, Error> {
        let (mut begin, mut end) = (self.core.key(request.begin), self.core.key(request.end));
        let prefix = self.core.prefix.len();
        let trx = self.reading()?;
        let mut page = PageBuilder { request, rows: Vec::new(), octets: 0 };
        while !page.is_full() {
            let options = RangeOption {
                begin: KeySelector::first_greater_or_equal(&begin),
                end: KeySelector::first_greater_or_equal(&end),
                limit: Some(request.limit - page.rows.len()),
                target_bytes: request.bytes.saturating_sub(page.octets).max(1),
                mode: StreamingMode::WantAll,
                reverse: request.reverse,
                ..RangeOption::default()
            };
            // The conflict range is added when it is known where the page ends.
            let batch = trx.get_range(&options, 1, true).await.map_err(|fault| fault::error(fault, During::Reads))?;
            page.add(&batch, prefix);
            let (Some(last), true) = (batch.last(), batch.more()) else {
                return Ok(Page { more: page.is_full(), rows: page.rows });
            };
            match request.reverse {
                true => end = last.key().to_vec(),
                false => begin = [last.key(), &[0]].concat(),
            }
        }
        Ok(Page { rows: page.rows, more: true })
    }
}

/// Collects the rows of batches until a limit is reached.
struct PageBuilder<'a> {
    request: &'a RangeRequest<'a>,
    rows: Vec<(Bytes, Bytes)>,
    octets: usize,
}

impl PageBuilder<'_> {
    fn is_full(&self) -> bool {
        self.rows.len() >= self.request.limit || (!self.rows.is_empty() && self.octets >= self.request.bytes)
    }

    /// Takes rows in one allocation, without the prefix of their keys.
    fn add(&mut self, batch: &FdbValues, prefix: usize) {
        let octets = batch.iter().map(|row| row.key().len() - prefix + row.value().len()).sum();
        let mut content = BytesMut::with_capacity(octets);
        for row in batch {
            if self.is_full() {
                break;
            }
            content.extend_from_slice(&row.key()[prefix..]);
            let key = content.split().freeze();
            content.extend_from_slice(row.value());
            let value = content.split().freeze();
            self.octets += key.len() + value.len();
            self.rows.push((key, value));
        }
    }
}

impl KvTxn for FoundationDbTxn {
    async fn read_version(&mut self) -> Result<u64, Error> {
        let version = self.reading()?.get_read_version().await;
        version.map(u64_of).map_err(|fault| fault::error(fault, During::Reads))
    }

    async fn get(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, Error> {
        self.stamped.check(key)?;
        let is_snapshot = isolation == Isolation::Snapshot;
        let full_key = self.core.key(key);
        let value = self.reading()?.get(&full_key, is_snapshot).await;
        if !is_snapshot {
            self.has_read_conflicts = true;
            self.size += key.len();
        }
        let value = value.map_err(|fault| fault::error(fault, During::Reads))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    async fn range(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        if request.begin >= request.end {
            return Ok(Page::default());
        }
        self.stamped.check_range(request.begin, request.end)?;
        let page = self.scan(&request).await?;
        if request.isolation == Isolation::Serializable {
            let (begin, end) = page.covers(&request);
            self.add_read_conflict(&begin, &end);
        }
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.admit_key(key, value.len());
        self.stamped.settle(key);
        self.write(|trx, core| trx.set(&core.key(key), value));
    }

    fn clear(&mut self, key: &[u8]) {
        self.admit_key(key, 0);
        self.stamped.settle(key);
        self.write(|trx, core| trx.clear(&core.key(key)));
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        let end = end.min(KEYS_END);
        self.admit(begin.len().max(end.len()), 0);
        if begin < end {
            self.stamped.settle_range(begin, end);
            self.write(|trx, core| trx.clear_range(&core.key(begin), &core.key(end)));
        }
    }

    fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        self.admit_key(key, argument.len());
        self.write(|trx, core| trx.atomic_op(&core.key(key), argument, mutation(op)));
    }

    fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        self.admit_key(prefix, value.len());
        self.admit(prefix.len() + STAMP.len() + suffix.len(), 0);
        self.stamped.add_key(prefix, suffix);
        self.write(|trx, core| {
            let key = with_stamp(&core.key(prefix), suffix);
            trx.atomic_op(&key, value, MutationType::SetVersionstampedKey);
        });
    }

    fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        self.admit_key(key, prefix.len() + STAMP.len() + suffix.len());
        self.stamped.add_value(key);
        let value = with_stamp(prefix, suffix);
        self.write(|trx, core| trx.atomic_op(&core.key(key), &value, MutationType::SetVersionstampedValue));
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.has_read_conflicts = true;
        self.add_conflict(begin, end, ConflictRangeType::Read);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.has_writes = true;
        self.add_conflict(begin, end, ConflictRangeType::Write);
    }

    fn attach(&mut self, _body: &StagedBody) {
        unreachable!("this engine keeps bodies as rows");
    }

    fn size(&self) -> usize {
        self.size
    }

    async fn commit(mut self) -> Result<Commit, Error> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if self.size > MAX_TXN {
            return Err(Error::TooLarge { what: "a transaction", size: self.size as u64, max: MAX_TXN as u64 });
        }
        if !self.has_writes {
            let version = if self.since.is_some() { self.read_version().await.unwrap_or(0) } else { 0 };
            return Ok(Commit { version, stamp: None });
        }
        if self.has_read_conflicts {
            self.check_age()?;
        }
        let trx = self.trx?;
        let stamp = trx.get_versionstamp();
        let committed = trx.commit().await.map_err(|error| fault::error(*error, During::Commit))?;
        let version = committed.committed_version().map_or(0, u64_of);
        // FoundationDB leaves out a commit that would change nothing; then there is no stamp.
        let stamp = stamp.await.ok().and_then(|octets| <[u8; 10]>::try_from(&*octets).ok());
        Ok(Commit { version, stamp: stamp.map(Versionstamp) })
    }
}

/// A version; -1 stands for a commit that changed nothing.
fn u64_of(version: i64) -> u64 {
    u64::try_from(version).unwrap_or(0)
}

/// Stands where FoundationDB puts the versionstamp.
const STAMP: [u8; 10] = [0; 10];

/// A key or value with a place for the stamp, and at its end where that place is, as FoundationDB wants it.
fn with_stamp(prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
    let place = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
    [prefix, &STAMP, suffix, &place.to_le_bytes()].concat()
}

fn mutation(op: Atomic) -> MutationType {
    match op {
        Atomic::Add => MutationType::Add,
        Atomic::Max => MutationType::Max,
        Atomic::Min => MutationType::Min,
        Atomic::ByteMax => MutationType::ByteMax,
        Atomic::ByteMin => MutationType::ByteMin,
        Atomic::And => MutationType::BitAnd,
        Atomic::Or => MutationType::BitOr,
        Atomic::Xor => MutationType::BitXor,
        Atomic::CompareAndClear => MutationType::CompareAndClear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_stamp_stands_at_the_end() {
        let key = with_stamp(b"log/", b"/x");
        assert_eq!(key, [b"log/".as_slice(), &[0; 10], b"/x", &[4, 0, 0, 0]].concat());
    }
}
