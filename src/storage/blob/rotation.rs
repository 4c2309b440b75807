//! The site's keys over time: made with a new site, replaced by an administrator, and the bodies' keys wrapped anew behind it.
//!
//! The row of the hash key says which key is active. After a rotation the sweeper walks all bodies once at once and once
//! again when nothing can be staged any more under the key before; then that one may leave the file. Contents are never
//! encrypted again for it: a body's own key stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use posthouse_mail::secret::Secret;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use prost::Message as _;

use super::Blobs;
use super::cipher::{self, KEY};
use super::key_file::KeyId;
use super::key_ring::{KeyRing, key_of};
use super::row::BlobRow;
use crate::engine::{Engine, RangeRequest};
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::seal;
use crate::store::{Retry, Store, transact};
use crate::transaction::Transaction;

/// The name of the secret that ids are made with.
pub(crate) const ID_KEY: &str = "blob-id";
/// Octets of rows looked at in one transaction.
const STEP: usize = 128 << 10;
/// The layout of the rows of this file.
const VERSION: u8 = 1;

/// The keys of an open store.
pub(crate) struct Keys {
    pub(crate) ring: Arc<KeyRing>,
    /// What contents are hashed to ids with. Its scope is the site: equal bodies of all accounts are one blob.
    pub(crate) id_key: Secret<[u8; KEY]>,
}

/// How far the wrapping of old bodies' keys has come.
#[derive(Clone, PartialEq, prost::Message)]
struct RewrapRow {
    /// When the active key became it, in Unix milliseconds.
    #[prost(uint64, tag = "1")]
    activated_at: u64,
    /// Whether every row of that time was walked once.
    #[prost(bool, tag = "2")]
    walked: bool,
    /// The first key of a row not walked yet; empty at the start.
    #[prost(bytes = "vec", tag = "3")]
    cursor: Vec<u8>,
    /// A row of this walk could not be read. Once mended it may need its old key, so that there will be another walk.
    #[prost(bool, tag = "4")]
    is_short: bool,
}

/// Where the key file is: `storage.key_file`, or one in the store's own folder.
pub(crate) fn key_path(dir: &Path, configured: &Path) -> PathBuf {
    if configured.as_os_str().is_empty() { dir.join("storage.keys") } else { configured.to_owned() }
}

/// Reads the keys of a site, or makes them for a new one.
pub(crate) async fn open(engine: &Engine, retry: Retry, path: PathBuf) -> Result<Keys, Error> {
    let is_new = transact(engine, retry, |txn| Box::pin(async { Ok(id_row(txn).await?.is_none()) })).await?;
    let opened = tokio::task::spawn_blocking(move || {
        let ring = KeyRing::open(&path)?;
        // The file is durable before the first row that needs it. Only a store without such a row makes one.
        if is_new && ring.newest()?.is_none() {
            ring.add()?;
        }
        ring.newest().map(|newest| (ring, newest))
    });
    let (ring, newest) =
        opened.await.map_err(|error| Error::Unavailable(format!("reading the key file ended early: {error}")))??;
    let fresh = cipher::random_key()?;
    let row = transact(engine, retry, |txn| Box::pin(get_or_create(txn, &ring, newest, &fresh))).await?;
    let id_key = ring.unwrap_id_key(&row)?;
    ring.activate(active_of(&row)?);
    Ok(Keys { ring: Arc::new(ring), id_key })
}

async fn get_or_create(
    txn: &mut Transaction<'_>,
    ring: &KeyRing,
    newest: Option<KeyId>,
    fresh: &Secret<[u8; KEY]>,
) -> Result<Vec<u8>, Error> {
    if let Some(row) = id_row(txn).await? {
        return Ok(row);
    }
    let newest = newest.ok_or_else(|| Error::Key("there is no key file".to_owned()))?;
    let wrapped = ring.wrap_id_key(newest, fresh)?;
    set_id_row(txn, &wrapped);
    Ok(wrapped.to_vec())
}

/// The wrapped hash key.
async fn id_row(txn: &mut Transaction<'_>) -> Result<Option<Vec<u8>>, Error> {
    match txn.get(&keys::secret(ID_KEY)).await?.as_deref() {
        None => Ok(None),
        Some([VERSION, wrapped @ ..]) => Ok(Some(wrapped.to_vec())),
        Some([found, ..]) => Err(Error::NewerFormat { found: u64::from(*found), known: u64::from(VERSION) }),
        Some([]) => Err(Error::Corrupt("the blob-id secret is empty".to_owned())),
    }
}

fn set_id_row(txn: &mut Transaction<'_>, wrapped: &[u8]) {
    txn.set(&keys::secret(ID_KEY), &[&[VERSION], wrapped].concat());
}

fn active_of(wrapped: &[u8]) -> Result<KeyId, Error> {
    key_of(wrapped).ok_or_else(|| Error::Corrupt("the blob-id secret is cut short".to_owned()))
}

