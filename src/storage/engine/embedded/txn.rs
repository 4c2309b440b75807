//! A transaction of the embedded engine: reads of one snapshot, buffered writes, and what the commit has to check.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Core;
use super::commit::{Message, Reads, Request};
use super::overlay::{Overlay, Own, apply_all};
use super::page::Changes;
use super::snapshot::Snapshot;
use crate::blob::StagedBody;
use crate::engine::{Atomic, Commit, Isolation, KEYS_END, KvTxn, MAX_KEY, MAX_TXN, MAX_VALUE, Page, RangeRequest};
use crate::error::Error;

/// Scans that may return more rows than this leave the runtime's thread.
const INLINE_ROWS: usize = 1000;

pub(crate) struct EmbeddedTxn {
    core: Arc<Core>,
    /// Taken at the first read, with its time.
    base: Option<(Arc<Snapshot>, Instant)>,
    reads: Reads,
    writes: Overlay,
    write_conflicts: Vec<(Bytes, Bytes)>,
    bodies: Vec<StagedBody>,
    size: usize,
    /// The first limit that a write broke; told at the commit.
    broken: Option<Error>,
}

impl EmbeddedTxn {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            base: None,
            reads: Reads::default(),
            writes: Overlay::default(),
            write_conflicts: Vec::new(),
            bodies: Vec::new(),
            size: 0,
            broken: None,
        }
    }

    fn base(&mut self) -> Result<Arc<Snapshot>, Error> {
        if let Some((snapshot, since)) = &self.base {
            if since.elapsed() > self.core.shared.limits.max_age {
                return Err(Error::TooOld);
            }
            return Ok(snapshot.clone());
        }
        let snapshot = self.core.shared.latest()?;
        self.base = Some((snapshot.clone(), Instant::now()));
        Ok(snapshot)
    }

    fn read_key(&mut self, key: &[u8], isolation: Isolation) {
        if isolation == Isolation::Serializable {
            self.size += key.len();
            self.reads.keys.push(Bytes::copy_from_slice(key));
        }
    }

    fn read_range(&mut self, begin: &[u8], end: &[u8]) {
        if begin < end {
            self.size += begin.len() + end.len();
            self.reads.ranges.push((Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)));
        }
    }

    /// Counts a write and checks its limits.
    fn admit(&mut self, key: usize, value: usize) {
        self.size += key + value;
        for (what, size, max) in [("a key", key, MAX_KEY), ("a value", value, MAX_VALUE)] {
            if size > max {
                self.broken.get_or_insert_with(|| too_large(what, size, max));
            }
        }
    }

    fn admit_key(&mut self, key: &[u8], value: usize) {
        if key >= KEYS_END {
            self.broken.get_or_insert(Error::Invalid("a key of the engine itself"));
        }
        self.admit(key.len(), value);
    }

    async fn scan(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let base = self.base()?;
        let changes = Changes::of(&self.writes, &request)?;
        if request.limit <= INLINE_ROWS || !changes.is_none() {
            return base.range(request, &changes);
        }
        let (begin, end) = (Bytes::copy_from_slice(request.begin), Bytes::copy_from_slice(request.end));
        let RangeRequest { limit, bytes, reverse, isolation, .. } = request;
        let scan = move || {
            let request = RangeRequest { begin: &begin, end: &end, limit, bytes, reverse, isolation };
            base.range(request, &Changes::none())
        };
        self.core.shared.blocking(scan).await
    }

    /// The conflict range of a scan ends at the last row that it returned.
    fn read_page(&mut self, request: &RangeRequest<'_>, page: &Page) {
        match page.rows.last() {
            Some((last, _)) if page.more && request.reverse => self.read_range(last, request.end),
            Some((last, _)) if page.more => self.read_range(request.begin, &[last, &[0][..]].concat()),
            _ => self.read_range(request.begin, request.end),
        }
    }

    /// The own writes, for rows of the engine itself, whose keys no caller may name.
    pub(in crate::engine) fn writes(&mut self) -> &mut Overlay {
        &mut self.writes
    }

    /// The version of the snapshot, zero before the first read. Asking does not age it.
    pub(in crate::engine) fn base_version(&self) -> u64 {
        self.base.as_ref().map_or(0, |(snapshot, _)| snapshot.version)
    }

    fn is_read_only(&self) -> bool {
        self.writes.is_empty() && self.write_conflicts.is_empty() && self.bodies.is_empty()
    }
}

impl KvTxn for EmbeddedTxn {
    async fn read_version(&mut self) -> Result<u64, Error> {
        Ok(self.base()?.version)
    }

    async fn get(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, Error> {
        let base = self.base()?;
        let value = match self.writes.look(key)? {
            // What the transaction wrote itself nobody else can change under it.
            Own::Is(value) => return Ok(value.cloned()),
            Own::Changes(changes) => apply_all(base.get(key)?, changes),
            Own::Nothing => base.get(key)?,
        };
        self.read_key(key, isolation);
        Ok(value)
    }

    async fn range(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let page = self.scan(request).await?;
        if request.isolation == Isolation::Serializable {
            self.read_page(&request, &page);
        }
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.admit_key(key, value.len());
        self.writes.set(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    fn clear(&mut self, key: &[u8]) {
        self.admit_key(key, 0);
        self.writes.clear(Bytes::copy_from_slice(key));
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        let end = end.min(KEYS_END);
        self.admit(begin.len().max(end.len()), 0);
        self.writes.clear_range(Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end));
    }

    fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        self.admit_key(key, argument.len());
        self.writes.atomic(Bytes::copy_from_slice(key), op, Bytes::copy_from_slice(argument));
    }

    fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        self.admit_key(prefix, value.len());
        self.admit(prefix.len() + 10 + suffix.len(), 0);
        let [prefix, suffix, value] = [prefix, suffix, value].map(Bytes::copy_from_slice);
        self.writes.stamped_keys.push(super::overlay::StampedKey { prefix, suffix, value });
    }

    fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        self.admit_key(key, prefix.len() + 10 + suffix.len());
        let [key, prefix, suffix] = [key, prefix, suffix].map(Bytes::copy_from_slice);
        self.writes.set_stamped_value(key, prefix, suffix);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.read_range(begin, end);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.size += begin.len() + end.len();
        self.write_conflicts.push((Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)));
    }

    fn attach(&mut self, body: &StagedBody) {
        self.bodies.push(body.clone());
    }

    fn size(&self) -> usize {
        self.size
    }

    async fn commit(mut self) -> Result<Commit, Error> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if self.size > MAX_TXN {
            return Err(too_large("a transaction", self.size, MAX_TXN));
        }
        if self.is_read_only() {
            let version = self.base().map_or(0, |base| base.version);
            return Ok(Commit { version, stamp: None });
        }
        let has_reads = !self.reads.keys.is_empty() || !self.reads.ranges.is_empty();
        let read_version = if has_reads { Some(self.read_version().await?) } else { None };
        let (reply, outcome) = oneshot::channel();
        let place = self.core.shared.admit().await?;
        let request = Request {
            read_version,
            reads: self.reads,
            writes: self.writes,
            write_conflicts: self.write_conflicts,
            bodies: self.bodies,
            size: self.size,
            reply,
            _place: place,
        };
        self.core.send(Message::Commit(Box::new(request)))?;
        match tokio::time::timeout(self.core.shared.limits.commit_timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The thread ended, or the disk hangs: it may have been written.
            Ok(Err(_)) | Err(_) => Err(Error::MaybeCommitted),
        }
    }
}

fn too_large(what: &'static str, size: usize, max: usize) -> Error {
    Error::TooLarge { what, size: size as u64, max: max as u64 }
}
