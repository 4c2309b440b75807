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
use posthouse_mail::secret::Secret;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};
use tokio::sync::Semaphore;

use crate::engine::{Engine, Kv};
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::transaction::Transaction;

mod cipher;
pub(crate) mod frame;
pub(crate) mod heal;
pub(crate) mod key_file;
pub(crate) mod key_ring;
pub(crate) mod object;
mod pace;
pub(crate) mod place;
pub(crate) mod rewrite;
pub(crate) mod rotation;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod scrub;
pub(crate) mod segment;
mod staged;
pub(crate) mod sweep;
pub(crate) mod tier;
mod writer;

use key_ring::KeyRing;
use object::Objects;
use place::Place;
use rotation::Keys;
use row::BlobRow;
use rows::Rows;
pub use staged::StagedBody;
use staged::{Content, Staged};
pub use writer::{BODY_MAX, BodyWriter};

/// Times that a body is looked for again whose row changed while it was read.
const READ_TRIES: usize = 8;

/// What the body functions share: the place of bodies, their keys and the bodies staged at the moment.
pub(crate) struct Blobs {
    pub(crate) place: Place,
    rows: Rows,
    /// Where large bodies go in the end.
    pub(crate) objects: Option<Objects>,
    large_min: u64,
    engine: Engine,
    /// What contents are hashed to ids with.
    id_key: Secret<[u8; 32]>,
    pub(crate) keys: Arc<KeyRing>,
    staged: Mutex<HashMap<BlobId, Weak<Staged>>>,
    /// Bounds the work on the blocking pool.
    permits: Arc<Semaphore>,
    inline_max: usize,
    pub(crate) staged_ttl: Duration,
    pub(crate) retention: Duration,
    scrub_interval: Duration,
    /// Octets a second that work in the background reads.
    background_rate: u64,
}

impl Blobs {
    pub(crate) fn new(place: Place, rows: Rows, objects: Option<Objects>, keys: Keys, settings: &Settings) -> Self {
        Self {
            place,
            engine: rows.engine.clone(),
            rows,
            objects,
            large_min: settings.object_store.min_size.get(),
            id_key: keys.id_key,
            keys: keys.ring,
            staged: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(settings.blocking_max)),
            inline_max: settings.inline_blob_max.len(),
            staged_ttl: settings.staged_ttl.get(),
            retention: settings.blob_retention.get(),
            scrub_interval: settings.scrub_interval.get(),
            background_rate: settings.background_rate.get(),
        }
    }

    /// Hashes content to the name of a body.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(self.id_key.reveal())
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
    pub(crate) async fn read(self: &Arc<Self>, blob: &BlobId, range: Range<u64>) -> Result<Bytes, Error> {
        let row = match self.find_staged(blob) {
            Some(staged) => match staged.in_memory(range.clone()) {
                Some(bytes) => return Ok(bytes),
                None => staged.row(),
            },
            None => self.row(blob).await?.ok_or(Error::NotFound)?,
        };
        self.read_following(blob, row, range).await
    }

    /// Reads by a row, and by the newer one if that changed meanwhile.
    async fn read_following(
        self: &Arc<Self>,
        blob: &BlobId,
        mut row: BlobRow,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.read_row((blob, &row), range.clone()).await {
                // The body may have gone, or gone elsewhere, since the row was read.
                Err(Error::Corrupt(reason)) => match self.row(blob).await? {
                    None => return Err(Error::NotFound),
                    Some(now) if now == row || tries == READ_TRIES => return Err(Error::Corrupt(reason)),
                    Some(now) => row = now,
                },
                outcome => return outcome,
            }
        }
    }

    async fn read_row(self: &Arc<Self>, body: (&BlobId, &BlobRow), range: Range<u64>) -> Result<Bytes, Error> {
        let end = range.end.min(body.1.size);
        let range = range.start.min(end)..end;
        if range.is_empty() { Ok(Bytes::new()) } else { self.read_frames(body, range).await }
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
        Some(staged) => insert(txn, &staged).await?,
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
        insert(txn, staged).await?;
        txn.set(&keys::blob_staged(staged.staged.stage.at, &staged.body.blob), &[]);
    }
    Ok(())
}

/// Writes the state row of a body that has none.
async fn insert(txn: &mut Transaction<'_>, staged: &StagedBody) -> Result<(), Error> {
    let own = &staged.staged;
    let row = own.row();
    txn.set(&keys::blob_state(&staged.body.blob), &row.encode());
    let blobs = &own.blobs;
    if blobs.objects.is_some() && row.size >= blobs.large_min {
        txn.set(&keys::large_blob(&staged.body.blob), &[]);
    }
    match &own.content {
        Content::Inline { .. } => {}
        Content::Frame { .. } | Content::Runs(_) => {
            for (segment, stored) in row.stored_in_segments() {
                txn.atomic_add(&keys::segment(segment), stored);
            }
            txn.make_durable(staged);
        }
        Content::Chunk { frame, .. } => txn.set(&keys::blob_chunk(&own.stage.id, 0), frame),
        Content::Chunks(_) => rows::adopt(txn, own.stage).await?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
