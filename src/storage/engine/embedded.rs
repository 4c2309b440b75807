//! The engine of one machine: one commit thread before a journal, from which rows move on into a redb table; bodies in
//! segment files.
//!
//! The directory holds `store.lock`, `journal.0`, `journal.1`, `index.redb` and `segments/`. Whoever holds the lock owns
//! everything in it: one process at a time. Reads run on the caller's thread from the snapshot published last; only long
//! scans, bodies and everything that syncs run elsewhere.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use posthouse_conf::Storage as Settings;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Kv, MAX_AGE, Watch};
use crate::blob::segment::{Segments, sync_dir};
use crate::error::{Error, from_io};

mod batch;
mod checkpoint;
mod commit;
mod disk;
mod index;
mod journal;
mod layer;
pub(in crate::engine) mod overlay;
mod page;
mod recovery;
mod resolver;
mod snapshot;
mod txn;
mod watches;

use checkpoint::Checkpointer;
use commit::{Committer, Message, Parts};
use disk::WrapFile;
pub use index::FORMAT as DIRECTORY_FORMAT;
use index::Index;
use journal::Journal;
use snapshot::Snapshot;
pub(crate) use txn::EmbeddedTxn;
use watches::Watches;

/// A handle; clones share one commit thread.
#[derive(Clone)]
pub(crate) struct Embedded {
    core: Arc<Core>,
}

/// The end of the commit thread's queue, and what is shared with it. The thread holds no sender, so that it ends when the
/// last handle is gone.
struct Core {
    shared: Arc<Shared>,
    sender: Sender<Message>,
}

/// Bounds of one engine.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_age: Duration,
    group_max: usize,
    commit_timeout: Duration,
    journal_max: u64,
    checkpoint_interval: Duration,
}

/// What the handles share with the commit thread.
struct Shared {
    /// The snapshot and, inside it, its version: one pair under one gate, since a transaction that got them apart could
    /// take an older state for a newer one and lose what was acknowledged between.
    published: RwLock<Option<Arc<Snapshot>>>,
    watches: Arc<Watches>,
    segments: Arc<Segments>,
    limits: Limits,
    /// Bounds the queue of the commit thread.
    queue: Arc<Semaphore>,
    /// Bounds long scans.
    scans: Arc<Semaphore>,
}

impl Shared {
    fn latest(&self) -> Result<Arc<Snapshot>, Error> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.clone().ok_or_else(closed)
    }

    /// Makes a new state visible, unless the store is closed.
    fn publish(&self, next: Arc<Snapshot>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = published.as_mut().map(|present| std::mem::replace(present, next));
        drop(published);
        // Layers may be freed with it: not while others wait at the gate.
        drop(replaced);
    }

    fn close(&self) {
        self.published.write().unwrap_or_else(PoisonError::into_inner).take();
        self.queue.close();
        self.watches.close();
    }

    /// A place in the queue of the commit thread.
    async fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = tokio::time::timeout(self.limits.commit_timeout, self.queue.clone().acquire_owned());
        match place.await {
            Ok(permit) => permit.map_err(|_| closed()),
            Err(_) => Err(Error::Unavailable("the queue of commits is full".to_owned())),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.scans.clone().acquire_owned().await.map_err(|_| closed())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| Error::Unavailable(format!("a scan ended early: {error}")))?
    }
}

impl Core {
    fn send(&self, message: Message) -> Result<(), Error> {
        self.sender.send(message).map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}

/// What differs in tests.
struct Options {
    max_age: Duration,
    wrap: WrapFile,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_age: MAX_AGE, wrap: Arc::new(|file| Box::new(file)) }
    }
}

impl Embedded {
    /// Opens the directory, or makes it, and starts the commit thread.
    pub(crate) async fn open(dir: &Path, settings: &Settings) -> Result<Self, Error> {
        Self::open_with(dir, settings, Options::default()).await
    }

    async fn open_with(dir: &Path, settings: &Settings, options: Options) -> Result<Self, Error> {
        let (dir, settings) = (dir.to_owned(), settings.clone());
        let opened = tokio::task::spawn_blocking(move || start(dir, &settings, options));
        opened.await.map_err(|error| Error::Unavailable(format!("opening the store ended early: {error}")))?
    }

    /// An engine whose transactions are too old as soon as they have read.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) async fn open_hasty(dir: &Path, settings: &Settings) -> Result<Self, Error> {
        Self::open_with(dir, settings, Options { max_age: Duration::ZERO, ..Options::default() }).await
    }

    pub(crate) fn segments(&self) -> Arc<Segments> {
        self.core.shared.segments.clone()
    }

    /// Runs work on the files of the directory, a bounded number at once.
    pub(in crate::engine) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.core.shared.blocking(work).await
    }

    /// Commits what is queued, then releases the directory.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        let (done, closed) = oneshot::channel();
        if self.core.send(Message::Close(done)).is_ok() {
            // An error means that another call closed it first.
            let _ = closed.await;
        }
        Ok(())
    }
}

