//! The files under the index and the journal, and how they failed.
//!
//! The index itself only knows that it may not go on after an error. We need to know more: a full disk heals and the file
//! can be opened again, a failed sync leaves unknown what is on the disk, so that nothing more may be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

/// How the file failed first since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    Sync(String),
    Other(String),
}

impl Fault {
    pub(super) fn of_write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Wraps an opened file; a test's may fail.
pub(super) type WrapFile = Arc<dyn Fn(File) -> Box<dyn Disk> + Send + Sync>;

/// What index and journal need of a file; tests put a failing one in its place.
pub(super) trait Disk: std::fmt::Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn write(&self, offset: u64, octets: &[u8]) -> io::Result<()>;
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn write(&self, offset: u64, octets: &[u8]) -> io::Result<()> {
        self.write_all_at(octets, offset)
    }
}

/// The first fault, shared between the file in the index and the one who reads it.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    /// Remembers how an operation failed.
    pub(super) fn note<T>(&self, outcome: io::Result<T>, is_sync: bool) -> io::Result<T> {
        outcome.inspect_err(|error| {
            let fault = if is_sync { Fault::Sync(error.to_string()) } else { Fault::of_write(error) };
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A failed sync outweighs what came before it.
            if first.is_none() || is_sync {
                *first = Some(fault);
            }
        })
    }

    /// The fault, which is forgotten.
    pub(super) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) disk: Box<dyn Disk>,
    pub(super) faults: Arc<Faults>,
}

impl redb::StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        self.faults.note(self.disk.len(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.note(self.disk.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note(self.disk.set_len(len), false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.note(self.disk.sync(), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note(self.disk.write(offset, data), false)
    }
}
