//! The store as the rest of the program holds it: transactions, snapshots, watches and bodies of one data directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use posthouse_conf::Storage as Settings;
use posthouse_conf::storage::Engine as Choice;
use posthouse_mail::stage::BodyRef;
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use rand::Rng as _;

use crate::blob::heal;
use crate::blob::key_file::{self, KeyId};
use crate::blob::key_ring::KeyRing;
use crate::blob::object::Objects;
use crate::blob::place::Place;
use crate::blob::rewrite::{self, RewriteReport};
use crate::blob::rotation;
use crate::blob::rows::Rows;
use crate::blob::scrub::{self, ScrubReport};
use crate::blob::segment::SegmentNumber;
use crate::blob::sweep::{SweepReport, Sweeper};
use crate::blob::tier::{self, TierReport};
use crate::blob::{Blobs, BodyWriter, StagedBody};
use crate::engine::served::{Connector, Served, Server};
use crate::engine::{Embedded, Engine, FoundationDb, Kv, Watch};
use crate::error::{Error, from_io};
use crate::gate;
use crate::keys;
use crate::owner::{self, Claim, Ownership};
use crate::shard::{Epoch, Fence, ShardId};
use crate::transaction::Transaction;

/// A handle; clones share one engine.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    blobs: Arc<Blobs>,
    retry: Retry,
    /// The format of records that the gate lets this node write.
    format: Arc<AtomicU8>,
    /// Absent where the lock of the directory stands for all leases.
    owner: Option<Arc<Ownership>>,
}

/// The bounds of the retry loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) tries_max: usize,
    pub(crate) timeout: Duration,
}

impl Store {
    /// Opens the directory, creating it where it is absent, and takes its lock; or the cluster that the settings name, and
    /// becomes its owner; then the directory only holds the key file.
    pub async fn open(dir: &Path, settings: &Settings) -> Result<Self, Error> {
        let (engine, place) = match settings.engine {
            Choice::Embedded => {
                let engine = Embedded::open(dir, settings).await?;
                let segments = engine.segments();
                (Engine::Embedded(engine), Place::Segments(segments))
            }
            Choice::Served => return Err(Error::Invalid("the engine `served` has no directory of its own")),
            Choice::FoundationDb => {
                let made = tokio::fs::create_dir_all(dir).await;
                made.map_err(|error| from_io(&error, "making the data directory"))?;
                let engine = FoundationDb::open(&settings.foundationdb).await?;
                let store = Self::on(Engine::FoundationDb(engine), Place::Rows, (dir, settings)).await?;
                return store.owned(Claim::After(settings.owner_lease.get())).await;
            }
        };
        let store = Self::on(engine, place, (dir, settings)).await?;
        let is_served = !settings.serve.listen.is_empty();
        match settings.serve.dedicated {
            // Its client owns the mail.
            true => Ok(store),
            false if is_served => store.owned(Claim::Served(settings.owner_lease.get())).await,
            false if owner::is_taken(&store.engine, store.retry).await? => store.owned(Claim::Locked).await,
            // Nobody but this process ever had it: the lock of the directory stands for all leases.
            false => Ok(store),
        }
    }

    /// Opens the store that another node serves, and becomes its owner. The folder is this node's own, for its key file.
    pub async fn connect(connector: Box<dyn Connector>, dir: &Path, settings: &Settings) -> Result<Self, Error> {
        let served = Served::open(connector, &settings.served).await?;
        let store = Self::on(Engine::Served(served.clone()), Place::Served(served), (dir, settings)).await?;
        store.owned(Claim::After(settings.owner_lease.get())).await
    }

    /// Takes the right to write owned rows.
    async fn owned(self, claim: Claim) -> Result<Self, Error> {
        let owner = Ownership::take(&self.engine, self.retry, claim).await?;
        Ok(Self { owner: Some(Arc::new(owner)), ..self })
    }

    /// Whether what a store needs beside its directory can be read: the site's keys, and the secret of an object store. Opens
    /// nothing, so another process may have the store. Blocks.
    pub fn rehearse(dir: &Path, settings: &Settings) -> Result<(), Error> {
        Objects::configured(&settings.object_store)?;
        let path = rotation::key_path(dir, &settings.key_file);
        match KeyRing::open(&path)?.newest()? {
            Some(_) => Ok(()),
            None => Err(Error::Key(format!("the key file {} is missing", path.display()))),
        }
    }

    /// Serves this store to other nodes.
    pub async fn server(&self, settings: &Settings) -> Result<Server, Error> {
        match &self.engine {
            Engine::Embedded(engine) => Server::start(engine.clone(), settings.serve.clone()).await,
            Engine::Served(_) | Engine::FoundationDb(_) => {
                Err(Error::Invalid("only the engine `embedded` is served to others"))
            }
        }
    }

