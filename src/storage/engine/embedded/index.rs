//! The ordered index: one redb table of octets, checkpoints that need no repair after a crash, and the rows read from it.

use std::fs::{File, OpenOptions};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rand::RngCore as _;
use redb::{AccessGuard, Database, Durability, ReadOnlyTable, ReadableDatabase as _, TableDefinition};

use super::disk::{Disk, Fault, Faults, IndexFile, WrapFile};
use super::layer::Layer;
use crate::engine::Page;
use crate::error::{Error, from_io};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// The format of the whole directory.
pub const FORMAT: u64 = 2;
const FORMAT_KEY: &[u8] = &[0xff, b'f'];
/// The version of the last commit that the index holds.
const VERSION_KEY: &[u8] = &[0xff, b'v'];
/// The first epoch of the journal that the index does not hold.
const EPOCH_KEY: &[u8] = &[0xff, b'j'];
/// What the checksums of the journal are keyed with, so that nobody can send octets that look like one of its records.
const JOURNAL_KEY: &[u8] = &[0xff, b'k'];

pub(super) type JournalKey = [u8; 32];
pub(super) type IndexRow = (AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>);
pub(super) type IndexRange = redb::Range<'static, &'static [u8], &'static [u8]>;
type RowTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
type WriteTable<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// The rows of one checkpoint.
pub(super) struct IndexRows {
    /// Absent once they are older than any transaction may be: their pages are free then.
    table: RwLock<Option<RowTable>>,
}

impl IndexRows {
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

    /// Hands out a range, with the rows held open meanwhile.
    pub(super) fn with_range(
        &self,
        begin: &[u8],
        end: &[u8],
        read: impl FnOnce(IndexRange) -> Result<Page, Error>,
    ) -> Result<Page, Error> {
        self.with(|table| read(table.range(begin..end).map_err(storage)?))
    }

    /// Lets the pages go, unless somebody reads this instant.
    pub(super) fn try_close(&self) -> bool {
        self.table.try_write().map(|mut table| *table = None).is_ok()
    }
}

/// Where the index stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    pub(super) version: u64,
    pub(super) epoch: u64,
}

/// The index, open for writing. Only the checkpointer has it.
pub(super) struct Index {
    path: PathBuf,
    cache: usize,
    wrap: WrapFile,
    faults: Arc<Faults>,
    database: Option<Database>,
}

