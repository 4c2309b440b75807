//! The ordered index: one redb table of octets, commits that need no repair after a crash, and the snapshots read from it.

use std::fs::{File, OpenOptions};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::commit::Request;
use super::index_file::{BodySync, Disk, Fault, Faults, IndexFile};
use super::overlay::{Pending, apply_all, stamped};
use super::page::{self, PageBuilder};
use crate::blob::segment::Segment;
use crate::engine::{Page, RangeRequest, Versionstamp};
use crate::error::{Error, from_io};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// The format of the whole directory.
const FORMAT: u64 = 1;
const FORMAT_KEY: &[u8] = &[0xff, b'f'];
/// The version of the last commit: with it, the outcome of a commit that failed half-way can be told.
const VERSION_KEY: &[u8] = &[0xff, b'v'];

pub(super) type RowTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
type WriteTable<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// Wraps the opened file; a test's may fail.
pub(super) type WrapFile = Arc<dyn Fn(File) -> Box<dyn Disk> + Send + Sync>;

/// The state after one commit.
pub(super) struct Snapshot {
    pub(super) version: u64,
    /// Absent once the snapshot is older than any transaction may be: its pages are free then.
    table: RwLock<Option<RowTable>>,
}

impl Snapshot {
    fn with<T>(&self, read: impl FnOnce(&RowTable) -> Result<T, Error>) -> Result<T, Error> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().map_or(Err(Error::TooOld), read)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.with(|table| {
            let row = table.get(key).map_err(storage)?;
            Ok(row.map(|guard| Bytes::copy_from_slice(guard.value())))
        })
    }

    /// A page of rows with the changes of a transaction laid over them.
    pub(super) fn range(&self, request: RangeRequest<'_>, changes: &page::Changes<'_>) -> Result<Page, Error> {
        if request.begin >= request.end {
            return Ok(Page::default());
        }
        self.with(|table| {
            let rows = table.range(request.begin..request.end).map_err(storage)?;
            PageBuilder::new(request).merge(rows, changes)
        })
    }

    /// Lets its pages go, unless somebody reads this instant.
    pub(super) fn try_close(&self) -> bool {
        self.table.try_write().map(|mut table| *table = None).is_ok()
    }
}

/// The index, open for writing. Only the commit thread has it.
pub(super) struct Index {
    path: PathBuf,
    cache: usize,
    wrap: WrapFile,
    faults: Arc<Faults>,
    bodies: Arc<BodySync>,
    database: Option<Database>,
}

impl Index {
    /// Opens or makes the index and returns the version of its last commit.
    pub(super) fn open(dir: &Path, cache: usize, wrap: WrapFile) -> Result<(Self, u64), Error> {
        let path = dir.join("index.redb");
        if !path.exists() {
            Self::make(dir, &path).map_err(|error| from_io(&error, "making the index"))?;
        }
        let mut index = Self { path, cache, wrap, faults: Arc::default(), bodies: Arc::default(), database: None };
        let version = index.reopen()?;
        Ok((index, version))
    }

    /// Makes an empty index beside its place and moves it there whole: a kill in the middle leaves no half-made one, which
    /// no later start could tell from a damaged one.
    fn make(dir: &Path, path: &Path) -> std::io::Result<()> {
        let unfinished = dir.join("index.redb.new");
        File::create(&unfinished)?;
        drop(Database::create(&unfinished).map_err(std::io::Error::other)?);
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        File::open(dir)?.sync_all()
    }

