//! Bodies: content kept once under its keyed hash, apart from the rows that refer to it.
//!
//! A body is staged first (`BodyWriter`), becomes a row with the transaction that refers to it, and is freed by the
//! sweeper some time after its last reference. References are rows, so that a crash can't leave a counter wrong. Who
//! writes what: the stager and the sweeper write a blob's state row; a commit that adds a reference reads it
//! serialisably, so that a reference and the sweep of its blob never both commit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use posthouse_conf::Storage as Settings;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};
use rand::RngCore as _;
use tokio::sync::Semaphore;

use crate::engine::{Engine, Kv};
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::transaction::Transaction;

pub(crate) mod frame;
pub(crate) mod row;
pub(crate) mod segment;
mod staged;
pub(crate) mod sweep;
mod writer;

use row::BlobRow;
use segment::Segments;
pub(crate) use staged::Staged;
pub use staged::StagedBody;
pub use writer::{BODY_MAX, BodyWriter};

/// What the body functions share: the segments, the hash key and the bodies staged at the moment.
pub(crate) struct Blobs {
    pub(crate) segments: Arc<Segments>,
    engine: Engine,
    id_key: [u8; 32],
    staged: Mutex<HashMap<BlobId, Weak<Staged>>>,
    /// Bounds the work on the blocking pool.
    permits: Arc<Semaphore>,
    inline_max: usize,
    pub(crate) staged_ttl: Duration,
    pub(crate) retention: Duration,
}

impl Blobs {
    pub(crate) fn new(segments: Arc<Segments>, engine: Engine, id_key: [u8; 32], settings: &Settings) -> Self {
        Self {
            segments,
            engine,
            id_key,
            staged: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(settings.blocking_max)),
            inline_max: settings.inline_blob_max.len(),
            staged_ttl: settings.staged_ttl.get(),
            retention: settings.blob_retention.get(),
        }
    }

    /// Hashes content to the name of a body.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.id_key)
    }

    /// Runs blocking work on a body, a bounded number at once.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.permits.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| Error::Unavailable(format!("a task of the blob store ended early: {error}")))?
    }

    /// Shares a staged body with whoever stages the same content meanwhile.
    fn share(self: &Arc<Self>, staged: Staged) -> StagedBody {
        let body = staged.body;
        let own = Arc::new(staged);
        // `own` is declared before the lock so that it is dropped after it: its drop takes the lock too.
        let mut table = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = table.get(&body.blob).and_then(Weak::upgrade) {
            return StagedBody { body, staged: present };
        }
        table.insert(body.blob, Arc::downgrade(&own));
        StagedBody { body, staged: own.clone() }
    }

    fn find_staged(&self, blob: &BlobId) -> Option<Arc<Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).get(blob).and_then(Weak::upgrade)
    }

    /// Called when the last handle of a staged body is gone.
    fn forget(&self, blob: &BlobId) {
        let mut table = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if table.get(blob).is_some_and(|staged| staged.strong_count() == 0) {
            table.remove(blob);
        }
    }

    /// Part of a body, staged or stored.
    pub(crate) async fn read(&self, blob: &BlobId, range: Range<u64>) -> Result<Bytes, Error> {
        let row = match self.find_staged(blob) {
            Some(staged) => match staged.in_memory(range.clone()) {
                Some(bytes) => return Ok(bytes),
                None => staged.row(),
            },
            None => self.row(blob).await?.ok_or(Error::NotFound)?,
        };
        let end = range.end.min(row.size);
        let range = range.start.min(end)..end;
        if let Some(content) = row.inline_part(range.clone()) {
            return Ok(content);
        }
        let segments = self.segments.clone();
        match self.blocking(move || row.read(&segments, range)).await {
            // The sweeper may have removed it, file and all, since the row was read.
            Err(Error::Corrupt(reason)) => match self.row(blob).await? {
                Some(_) => Err(Error::Corrupt(reason)),
                None => Err(Error::NotFound),
            },
            outcome => outcome,
        }
    }

    async fn row(&self, blob: &BlobId) -> Result<Option<BlobRow>, Error> {
        let value = Transaction::snapshot(self.engine.begin()).get(&keys::blob_state(blob)).await?;
        value.map(|value| BlobRow::decode(&value)).transpose()
    }
}

