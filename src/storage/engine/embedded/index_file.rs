//! The file under the ordered index, which remembers how it failed.
//!
//! The index itself only knows that it may not go on after an error. We need to know more: a full disk heals and the file
//! can be opened again, a failed sync leaves unknown what is on the disk, so that nothing more may be written.
//!
//! A commit of the index syncs twice: first its pages, then the octet that makes them count. The bodies of a group are
//! synced beside the first of the two, which doesn't return before they are durable; a third sync in a row is saved.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::blob::segment::Segment;

/// How the file failed first since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    Sync(String),
    Other(String),
}

/// What the index needs of a file; tests put a failing one in its place.
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
            let fault = match error.kind() {
                _ if is_sync => Fault::Sync(error.to_string()),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full,
                _ => Fault::Other(error.to_string()),
            };
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

/// The sync of a group's bodies, under way on a thread of its own.
#[derive(Debug, Default)]
pub(super) struct BodySync(Mutex<Option<JoinHandle<io::Result<()>>>>);

impl BodySync {
    /// Starts it; without a thread to be had it is done here.
    pub(super) fn start(&self, segments: Vec<Arc<Segment>>) -> io::Result<()> {
        let segments = Arc::new(segments);
        let work = segments.clone();
        match std::thread::Builder::new().name("sync".to_owned()).spawn(move || sync_all(&work)) {
            Ok(helper) => *self.lock() = Some(helper),
            Err(_) => sync_all(&segments)?,
        }
        Ok(())
    }

    /// Waits for its end, once.
    pub(super) fn finish(&self) -> io::Result<()> {
        let helper = self.lock().take();
        helper.map_or(Ok(()), |helper| helper.join().unwrap_or_else(|_| Err(io::Error::other("the sync panicked"))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinHandle<io::Result<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_all(segments: &[Arc<Segment>]) -> io::Result<()> {
    segments.iter().try_for_each(|segment| segment.sync())
}

#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) disk: Box<dyn Disk>,
    pub(super) faults: Arc<Faults>,
    pub(super) bodies: Arc<BodySync>,
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
        let own = self.disk.sync();
        self.faults.note(self.bodies.finish().and(own), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note(self.disk.write(offset, data), false)
    }
}