impl Kv for Embedded {
    type Txn = EmbeddedTxn;

    fn begin(&self) -> EmbeddedTxn {
        EmbeddedTxn::new(self.core.clone())
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        Ok(Watch::new(self.core.shared.watches.watch(Bytes::copy_from_slice(key))))
    }
}

fn start(dir: PathBuf, settings: &Settings, options: Options) -> Result<Embedded, Error> {
    std::fs::create_dir_all(&dir).map_err(|error| from_io(&error, "making the data directory"))?;
    let lock = lock(&dir)?;
    let files = journal::open_files(&dir, &options.wrap, !dir.join("index.redb").exists())?;
    let index = Index::open(&dir, settings.cache.len(), options.wrap)?;
    let segments = Segments::open_dir(&dir.join("segments"), settings.segment_max.get(), settings.open_files_max)?;
    // The names of a new store must outlast a power cut as much as its content.
    for named_in in [Some(dir.as_path()), dir.parent().filter(|parent| !parent.as_os_str().is_empty())] {
        named_in.map_or(Ok(()), sync_dir).map_err(|error| from_io(&error, "syncing the data directory"))?;
    }
    let (key, found) = (index.journal_key()?, index.position()?);
    let epochs = recovery::recover(&files, &key, found, &segments)?;
    let (position, end) = epochs.last().map_or((found, 0), |epoch| (epoch.last, epoch.end));
    let (rows, segments) = (index.rows()?, Arc::new(segments));
    let limits = Limits {
        max_age: options.max_age,
        group_max: settings.group_max.len(),
        commit_timeout: settings.transaction_timeout.get(),
        journal_max: settings.journal_max.get(),
        checkpoint_interval: settings.checkpoint_interval.get(),
    };
    let layers = epochs.iter().rev().map(|epoch| epoch.layer.clone()).collect();
    let first = Snapshot::new(position.version, layers, rows.clone());
    let shared = Arc::new(Shared {
        published: RwLock::new(Some(Arc::new(first))),
        watches: Arc::default(),
        segments: segments.clone(),
        limits,
        queue: Arc::new(Semaphore::new(settings.commit_queue_max)),
        scans: Arc::new(Semaphore::new(settings.blocking_max)),
    });
    let journal = Journal::new(files, key, (position, end));
    let parts = Parts { journal, epochs, checkpointer: Checkpointer::start(index, segments)?, index: rows, lock };
    let (sender, queue) = channel();
    let committer = Committer::new(queue, shared.clone(), parts);
    let thread = std::thread::Builder::new().name("commit".to_owned()).spawn(move || committer.run());
    thread.map_err(|error| from_io(&error, "starting the commit thread"))?;
    Ok(Embedded { core: Arc::new(Core { shared, sender }) })
}