/// Adds a reference of `owner` to a body: one that this transaction attached, or one that is stored already. `NotFound`
/// when it is neither.
pub async fn reference(txn: &mut Transaction<'_>, body: BodyRef, owner: BlobOwner) -> Result<(), Error> {
    let staged = txn.refer(&body.blob);
    let present = txn.get(&keys::blob_state(&body.blob)).await?.is_some();
    match staged {
        _ if present => {}
        Some(staged) => insert(txn, &staged)?,
        None => return Err(Error::NotFound),
    }
    txn.set(&keys::blob_ref(&body.blob, owner), &[]);
    Ok(())
}

/// Drops a reference. The row stays as a tombstone until the sweeper passes after the retention.
pub fn release(txn: &mut Transaction<'_>, blob: BlobId, owner: BlobOwner, now: UnixMillis) {
    txn.set(&keys::blob_ref(&blob, owner), &now.0.to_be_bytes());
    txn.set(&keys::blob_tombstone(now, &blob, owner), &[]);
}

/// Writes the rows of an attached body to which nothing refers yet; the sweeper looks at it after `staged_ttl`.
pub(crate) async fn keep_unreferenced(txn: &mut Transaction<'_>, staged: &StagedBody) -> Result<(), Error> {
    if txn.get(&keys::blob_state(&staged.body.blob)).await?.is_none() {
        insert(txn, staged)?;
        txn.set(&keys::blob_staged(staged.staged.staged_at, &staged.body.blob), &[]);
    }
    Ok(())
}

/// Writes the state row of a body that has none.
fn insert(txn: &mut Transaction<'_>, staged: &StagedBody) -> Result<(), Error> {
    let row = staged.staged.row();
    txn.set(&keys::blob_state(&staged.body.blob), &row.encode());
    for (segment, stored) in row.stored_in_segments() {
        txn.atomic_add(&keys::segment(segment), stored);
    }
    txn.make_durable(staged);
    Ok(())
}