    /// Returns when another process took the store: from then on every owned write of this one is refused.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let lost = self.owner.as_ref().map(|owner| owner.lost());
        async {
            match lost {
                Some(lost) => lost.await,
                None => std::future::pending().await,
            }
        }
    }

    /// The store on an open engine, its bodies where that keeps them. The folder is this node's own, for its files.
    pub(crate) async fn on(engine: Engine, place: Place, (dir, settings): (&Path, &Settings)) -> Result<Self, Error> {
        let objects = match Objects::configured(&settings.object_store) {
            Ok(objects) => objects,
            Err(error) => {
                let _ = close(&engine).await;
                return Err(error);
            }
        };
        Self::with(engine, place, objects, (dir, settings)).await
    }

    /// As `on`, with this object store.
    pub(crate) async fn with(
        engine: Engine,
        place: Place,
        objects: Option<Objects>,
        (dir, settings): (&Path, &Settings),
    ) -> Result<Self, Error> {
        let retry = Retry { tries_max: settings.transaction_tries_max, timeout: settings.transaction_timeout.get() };
        let keys = match rotation::open(&engine, retry, rotation::key_path(dir, &settings.key_file)).await {
            Ok(keys) => keys,
            Err(error) => {
                // The directory is free again when this returns.
                let _ = close(&engine).await;
                return Err(error);
            }
        };
        let blobs = Arc::new(Blobs::new(place, Rows::new(engine.clone(), retry), objects, keys, settings));
        let format = Arc::new(AtomicU8::new(gate::FORMAT_SURE));
        Ok(Self { engine, blobs, retry, format, owner: None })
    }

    /// Runs a transaction until it commits, within bounds of tries and time. `f` may run again, also after a commit whose
    /// outcome is unknown: it touches nothing outside the transaction.
    pub async fn transact<'env, T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send,
        F: for<'t> FnMut(&'t mut Transaction<'env>) -> BoxFuture<'t, Result<T, Error>> + Send,
    {
        let mut f = f;
        transact(&self.engine, self.retry, |txn| {
            txn.with_format(self.format.load(Ordering::Acquire));
            f(txn)
        })
        .await
    }

    /// From now on records are written in this format: the gate says that every node reads it.
    pub(crate) fn write_format(&self, format: u8) {
        self.format.store(format, Ordering::Release);
    }

    /// The right to write a shard's owned rows: every shard is the owner's, under the epoch in which it took the store. A
    /// directory that no other process can reach is never taken; its lock stands for all leases, under the first epoch.
    pub fn fence(&self, shard: ShardId) -> Fence {
        Fence { shard, epoch: self.owner.as_ref().map_or(Epoch::FIRST, |owner| owner.epoch()) }
    }

    /// A reader of the latest state. It keeps that state for at most `MAX_AGE`; then its reads are `TooOld`.
    pub fn snapshot(&self) -> Transaction<'static> {
        Transaction::snapshot(self.engine.begin())
    }

    /// Fires after a durable commit, later than this call, that changed the row; may be spurious. Call it before reading the
    /// row, so that no change slips between.
    pub async fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        self.engine.watch(key).await
    }

    /// A new body, written as it comes.
    pub fn body_writer(&self) -> BodyWriter {
        BodyWriter::new(self.blobs.clone())
    }

    /// A part of a body; a range past its end is cut. Reads and verifies only the frames that it needs.
    pub async fn body_read(&self, body: &BodyRef, range: std::ops::Range<u64>) -> Result<Bytes, Error> {
        self.blobs.read(&body.blob, range).await
    }

    /// Puts a staged body in the place of an equal one that cannot be read any more: see `blob::heal`.
    pub async fn heal(&self, staged: &StagedBody) -> Result<bool, Error> {
        heal::run(self, &self.blobs, staged).await
    }

    /// Hashes content to the name of its body.
    pub(crate) fn body_hasher(&self) -> blake3::Hasher {
        self.blobs.hasher()
    }

    /// Moves what lives out of segments that are mostly dead: see `blob::rewrite`.
    pub async fn rewrite_segments(&self) -> Result<RewriteReport, Error> {
        match &self.blobs.place {
            Place::Segments(segments) => rewrite::run(self, &self.blobs, segments).await,
            Place::Rows | Place::Served(_) => Ok(RewriteReport::default()),
        }
    }

    /// Removes the segment files in which nothing lives any more; how many, and their octets. A sweep does it too, but that of a
    /// client can't.
    pub async fn remove_dead_segments(&self) -> Result<(usize, u64), Error> {
        Sweeper::new(self, &self.blobs).unlink_dead().await
    }

    /// Brings large bodies to the object store, if one is configured: see `blob::tier`.
    pub async fn move_large(&self, now: posthouse_mail::UnixMillis) -> Result<TierReport, Error> {
        match &self.blobs.objects {
            Some(objects) => tier::run(self, &self.blobs, objects, now).await,
            None => Ok(TierReport::default()),
        }
    }

    /// Goes on verifying bodies for at most `slice`: see `blob::scrub`.
    pub async fn scrub(&self, now: posthouse_mail::UnixMillis, slice: Duration) -> Result<ScrubReport, Error> {
        scrub::run(self, &self.blobs, now, slice).await
    }

    /// Octets of live frames in a segment.
    pub(crate) async fn live_octets(&self, number: SegmentNumber) -> Result<i64, Error> {
        let row = self.snapshot().get(&keys::segment(number)).await?;
        row.map_or(Ok(0), |value| {
            let octets = value.as_ref().try_into().map_err(|_| Error::Corrupt("a segment's counter".to_owned()))?;
            Ok(i64::from_le_bytes(octets))
        })
    }

    /// Makes the newest key of the key file the one that new bodies are encrypted under, after adding one if there is no
    /// newer; sweeps wrap the keys of older bodies anew.
    pub async fn rotate_key(&self, now: posthouse_mail::UnixMillis) -> Result<KeyId, Error> {
        rotation::rotate(self, &self.blobs, now).await
    }

    /// Adds a key to the key file without using it yet, so that it can be brought to all nodes first. Blocks.
    pub fn add_key(dir: &Path, settings: &Settings) -> Result<KeyId, Error> {
        let path = rotation::key_path(dir, &settings.key_file);
        if key_file::read(&path)?.is_empty() {
            return Err(Error::Key(format!("the key file {} is missing", path.display())));
        }
        let keys = key_file::add(&path)?;
        keys.last().map(|key| key.id).ok_or(Error::NotFound)
    }

    #[cfg(test)]
    pub(crate) fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    /// Frees what nothing refers to any more: see `blob::sweep`.
    pub async fn sweep(&self, now: posthouse_mail::UnixMillis) -> Result<SweepReport, Error> {
        Sweeper::new(self, &self.blobs).run(now).await
    }

    /// Finishes what is queued and releases the directory. Later calls on any clone are refused.
    pub async fn close(&self) -> Result<(), Error> {
        if let Some(owner) = &self.owner
            && let Err(error) = owner.release().await
        {
            // The next owner waits until it counts as gone.
            emit(event::StoreFailed { operation: "release", reason: error.to_string() });
        }
        close(&self.engine).await
    }

    /// Ends what the engines run for a whole process. For a program that is about to end: what runs on while it is torn
    /// down may crash it.
    pub fn finish() {
        FoundationDb::finish();
    }
}

