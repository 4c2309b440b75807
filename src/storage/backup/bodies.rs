//! Bodies go into the target: those that it does not hold yet, in ascending order of their ids.
//!
//! A run does this twice. The first time most octets go over, while accounts change; the second, right after the accounts
//! were taken, adds what they name and the first had not seen. So whatever an account's image names is there, as long as
//! the accounts were taken within `storage.blob_retention`.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use posthouse_mail::BlobId;
use posthouse_mail::stage::BodyRef;

use super::damage::Damage;
use super::known::Ascending;
use super::lock::Lock;
use super::pack::PackWriter;
use super::record::PackRow;
use super::seal::CONTENT_MAX;
use super::target::Target;
use super::{Phase, Progress, Step};
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::store::Store;

/// Ids looked at in one snapshot.
const STEP: usize = 500;

/// What became of the bodies.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    /// Every pack with a body of the store, those written now included.
    pub packs: Vec<PackRow>,
    /// Names of the packs that were written now.
    pub written: Vec<String>,
    pub bodies: u64,
    pub octets: u64,
    /// Bodies that the store itself can no longer read.
    pub damaged: Damage,
}

/// One walk over all bodies of the store.
pub(crate) async fn take(
    store: &Store,
    (target, lock): (&Target, &Lock),
    packs: Vec<PackRow>,
    progress: Progress<'_>,
) -> Result<Bodies, Error> {
    let mut walk = Walk { store, target, lock, writer: None, taken: Bodies::default() };
    let mut known = Ascending::new(target, lock, packs);
    let mut range = keys::blob_states();
    loop {
        // A snapshot for each page: no snapshot lives long.
        // By their keys alone: a row that cannot be read is told when its body is, and those behind it are taken.
        let request = RangeRequest::new(&range.begin, &range.end).limit(STEP);
        let page = store.snapshot().range_sealed(request).await?;
        let mut missing = Vec::new();
        for (key, _) in &page.rows {
            let blob = KeyParts::of(key).blob().ok_or_else(|| Error::Corrupt("a blob's key".to_owned()))?;
            if !known.holds(&blob).await? {
                missing.push(blob);
            }
        }
        walk.write(missing).await?;
        lock.renew().await?;
        let Some((key, _)) = page.rows.last() else { break };
        progress(&walk.step(key));
        if !page.more {
            break;
        }
        range.begin = keys::after(key);
    }
    walk.end_pack().await?;
    walk.taken.packs.extend(known.finish());
    Ok(walk.taken)
}

struct Walk<'a> {
    store: &'a Store,
    target: &'a Target,
    lock: &'a Lock,
    writer: Option<PackWriter>,
    taken: Bodies,
}

impl Walk<'_> {
    /// Writes the bodies of these ids, read ahead of the writing.
    async fn write(&mut self, blobs: Vec<BlobId>) -> Result<(), Error> {
        let store = self.store.clone();
        let read = blobs.into_iter().map(|blob| {
            let store = store.clone();
            async move { (blob, piece(&store, &blob, 0).await) }
        });
        let mut read = Box::pin(stream::iter(read).buffered(self.target.settings.read_ahead.max(1)));
        while let Some((blob, first)) = read.next().await {
            match first {
                Ok(first) => self.body(blob, first).await?,
                // The sweeper was here between the list and the read.
                Err(Error::NotFound) => {}
                Err(Error::Corrupt(_)) => self.note_damage(blob),
                Err(error) => return Err(error),
            }
            self.lock.renew().await?;
        }
        Ok(())
    }

    async fn body(&mut self, blob: BlobId, first: Bytes) -> Result<(), Error> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => PackWriter::begin(self.target).await?,
        };
        writer.begin_body(&blob);
        if self.pieces(&mut writer, &blob, first).await? {
            self.taken.bodies += 1;
        } else {
            writer.abandon_body();
            self.note_damage(blob);
        }
        let is_full = writer.is_full(self.target.settings.pack_max.get());
        self.writer = Some(writer);
        if is_full { self.end_pack().await } else { Ok(()) }
    }

    /// Writes a body piece by piece; whether it could be read to its end.
    async fn pieces(&mut self, writer: &mut PackWriter, blob: &BlobId, first: Bytes) -> Result<bool, Error> {
        let mut next = first;
        let mut at = 0;
        loop {
            let length = next.len();
            at += u64::try_from(length).unwrap_or(u64::MAX);
            self.taken.octets += u64::try_from(length).unwrap_or(u64::MAX);
            writer.piece(next).await?;
            self.lock.renew().await?;
            if length < CONTENT_MAX {
                return Ok(true);
            }
            next = match piece(self.store, blob, at).await {
                Ok(next) => next,
                Err(Error::Corrupt(_) | Error::NotFound) => return Ok(false),
                Err(error) => return Err(error),
            };
        }
    }

    async fn end_pack(&mut self) -> Result<(), Error> {
        if let Some(writer) = self.writer.take().filter(|writer| !writer.is_empty()) {
            let pack = writer.finish().await?;
            self.taken.written.push(pack.name.clone());
            self.taken.packs.push(pack);
        }
        Ok(())
    }

    fn note_damage(&mut self, blob: BlobId) {
        self.taken.damaged.add(format!("the body {blob}"));
    }

    /// Ids are hashes: how far a walk is can be read from the first octets of one.
    fn step(&self, key: &[u8]) -> Step {
        let done = KeyParts::of(key).blob().map_or(0, |blob| {
            let [high, low, ..] = *blob.as_bytes();
            u64::from(u16::from_be_bytes([high, low]))
        });
        let Bodies { bodies, octets, .. } = self.taken;
        Step { done, total: 1 << 16, bodies, octets, ..Step::of(Phase::Bodies) }
    }
}

/// At most a frame of a body, from an offset on.
async fn piece(store: &Store, blob: &BlobId, at: u64) -> Result<Bytes, Error> {
    // The store cuts at the body's own end; an id is all that finds it.
    let body = BodyRef { blob: *blob, size: u64::MAX };
    store.body_read(&body, at..at.saturating_add(CONTENT_MAX as u64)).await
}