/// The secret under which contents are hashed to ids, made at the first open. Its scope is the site: equal bodies of all
/// accounts are one blob.
pub(crate) async fn id_key(txn: &mut Transaction<'_>) -> Result<[u8; 32], Error> {
    let name = keys::secret("blob-id");
    if let Some(row) = txn.get(&name).await? {
        return row.as_ref().try_into().map_err(|_| Error::Corrupt("the blob-id secret is not 32 octets".to_owned()));
    }
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    txn.set(&name, &key);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use posthouse_mail::{AccountId, EmailId};

    use super::*;
    use crate::store::Store;

    struct Rig {
        store: Store,
        settings: Settings,
        dir: tempfile::TempDir,
    }

    impl Rig {
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            // Small segments, so that a few bodies fill one.
            let settings = Settings { segment_max: posthouse_conf::Size::kib(256), ..Settings::default() };
            let store = Store::open(dir.path(), &settings).await.expect("a store");
            Self { store, settings, dir }
        }

        async fn reopen(self) -> Self {
            self.store.close().await.expect("closed");
            let store = Store::open(self.dir.path(), &self.settings).await.expect("a store");
            Self { store, ..self }
        }

        async fn stage(&self, content: &[u8]) -> StagedBody {
            let mut writer = self.store.body_writer();
            for chunk in content.chunks(10_000) {
                writer.write(chunk).await.expect("written");
            }
            writer.finish().await.expect("staged")
        }

        /// Stages and refers.
        async fn keep(&self, content: &[u8], email: u64) -> BodyRef {
            let staged = self.stage(content).await;
            let kept = self.store.transact(|txn| {
                let staged = staged.clone();
                Box::pin(async move {
                    txn.attach(&staged);
                    reference(txn, staged.body, owner(email)).await
                })
            });
            kept.await.expect("committed");
            staged.body
        }

        async fn release(&self, body: BodyRef, email: u64, now: u64) {
            let released = self.store.transact(|txn| {
                release(txn, body.blob, owner(email), UnixMillis(now));
                Box::pin(async { Ok(()) })
            });
            released.await.expect("committed");
        }

        async fn read(&self, body: &BodyRef, range: Range<u64>) -> Result<Bytes, Error> {
            self.store.body_read(body, range).await
        }

        fn segments(&self) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.dir.path().join("segments")).expect("a directory");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
            paths.sort();
            paths
        }
    }

    fn owner(email: u64) -> BlobOwner {
        BlobOwner::Email { account: AccountId::new(1), email: EmailId::new(email) }
    }

    /// Content without repetition, so that its frames keep their size.
    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut content = vec![0; length];
        reader.fill(&mut content);
        content
    }

    #[tokio::test]
    async fn any_range_of_any_size_is_read() {
        let rig = Rig::new().await;
        for (size, email) in [0, 1, 1000, 1025, 40_000, 65_536, 65_537, 300_000].into_iter().zip(0..) {
            let content = noise(1, size);
            let staged = rig.stage(&content).await;
            let body = staged.body;
            assert_eq!(body.size, size as u64);
            assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a staged body"), content, "{size} staged");
            drop(staged);
            rig.keep(&content, email).await;
            for (start, end) in [(0, 10), (65_530, 65_540), (1, 1), (9, 3), (299_000, 999_999), (0, 300_000)] {
                let expect = &content[start.min(size).min(end)..end.min(size).max(start.min(size).min(end))];
                let range = u64::try_from(start).expect("small")..u64::try_from(end).expect("small");
                assert_eq!(rig.read(&body, range).await.expect("a kept body"), expect, "{size}: {start}..{end}");
            }
        }
    }

    #[tokio::test]
    async fn equal_content_is_stored_once() {
        let rig = Rig::new().await;
        let content = noise(2, 100_000);
        let first = rig.keep(&content, 1).await;
        let octets = rig.store.snapshot().get(&keys::segment(segment::SegmentNumber::new(1))).await.expect("a read");
        let second = rig.keep(&content, 2).await;
        assert_eq!(first, second);
        let after = rig.store.snapshot().get(&keys::segment(segment::SegmentNumber::new(1))).await.expect("a read");
        assert_eq!(octets, after, "no second copy is counted as live");
        rig.release(first, 1, 10).await;
        rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
        assert_eq!(rig.read(&second, 0..u64::MAX).await.expect("the other reference holds it"), content);
    }

    #[tokio::test]
    async fn a_body_that_nobody_attached_cannot_be_referred_to() {
        let rig = Rig::new().await;
        let body = rig.stage(b"never attached").await.body;
        let refer = rig.store.transact(|txn| Box::pin(reference(txn, body, owner(1))));
        assert_eq!(refer.await, Err(Error::NotFound));
        assert_eq!(rig.read(&body, 0..9).await, Err(Error::NotFound));
    }

    #[tokio::test]
    async fn a_blob_is_freed_only_after_its_retention() {
        let rig = Rig::new().await;
        let [one, two] = [rig.keep(&noise(3, 90_000), 1).await, rig.keep(&noise(4, 300), 2).await];
        let day = 24 * 3600 * 1000;
        rig.release(one, 1, 1000).await;
        rig.release(two, 2, 2000).await;
        let free = async |now| rig.store.sweep(UnixMillis(now)).await.expect("swept").blobs;
        assert_eq!(free(day).await, 0);
        assert_eq!(free(day + 1001).await, 1);
        assert_eq!(rig.read(&one, 0..1).await, Err(Error::NotFound));
        assert_eq!(rig.read(&two, 0..300).await.expect("its time has not come"), noise(4, 300));
        assert_eq!(free(day + 2001).await, 1);
        assert_eq!(rig.read(&two, 0..1).await, Err(Error::NotFound));
    }

    #[tokio::test]
    async fn a_reference_that_came_back_outlives_its_tombstone() {
        let rig = Rig::new().await;
        let content = noise(5, 2000);
        let body = rig.keep(&content, 1).await;
        rig.release(body, 1, 1000).await;
        rig.keep(&content, 1).await;
        assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 0);
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("alive"), content);
    }

    #[tokio::test]
    async fn an_attached_body_without_a_reference_is_swept_in_time() {
        let rig = Rig::new().await;
        let staged = rig.stage(&noise(6, 5000)).await;
        let attached = rig.store.transact(|txn| {
            txn.attach(&staged);
            Box::pin(async { Ok(()) })
        });
        attached.await.expect("committed");
        let staged_at = staged.staged.staged_at;
        assert_eq!(rig.store.sweep(staged_at).await.expect("swept").blobs, 0);
        assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 1);
    }

    #[tokio::test]
    async fn dead_segments_are_unlinked_and_live_ones_kept() {
        let rig = Rig::new().await;
        let mut bodies = Vec::new();
        // The next segment is made beside the writing, so that how many bodies fill one is not fixed.
        while rig.segments().len() < 4 {
            let number = u32::try_from(bodies.len()).expect("few");
            assert!(number < 500, "no segment is ever full");
            bodies.push(rig.keep(&noise(100 + number, 60_000), u64::from(number)).await);
        }
        let before = rig.segments().len();
        let (last, dead) = bodies.split_last().expect("some bodies");
        for (body, email) in dead.iter().zip(0..) {
            rig.release(*body, email, 0).await;
        }
        let report = rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
        assert_eq!((report.blobs, rig.segments().len()), (dead.len(), before - report.segments));
        assert!(report.segments >= 1, "{report:?}");
        let rig = rig.reopen().await;
        let content = noise(100 + u32::try_from(dead.len()).expect("few"), 60_000);
        assert_eq!(rig.read(last, 0..u64::MAX).await.expect("alive"), content);
    }

    #[tokio::test]
    async fn a_restart_never_writes_into_an_old_segment() {
        let rig = Rig::new().await;
        rig.keep(&noise(7, 5000), 1).await;
        let old = rig.segments();
        let contents: Vec<_> = old.iter().map(|path| std::fs::read(path).expect("a file")).collect();
        let rig = rig.reopen().await;
        rig.keep(&noise(8, 5000), 2).await;
        assert_eq!(rig.segments().len(), old.len() + 1);
        assert!(old.iter().zip(contents).all(|(path, content)| std::fs::read(path).expect("a file") == content));
    }

    async fn hurt(damage: impl Fn(&Path)) -> Result<Bytes, Error> {
        let rig = Rig::new().await;
        let body = rig.keep(&noise(9, 100_000), 1).await;
        let rig = rig.reopen().await;
        damage(&rig.segments()[0]);
        // The first frame is whole in both cases.
        assert_eq!(rig.read(&body, 0..65_536).await.expect("the first frame"), noise(9, 65_536));
        rig.read(&body, 0..100_000).await
    }

    #[tokio::test]
    async fn a_flipped_bit_is_found_and_placed() {
        let outcome = hurt(|path| {
            let mut content = std::fs::read(path).expect("a file");
            content[80_000] ^= 4;
            std::fs::write(path, content).expect("written");
        });
        let Err(Error::Corrupt(place)) = outcome.await else { panic!("not found") };
        assert!(place.contains("00000001.seg at octet 65584: a frame's checksum is wrong"), "{place}");
    }

    #[tokio::test]
    async fn a_torn_tail_is_found_and_placed() {
        let outcome = hurt(|path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
            file.set_len(90_000).expect("cut");
        });
        let Err(Error::Corrupt(place)) = outcome.await else { panic!("not found") };
        assert!(place.contains("the file ends within a frame"), "{place}");
    }

    #[tokio::test]
    async fn concurrent_writers_of_long_bodies_keep_them_apart() {
        let rig = Rig::new().await;
        let tasks = (0..4u32).map(|seed| rig.keep_owned(seed));
        for (body, seed) in futures_util::future::join_all(tasks).await.into_iter().zip(0..) {
            assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), noise(seed, 400_000));
        }
    }

    impl Rig {
        async fn keep_owned(&self, seed: u32) -> BodyRef {
            self.keep(&noise(seed, 400_000), u64::from(seed)).await
        }
    }
}
