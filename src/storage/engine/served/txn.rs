//! A transaction of a served engine: its snapshot lies with the server, its writes here until the commit sends them.

use bytes::Bytes;

use super::Served;
use super::draft::Draft;
use super::protocol::{self, Answer, Call, Get, Reader};
use super::scan::{Merge, Stored};
use super::translate;
use crate::blob::StagedBody;
use crate::engine::embedded::overlay::{Own, apply_all};
use crate::engine::{Atomic, Commit, Isolation, KvTxn, Page, RangeRequest, Versionstamp};
use crate::error::Error;

pub(crate) struct ServedTxn {
    served: Served,
    id: u64,
    /// Known once something was read: the server holds the snapshot from then on.
    version: Option<u64>,
    /// Something was asked for: there may be a snapshot.
    has_asked: bool,
    draft: Draft,
}

impl ServedTxn {
    pub(super) fn new(served: Served) -> Self {
        let id = served.client.next_transaction();
        Self { served, id, version: None, has_asked: false, draft: Draft::default() }
    }

    fn reader(&mut self) -> Reader {
        self.has_asked = true;
        Reader { transaction: self.id, is_first: self.version.is_none() }
    }

    async fn stored(&mut self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let get = Get { reader: self.reader(), key: Bytes::copy_from_slice(key) };
        match self.served.client.read(Call::Get(get)).await? {
            Answer::Value(found) => {
                self.version.get_or_insert(found.version);
                Ok(found.value)
            }
            _ => Err(other_answer()),
        }
    }

    /// A page of stored rows alone.
    async fn stored_page(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let range = protocol::Range {
            reader: self.reader(),
            begin: Bytes::copy_from_slice(request.begin),
            end: Bytes::copy_from_slice(request.end),
            limit: u64::try_from(request.limit).unwrap_or(u64::MAX),
            bytes: u64::try_from(request.bytes).unwrap_or(u64::MAX),
            reverse: request.reverse,
        };
        match self.served.client.read(Call::Range(range)).await? {
            Answer::Page(page) => {
                self.version.get_or_insert(page.version);
                let rows = page.rows.into_iter().map(|row| (row.key, row.value)).collect();
                Ok(Page { rows, more: page.more })
            }
            _ => Err(other_answer()),
        }
    }

    async fn scan(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        if request.begin >= request.end {
            return Ok(Page::default());
        }
        let own = self.draft.writes.in_range(request.begin, request.end)?;
        let mut merge = Merge::new(request, own, &self.draft.writes.cleared);
        loop {
            match merge.step() {
                Stored::Enough(page) => return Ok(page),
                Stored::Wanted { begin, end } => {
                    let part = RangeRequest { begin: &begin, end: &end, ..request };
                    let page = self.stored_page(part).await?;
                    merge.supply(page);
                }
            }
        }
    }
}

fn other_answer() -> Error {
    Error::Unavailable("the server answered something else".to_owned())
}

impl KvTxn for ServedTxn {
    async fn read_version(&mut self) -> Result<u64, Error> {
        let reader = self.reader();
        match self.served.client.read(Call::Version(reader)).await? {
            Answer::Version(version) => Ok(*self.version.insert(version)),
            _ => Err(other_answer()),
        }
    }

    async fn get(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, Error> {
        let changes = match self.draft.writes.look(key)? {
            // What the transaction wrote itself nobody else can change under it.
            Own::Is(value) => return Ok(value.cloned()),
            Own::Changes(changes) => changes.to_vec(),
            Own::Nothing => Vec::new(),
        };
        let value = apply_all(self.stored(key).await?, &changes);
        self.draft.read_key(key, isolation);
        Ok(value)
    }

    async fn range(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        let page = self.scan(request).await?;
        self.draft.read_page(&request, &page);
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.draft.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.draft.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.draft.clear_range(begin, end);
    }

    fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        self.draft.atomic(key, op, argument);
    }

    fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        self.draft.set_stamped_key(prefix, suffix, value);
    }

    fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        self.draft.set_stamped_value(key, prefix, suffix);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.draft.read_range(begin, end);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.draft.add_write_range(begin, end);
    }

    /// Bodies of this engine are rows: nothing else has to be made durable.
    fn attach(&mut self, _body: &StagedBody) {}

    fn size(&self) -> usize {
        self.draft.size()
    }

    async fn commit(mut self) -> Result<Commit, Error> {
        if !self.draft.check()? {
            return Ok(Commit { version: self.version.unwrap_or_default(), stamp: None });
        }
        let draft = std::mem::take(&mut self.draft);
        let has_reads = !draft.read_keys.is_empty() || !draft.read_ranges.is_empty();
        let request = protocol::Commit {
            counter: self.served.client.next_commit(),
            bucket: 0,
            is_repeat: false,
            snapshot: (has_reads && self.version.is_some()).then_some(self.id),
            read_keys: draft.read_keys,
            read_ranges: translate::ranges(draft.read_ranges),
            changes: translate::changes(draft.writes),
            write_ranges: translate::ranges(draft.write_ranges),
        };
        // The commit takes the snapshot with it.
        self.has_asked &= request.snapshot.is_none();
        let committed = self.served.client.commit(request).await?;
        let stamp = committed.stamp.as_ref().try_into().map_err(|_| other_answer())?;
        Ok(Commit { version: committed.version, stamp: Some(Versionstamp(stamp)) })
    }
}

impl Drop for ServedTxn {
    fn drop(&mut self) {
        if self.has_asked {
            self.served.client.tell(Call::Forget(Reader { transaction: self.id, is_first: false }));
        }
    }
}