    /// Opens the file anew, as after a crash, and returns the version of the last commit that is in it.
    pub(super) fn reopen(&mut self) -> Result<u64, Error> {
        self.database = None;
        self.faults = Arc::default();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.path);
        let file = file.map_err(|error| from_io(&error, "opening the index"))?;
        let backend = IndexFile { disk: (self.wrap)(file), faults: self.faults.clone(), bodies: self.bodies.clone() };
        let cache = self.cache;
        // The index may panic on a file that something else has written to.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            redb::Builder::new().set_cache_size(cache).create_with_backend(backend)
        }));
        let opened = opened.map_err(|_| Error::Corrupt(format!("{}: the index is unreadable", self.path.display())))?;
        self.database = Some(opened.map_err(|error| self.explain(error.into()))?);
        self.check_format()
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or_else(|| Error::Unavailable("the index is closed".to_owned()))
    }

    fn check_format(&self) -> Result<u64, Error> {
        if let Some(format) = self.read_number(FORMAT_KEY)? {
            if format > FORMAT {
                return Err(Error::NewerFormat { found: format, known: FORMAT });
            }
            return Ok(self.read_number(VERSION_KEY)?.unwrap_or(0));
        }
        self.write(|table| {
            table.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
            Ok(())
        })
        .map_err(|error| self.explain(error))?;
        Ok(0)
    }

    fn read_number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let read = self.database()?.begin_read().map_err(|error| self.explain(error.into()))?;
        let table = match read.open_table(ROWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(self.explain(error.into())),
        };
        let row = table.get(key).map_err(|error| self.explain(error.into()))?;
        row.map(|guard| {
            let octets =
                guard.value().try_into().map_err(|_| Error::Corrupt("a row of the index itself".to_owned()))?;
            Ok(u64::from_le_bytes(octets))
        })
        .transpose()
    }

    /// One durable transaction of the index. An error of `apply` leaves it as it was.
    fn write(&self, apply: impl FnOnce(&mut WriteTable<'_>) -> Result<(), redb::Error>) -> Result<(), redb::Error> {
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // Saves the allocator's state with each commit, so that opening after a crash walks no tree. It also commits in two
        // phases, which `BodySync` relies on: what the first sync covers does not count yet.
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(ROWS)?;
            apply(&mut table)?;
        }
        Ok(txn.commit()?)
    }

    /// Applies a group and makes it durable, its bodies before its rows.
    pub(super) fn commit(&self, version: u64, group: &[Request], bodies: Vec<Arc<Segment>>) -> Result<(), Error> {
        let started = if bodies.is_empty() { Ok(()) } else { self.bodies.start(bodies) };
        let outcome = self.faults.note(started, true).map_err(redb::Error::Io).and_then(|()| {
            self.write(|table| {
                for (request, order) in group.iter().zip(0u16..) {
                    apply(table, request, Versionstamp::new(version, order))?;
                }
                table.insert(VERSION_KEY, version.to_le_bytes().as_slice())?;
                Ok(())
            })
        });
        // Still under way only if the index failed before its first sync.
        let bodies = self.faults.note(self.bodies.finish(), true).map_err(redb::Error::Io);
        outcome.and(bodies).map_err(|error| self.explain(error))
    }

    /// The state as last committed.
    pub(super) fn snapshot(&self, version: u64) -> Result<Arc<Snapshot>, Error> {
        let read = self.database()?.begin_read().map_err(|error| self.explain(error.into()))?;
        let table = read.open_table(ROWS).map_err(|error| self.explain(error.into()))?;
        Ok(Arc::new(Snapshot { version, table: RwLock::new(Some(table)) }))
    }

    /// What the file said last, if it failed.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.faults.take()
    }

    fn explain(&self, error: redb::Error) -> Error {
        match error {
            redb::Error::Corrupted(reason) => Error::Corrupt(format!("{}: {reason}", self.path.display())),
            redb::Error::Io(error) => from_io(&error, "the index"),
            redb::Error::UpgradeRequired(found) => Error::Corrupt(format!("the index has an old file format, {found}")),
            error => Error::Unavailable(format!("the index: {error}")),
        }
    }
}

/// Applies one transaction: cleared ranges first, then the keys, then the keys that its stamp completes.
fn apply(table: &mut WriteTable<'_>, request: &Request, stamp: Versionstamp) -> Result<(), redb::Error> {
    for (begin, end) in &request.writes.cleared {
        table.retain_in(begin.as_ref()..end.as_ref(), |_, _| false)?;
    }
    for (key, pending) in &request.writes.points {
        match pending {
            Pending::Set(value) => drop(table.insert(key.as_ref(), value.as_ref())?),
            Pending::Clear => drop(table.remove(key.as_ref())?),
            Pending::StampedValue { prefix, suffix } => {
                drop(table.insert(key.as_ref(), stamped(prefix, stamp, suffix).as_ref())?);
            }
            Pending::Atomic(changes) => {
                let current = table.get(key.as_ref())?.map(|guard| Bytes::copy_from_slice(guard.value()));
                match apply_all(current, changes) {
                    Some(value) => drop(table.insert(key.as_ref(), value.as_ref())?),
                    None => drop(table.remove(key.as_ref())?),
                }
            }
        }
    }
    for row in &request.writes.stamped_keys {
        table.insert(row.key(stamp).as_ref(), row.value.as_ref())?;
    }
    Ok(())
}

pub(super) fn storage(error: redb::StorageError) -> Error {
    match error {
        redb::StorageError::Corrupted(reason) => Error::Corrupt(format!("the index: {reason}")),
        error => Error::Unavailable(format!("reading the index: {error}")),
    }
}

/// Makes the directory look as if a newer program had written it.
#[cfg(test)]
pub(super) fn overwrite_format(dir: &Path, format: u64) {
    let (index, _) = Index::open(dir, 1 << 20, Arc::new(|file| Box::new(file))).expect("an index");
    index
        .write(|table| {
            table.insert(FORMAT_KEY, format.to_le_bytes().as_slice())?;
            Ok(())
        })
        .expect("written");
}