/// The right to a folder, held by whoever has it open.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not by closing alone: a child that is just being started holds the descriptor too, until it becomes its program.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(dir.join("store.lock"));
    let file = file.map_err(|error| from_io(&error, "opening the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked),
        Err(TryLockError::Error(error)) => Err(from_io(&error, "locking the data directory")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::disk::Disk;
    use super::*;
    use crate::engine::{Isolation, KvTxn as _};

    const SOUND: usize = 0;
    const FULL: usize = 1;
    const SYNC_FAILS: usize = 2;

    /// A disk that fails when told to.
    #[derive(Debug)]
    struct Faulty {
        file: File,
        mood: Arc<AtomicUsize>,
    }

    impl Faulty {
        fn fail_when(&self, mood: usize, kind: io::ErrorKind) -> io::Result<()> {
            if self.mood.load(Ordering::SeqCst) == mood { Err(kind.into()) } else { Ok(()) }
        }
    }

    impl Disk for Faulty {
        fn len(&self) -> io::Result<u64> {
            Disk::len(&self.file)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            Disk::read(&self.file, offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.fail_when(FULL, io::ErrorKind::StorageFull)?;
            Disk::set_len(&self.file, len)
        }
        fn sync(&self) -> io::Result<()> {
            self.fail_when(SYNC_FAILS, io::ErrorKind::Other)?;
            Disk::sync(&self.file)
        }
        fn write(&self, offset: u64, octets: &[u8]) -> io::Result<()> {
            // The header's page has its place on the disk already.
            if offset > 0 {
                self.fail_when(FULL, io::ErrorKind::StorageFull)?;
            }
            Disk::write(&self.file, offset, octets)
        }
    }

    async fn faulty() -> (Embedded, Arc<AtomicUsize>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let mood = Arc::new(AtomicUsize::new(SOUND));
        let shared = mood.clone();
        let wrap: WrapFile = Arc::new(move |file| Box::new(Faulty { file, mood: shared.clone() }));
        let options = Options { wrap, ..Options::default() };
        let engine = Embedded::open_with(dir.path(), &Settings::default(), options).await.expect("an engine");
        (engine, mood, dir)
    }

    async fn put(engine: &Embedded, key: &[u8]) -> Result<(), Error> {
        let mut txn = engine.begin();
        txn.set(key, b"value");
        txn.commit().await.map(drop)
    }

    /// Reads the row before it writes it.
    async fn count_up(engine: &Embedded) -> Result<u8, Error> {
        let mut txn = engine.begin();
        let count = txn.get(b"count", Isolation::Serializable).await?.map_or(0, |row| row[0]) + 1;
        txn.set(b"count", &[count]);
        txn.commit().await.map(|_| count)
    }

    async fn has(engine: &Embedded, key: &[u8]) -> bool {
        engine.begin().get(key, Isolation::Snapshot).await.expect("reads go on").is_some()
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_service_returns_by_itself() {
        let (engine, mood, _dir) = faulty().await;
        put(&engine, b"before").await.expect("committed");
        mood.store(FULL, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(put(&engine, b"lost").await, Err(Error::Full));
            assert!(has(&engine, b"before").await);
        }
        // What was refused was not written: whoever comes next does not conflict with it.
        for _ in 0..3 {
            assert_eq!(count_up(&engine).await, Err(Error::Full));
        }
        mood.store(SOUND, Ordering::SeqCst);
        assert_eq!(count_up(&engine).await, Ok(1));
        put(&engine, b"after").await.expect("there is room again");
        assert!(has(&engine, b"before").await && has(&engine, b"after").await && !has(&engine, b"lost").await);
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_more_is_written() {
        let (engine, mood, dir) = faulty().await;
        put(&engine, b"before").await.expect("committed");
        mood.store(SYNC_FAILS, Ordering::SeqCst);
        assert_eq!(put(&engine, b"unknown").await, Err(Error::MaybeCommitted));
        mood.store(SOUND, Ordering::SeqCst);
        assert!(matches!(put(&engine, b"after").await, Err(Error::Unavailable(_))));
        assert!(has(&engine, b"before").await && !has(&engine, b"after").await);
        engine.close().await.expect("closed");
        let engine = Embedded::open(dir.path(), &Settings::default()).await.expect("a restart mends it");
        put(&engine, b"after").await.expect("committed");
        assert!(has(&engine, b"before").await);
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Embedded::open(dir.path(), &Settings::default()).await.expect("an engine");
        engine.close().await.expect("closed");
        index::overwrite_format(dir.path(), 7);
        let outcome = Embedded::open(dir.path(), &Settings::default()).await.map(drop);
        assert_eq!(outcome, Err(Error::NewerFormat { found: 7, known: 2 }));
    }

    #[tokio::test]
    async fn a_file_that_is_no_index_is_damage_not_a_panic() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("index.redb"), [7; 9000]).expect("written");
        let outcome = Embedded::open(dir.path(), &Settings::default()).await.map(drop);
        assert!(matches!(outcome, Err(Error::Corrupt(_) | Error::Unavailable(_))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_first_start_that_was_killed_can_be_repeated() {
        let dir = tempfile::tempdir().expect("a directory");
        let unfinished = dir.path().join("index.redb.new");
        std::fs::write(&unfinished, [0; 9000]).expect("written");
        Embedded::open(dir.path(), &Settings::default()).await.expect("an engine");
        assert!(!unfinished.exists());
    }

    #[tokio::test]
    async fn the_last_handle_gone_the_directory_is_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Embedded::open(dir.path(), &Settings::default()).await.expect("an engine");
        let second = Embedded::open(dir.path(), &Settings::default()).await.map(drop);
        assert_eq!(second, Err(Error::Locked));
        engine.close().await.expect("closed");
        assert!(matches!(put(&engine, b"late").await, Err(Error::Unavailable(_))));
        Embedded::open(dir.path(), &Settings::default()).await.expect("free");
    }

    #[tokio::test]
    async fn replaced_snapshots_let_their_pages_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings { journal_max: posthouse_conf::Size::kib(1), ..Settings::default() };
        let engine = Embedded::open_hasty(dir.path(), &settings).await.expect("an engine");
        let snapshot = engine.core.shared.latest().expect("a snapshot");
        assert_eq!(snapshot.get(b"a"), Ok(None));
        // Each group fills the journal. The rows of the index are replaced with a checkpoint and closed at a later look.
        while snapshot.get(b"a").is_ok() {
            put(&engine, b"b").await.expect("committed");
        }
        assert_eq!(snapshot.get(b"a"), Err(Error::TooOld));
    }
}