async fn rewrap_row(txn: &mut Transaction<'_>) -> Result<Option<RewrapRow>, Error> {
    match txn.get(&keys::meta("rewrap")).await?.as_deref() {
        None => Ok(None),
        Some([VERSION, row @ ..]) => {
            RewrapRow::decode(row).map(Some).map_err(|_| Error::Corrupt("the rewrap row".to_owned()))
        }
        Some(_) => Err(Error::Corrupt("the rewrap row has an unknown version".to_owned())),
    }
}

fn set_rewrap_row(txn: &mut Transaction<'_>, row: &RewrapRow) {
    txn.set(&keys::meta("rewrap"), &[&[VERSION], row.encode_to_vec().as_slice()].concat());
}

/// Makes the newest key of the file the active one; when it is that already, a new one is made and added first.
pub(crate) async fn rotate(store: &Store, blobs: &Blobs, now: UnixMillis) -> Result<KeyId, Error> {
    let row = id_row(&mut store.snapshot()).await?.ok_or_else(|| Error::Corrupt("the blob-id secret".to_owned()))?;
    let (ring, active) = (blobs.keys.clone(), active_of(&row)?);
    let newest = blobs.blocking(move || {
        if ring.newest()? == Some(active) {
            ring.add()?;
        }
        ring.newest()
    });
    let newest = newest.await?.ok_or_else(|| Error::Key("there is no key file".to_owned()))?;
    let ring = &*blobs.keys;
    let activated = store.transact(|txn| {
        Box::pin(async move {
            let row = id_row(txn).await?.ok_or_else(|| Error::Corrupt("the blob-id secret".to_owned()))?;
            set_id_row(txn, &ring.wrap_id_key(newest, &ring.unwrap_id_key(&row)?)?);
            set_rewrap_row(txn, &RewrapRow { activated_at: now.0, ..RewrapRow::default() });
            Ok(())
        })
    });
    activated.await?;
    ring.activate(newest);
    emit(event::KeyRotated { key: newest.to_string() });
    Ok(newest)
}

/// Follows a rotation on any node, and wraps the keys of older bodies anew if that is due. `wait` is how long a body may
/// stay staged.
pub(crate) async fn follow(store: &Store, ring: &KeyRing, now: UnixMillis, wait: Duration) -> Result<(), Error> {
    let row = id_row(&mut store.snapshot()).await?.ok_or_else(|| Error::Corrupt("the blob-id secret".to_owned()))?;
    // Proves that this node has the key, too.
    ring.unwrap_id_key(&row)?;
    ring.activate(active_of(&row)?);
    let Some(job) = rewrap_row(&mut store.snapshot()).await? else {
        return Ok(());
    };
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    if job.walked && now.0 < job.activated_at.saturating_add(wait) {
        return Ok(());
    }
    while store.transact(|txn| Box::pin(step(txn, ring))).await? {}
    if rewrap_row(&mut store.snapshot()).await?.is_none() {
        emit(event::KeysRewrapped { key: active_of(&row)?.to_string() });
    }
    Ok(())
}

/// Wraps the keys of the next few bodies anew; whether there is more to do in this walk.
async fn step(txn: &mut Transaction<'_>, ring: &KeyRing) -> Result<bool, Error> {
    let Some(mut job) = rewrap_row(txn).await? else {
        return Ok(false);
    };
    let range = keys::blob_states();
    let begin = if job.cursor.is_empty() { &range.begin } else { &job.cursor };
    // A snapshot read: only rows that change here have to stand still.
    let page = txn.range_sealed(RangeRequest::new(begin, &range.end).bytes(STEP).snapshot()).await?;
    for (key, sealed) in &page.rows {
        match seal::open(key, sealed) {
            Ok(value) if key_of(&BlobRow::decode(&value)?.key) == ring.active() => {}
            Ok(_) => rewrap(txn, ring, key).await?,
            Err(_) => job.is_short = true,
        }
    }
    match page.rows.last() {
        Some((last, _)) if page.more => {
            job.cursor = keys::after(last);
            set_rewrap_row(txn, &job);
            return Ok(true);
        }
        _ if job.walked && !job.is_short => txn.clear(&keys::meta("rewrap")),
        _ => set_rewrap_row(txn, &RewrapRow { walked: true, cursor: Vec::new(), is_short: false, ..job }),
    }
    Ok(false)
}

async fn rewrap(txn: &mut Transaction<'_>, ring: &KeyRing, key: &[u8]) -> Result<(), Error> {
    let blob: BlobId = KeyParts::of(key).blob().ok_or_else(|| Error::Corrupt("a key of a blob".to_owned()))?;
    let state = keys::blob_state(&blob);
    let Some(value) = txn.get(&state).await? else {
        return Ok(());
    };
    let mut row = BlobRow::decode(&value)?;
    row.key = ring.wrap(&blob, &ring.unwrap(&blob, &row.key)?)?;
    txn.set(&state, &row.encode());
    Ok(())
}