async fn close(engine: &Engine) -> Result<(), Error> {
    match engine {
        Engine::Embedded(engine) => engine.close().await,
        Engine::FoundationDb(engine) => {
            engine.close();
            Ok(())
        }
        Engine::Served(engine) => {
            engine.close();
            Ok(())
        }
    }
}

/// See `Store::transact`.
pub(crate) async fn transact<'env, T, F>(engine: &Engine, retry: Retry, mut f: F) -> Result<T, Error>
where
    T: Send,
    F: for<'t> FnMut(&'t mut Transaction<'env>) -> BoxFuture<'t, Result<T, Error>> + Send,
{
    let deadline = Instant::now() + retry.timeout;
    let mut tries = 0;
    loop {
        let mut txn = Transaction::new(engine.begin());
        let outcome = match f(&mut txn).await {
            Ok(value) => txn.commit().await.map(|_| value),
            Err(error) => Err(error),
        };
        tries += 1;
        match outcome {
            Err(error) if error.is_retryable() && tries < retry.tries_max && Instant::now() < deadline => {
                tokio::time::sleep(back_off(tries)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Doubles from about half a millisecond to about 128 ms, each wait drawn from its whole span so that rivals part.
fn back_off(tries: usize) -> Duration {
    let span = 500u64 << tries.min(8);
    Duration::from_micros(rand::rng().random_range(span / 4..span))
}

#[cfg(test)]
mod tests {
    use posthouse_mail::{AccountId, EmailId, UnixMillis};

    use super::*;
    use crate::blob;
    use crate::keys::BlobOwner;

    const OWNER: BlobOwner = BlobOwner::Email { account: AccountId::new(1), email: EmailId::new(1) };

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(back_off(1) <= Duration::from_millis(1));
        assert!(back_off(1000) <= Duration::from_millis(128));
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings::default();
        let store = Store::open(dir.path(), &settings).await.expect("a store");
        let content = b"Subject: hello\r\n\r\n".repeat(300);
        let mut writer = store.body_writer();
        writer.write(&content).await.expect("written");
        let staged = writer.finish().await.expect("staged");
        let body = staged.body;
        let written = store.transact(|txn| {
            let staged = staged.clone();
            Box::pin(async move {
                txn.attach(&staged);
                blob::reference(txn, staged.body, OWNER).await?;
                txn.set(b"key", b"value");
                Ok(())
            })
        });
        written.await.expect("committed");
        assert!(matches!(Store::open(dir.path(), &settings).await, Err(Error::Locked)));
        store.close().await.expect("closed");
        assert!(
            store
                .transact(|txn| {
                    txn.set(b"k", b"v");
                    Box::pin(async { Ok(()) })
                })
                .await
                .is_err()
        );
        drop(staged);
        let store = Store::open(dir.path(), &settings).await.expect("a store");
        assert_eq!(store.snapshot().get(b"key").await.expect("read").as_deref(), Some(b"value".as_slice()));
        assert_eq!(store.body_read(&body, 0..u64::MAX).await.expect("read"), content);
        assert_eq!(store.body_read(&body, 9..14).await.expect("read"), b"hello".as_slice());
        let report = store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
        assert_eq!(report.blobs, 0);
    }
}