impl Index {
    /// Opens or makes the index.
    pub(super) fn open(dir: &Path, cache: usize, wrap: WrapFile) -> Result<Self, Error> {
        let path = dir.join("index.redb");
        if !path.exists() {
            Self::make(dir, &path).map_err(|error| from_io(&error, "making the index"))?;
        }
        let mut index = Self { path, cache, wrap, faults: Arc::default(), database: None };
        index.reopen()?;
        index.check_format()?;
        Ok(index)
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

    /// Opens the file anew, as after a crash.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        self.database = None;
        self.faults = Arc::default();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.path);
        let file = file.map_err(|error| from_io(&error, "opening the index"))?;
        let disk: Box<dyn Disk> = (self.wrap)(file);
        let backend = IndexFile { disk, faults: self.faults.clone() };
        let cache = self.cache;
        // The index may panic on a file that something else has written to.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            redb::Builder::new().set_cache_size(cache).create_with_backend(backend)
        }));
        let opened = opened.map_err(|_| Error::Corrupt(format!("{}: the index is unreadable", self.path.display())))?;
        self.database = Some(opened.map_err(|error| self.explain(error.into()))?);
        Ok(())
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or_else(|| Error::Unavailable("the index is closed".to_owned()))
    }

    fn check_format(&self) -> Result<(), Error> {
        if let Some(format) = self.read_number(FORMAT_KEY)? {
            return match format {
                FORMAT => Ok(()),
                newer if newer > FORMAT => Err(Error::NewerFormat { found: newer, known: FORMAT }),
                older => Err(Error::Unavailable(format!("the store has format {older}, which no release wrote"))),
            };
        }
        let mut key: JournalKey = [0; 32];
        rand::rng().fill_bytes(&mut key);
        let fill = |table: &mut WriteTable<'_>| {
            table.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
            table.insert(JOURNAL_KEY, key.as_slice())?;
            Ok(())
        };
        self.write(fill).map_err(|error| self.explain(error))
    }

    /// Up to where the index holds what was committed.
    pub(super) fn position(&self) -> Result<Position, Error> {
        let version = self.read_number(VERSION_KEY)?.unwrap_or(0);
        Ok(Position { version, epoch: self.read_number(EPOCH_KEY)?.unwrap_or(0) })
    }

    pub(super) fn journal_key(&self) -> Result<JournalKey, Error> {
        self.read_own(JOURNAL_KEY)?.ok_or_else(own_row)
    }

    fn read_number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        Ok(self.read_own(key)?.map(u64::from_le_bytes))
    }

    fn read_own<const LENGTH: usize>(&self, key: &[u8]) -> Result<Option<[u8; LENGTH]>, Error> {
        let read = self.database()?.begin_read().map_err(|error| self.explain(error.into()))?;
        let table = match read.open_table(ROWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(self.explain(error.into())),
        };
        let row = table.get(key).map_err(|error| self.explain(error.into()))?;
        row.map(|guard| guard.value().try_into().map_err(|_| own_row())).transpose()
    }

    /// One durable transaction of the index. An error of `apply` leaves it as it was.
    fn write(&self, apply: impl FnOnce(&mut WriteTable<'_>) -> Result<(), redb::Error>) -> Result<(), redb::Error> {
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // Saves the allocator's state with each commit, so that opening after a crash walks no tree.
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(ROWS)?;
            apply(&mut table)?;
        }
        Ok(txn.commit()?)
    }

    /// Takes the rows of a layer in and makes them durable.
    pub(super) fn take_in(&self, layer: &Layer, position: Position) -> Result<(), Error> {
        let apply = |table: &mut WriteTable<'_>| {
            for (key, value) in layer.read().last() {
                match value {
                    Some(value) => drop(table.insert(key.as_ref(), value.as_ref())?),
                    None => drop(table.remove(key.as_ref())?),
                }
            }
            table.insert(VERSION_KEY, position.version.to_le_bytes().as_slice())?;
            table.insert(EPOCH_KEY, position.epoch.to_le_bytes().as_slice())?;
            Ok(())
        };
        self.write(apply).map_err(|error| self.explain(error))
    }

    /// The rows as last taken in.
    pub(super) fn rows(&self) -> Result<Arc<IndexRows>, Error> {
        let read = self.database()?.begin_read().map_err(|error| self.explain(error.into()))?;
        let table = read.open_table(ROWS).map_err(|error| self.explain(error.into()))?;
        Ok(Arc::new(IndexRows { table: RwLock::new(Some(table)) }))
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

fn own_row() -> Error {
    Error::Corrupt("a row of the index itself".to_owned())
}

pub(super) fn storage(error: redb::StorageError) -> Error {
    match error {
        redb::StorageError::Corrupted(reason) => Error::Corrupt(format!("the index: {reason}")),
        // A write failed and the index is opened anew: the next transaction gets the rows that it finds then.
        redb::StorageError::PreviousIo | redb::StorageError::DatabaseClosed => Error::TooOld,
        error => Error::Unavailable(format!("reading the index: {error}")),
    }
}

/// Makes the directory look as if a newer program had written it.
#[cfg(test)]
pub(super) fn overwrite_format(dir: &Path, format: u64) {
    let index = Index::open(dir, 1 << 20, Arc::new(|file| Box::new(file))).expect("an index");
    index
        .write(|table| {
            table.insert(FORMAT_KEY, format.to_le_bytes().as_slice())?;
            Ok(())
        })
        .expect("written");
}
