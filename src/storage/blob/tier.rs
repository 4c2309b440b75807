//! Brings large bodies from the store's own place to the object store, and removes objects that no body has.
//!
//! A large body is accepted as any other, so that an object store that is slow or away never keeps mail from being taken;
//! it moves later, its frames as they are. An *object row* is written before the first octet is sent and taken away by the
//! transaction that makes the blob's row name the object: whatever an upload that failed half-way left behind is named by
//! such a row. A freed blob writes one too, so that its object goes in the same way.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::Blobs;
use super::frame::{self, FrameId, StageId};
use super::object::{ObjectId, Objects};
use super::pace::Pace;
use super::place::{Place, fetched_frames, no_segments, stored_frame};
use super::row::{BlobRow, Placed};
use super::rows;
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::store::Store;
use crate::transaction::Transaction;

/// Rows looked at in one step.
const STEP: usize = 64;
/// Objects that could not be removed before a pass leaves the others to the next: each may have cost a deadline.
const REFUSED_MAX: usize = 8;
/// Value of an object row whose object is to be removed; an upload under way has none.
const DEAD: &[u8] = &[1];

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierReport {
    /// Bodies that lie in the object store now.
    pub moved: usize,
    pub octets: u64,
    /// Objects removed.
    pub removed: usize,
}

/// One pass: moves what waits, removes what is due.
pub(crate) async fn run(
    store: &Store,
    blobs: &Arc<Blobs>,
    objects: &Objects,
    now: UnixMillis,
) -> Result<TierReport, Error> {
    let mut report = TierReport { removed: remove_due(store, blobs, objects, now).await?, ..TierReport::default() };
    let mut pace = Pace::new(blobs.background_rate);
    let mut range = keys::large_blobs();
    loop {
        let page = store.snapshot().range_sealed(RangeRequest::new(&range.begin, &range.end).limit(STEP)).await?;
        for (key, _) in &page.rows {
            let blob = KeyParts::of(key).blob().ok_or_else(|| Error::Corrupt("a key of a blob".to_owned()))?;
            if let Some(octets) = bring(store, blobs, objects, blob, now).await? {
                report.moved += 1;
                report.octets += octets;
                pace.spend(octets).await;
            }
        }
        match page.rows.last() {
            Some((last, _)) if page.more => range.begin = keys::after(last),
            _ => break,
        }
    }
    if report != TierReport::default() {
        emit(event::ObjectsMoved { moved: report.moved, octets: report.octets, removed: report.removed });
    }
    Ok(report)
}

/// Moves one body; its size, unless there was nothing to move.
async fn bring(
    store: &Store,
    blobs: &Arc<Blobs>,
    objects: &Objects,
    blob: BlobId,
    now: UnixMillis,
) -> Result<Option<u64>, Error> {
    let row = match blobs.row(&blob).await {
        Err(Error::Corrupt(reason)) => {
            emit(event::BodyDamaged { blob: blob.to_string(), reason });
            return Ok(None);
        }
        row => row?.filter(|row| row.object.is_empty()),
    };
    let Some(row) = row else {
        store.transact(|txn| Box::pin(forget(txn, blob))).await?;
        return Ok(None);
    };
    let id = ObjectId::new(rand::random());
    store
        .transact(|txn| {
            txn.set(&keys::blob_object(now, &id), &[]);
            Box::pin(async { Ok(()) })
        })
        .await?;
    let stored = match send(blobs, objects, &row, &id).await {
        Ok(stored) => stored,
        Err(Error::Corrupt(reason)) => {
            // It stays where it is until somebody mends it; if it is gone, the next pass forgets it.
            emit(event::BodyDamaged { blob: blob.to_string(), reason });
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let moved = BlobRow {
        extents: Vec::new(),
        chunks: 0,
        stored,
        object: Bytes::copy_from_slice(id.as_bytes()),
        ..row.clone()
    };
    let (old, new) = (&row, &moved);
    let is_done = store.transact(|txn| Box::pin(replace(txn, blob, (old, new), keys::blob_object(now, &id))));
    Ok(is_done.await?.then_some(row.size))
}

/// Sends the frames of a body and returns the octets of each.
async fn send(blobs: &Arc<Blobs>, objects: &Objects, row: &BlobRow, id: &ObjectId) -> Result<Vec<u32>, Error> {
    let mut source = Source::of(blobs, row)?;
    let mut upload = objects.upload(id).await?;
    let mut stored = Vec::new();
    let outcome = loop {
        let frame = match source.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        stored.push(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        if let Err(error) = upload.push(&frame).await {
            break Err(error);
        }
    };
    match outcome {
        Ok(()) => upload.finish().await.map(|()| stored),
        Err(error) => {
            upload.give_up().await;
            Err(error)
        }
    }
}

/// The frames of a body as they lie in the store's own place, in order.
struct Source<'a> {
    blobs: &'a Arc<Blobs>,
    row: &'a BlobRow,
    /// Frames in segments still to come.
    placed: Peekable<std::vec::IntoIter<Placed>>,
    /// Chunk rows, or frames from another node, read ahead.
    ahead: VecDeque<Bytes>,
    index: u32,
}

impl<'a> Source<'a> {
    fn of(blobs: &'a Arc<Blobs>, row: &'a BlobRow) -> Result<Self, Error> {
        Ok(Self {
            blobs,
            row,
            placed: row.placed().collect::<Vec<_>>().into_iter().peekable(),
            ahead: VecDeque::new(),
            index: 0,
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let stage = self.row.stage()?;
        if self.ahead.is_empty() {
            self.read_ahead(&stage).await?;
        }
        let Some(frame) = self.ahead.pop_front() else {
            return Ok(None);
        };
        let index = self.index;
        frame::verify(&frame, FrameId { stage, index }).map_err(|reason| {
            Error::Corrupt(format!("frame {index} of a body on its way to the object store: {reason}"))
        })?;
        self.index += 1;
        Ok(Some(frame))
    }

    /// The next frames; none at the end.
    async fn read_ahead(&mut self, stage: &StageId) -> Result<(), Error> {
        match (self.placed.peek().copied(), &self.blobs.place) {
            (Some(placed), Place::Segments(segments)) => {
                let segments = segments.clone();
                self.placed.next();
                self.ahead.push_back(self.blobs.blocking(move || stored_frame(&segments, placed)).await?);
            }
            (Some(_), Place::Served(served)) => {
                let frames = fetched_frames(served, &mut self.placed).await?;
                self.ahead.extend(frames.into_iter().map(|(_, octets)| octets));
            }
            (Some(_), Place::Rows) => return Err(no_segments()),
            (None, _) if self.index < self.row.chunks => {
                self.ahead.extend(self.blobs.rows.page(stage, self.index, self.row.chunks).await?);
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// Makes the blob's row name the object; whether it does. If the body went or moved meanwhile the object row stays, and
/// the object goes with it.
async fn replace(
    txn: &mut Transaction<'_>,
    blob: BlobId,
    (old, new): (&BlobRow, &BlobRow),
    object: keys::Key,
) -> Result<bool, Error> {
    let state = keys::blob_state(&blob);
    let now = txn.get(&state).await?.map(|value| BlobRow::decode(&value)).transpose()?;
    if now.as_ref() == Some(new) {
        return Ok(true);
    }
    let is_ours = txn.get(&object).await?.is_some_and(|value| value.is_empty());
    if now.as_ref() != Some(old) || !is_ours {
        return Ok(false);
    }
    txn.set(&state, &new.encode());
    for (segment, stored) in old.stored_in_segments() {
        txn.atomic_add(&keys::segment(segment), -stored);
    }
    if old.chunks > 0 {
        rows::clear(txn, &old.stage()?);
    }
    txn.clear(&object);
    txn.clear(&keys::large_blob(&blob));
    Ok(true)
}

/// Takes a blob off the list unless it waits there rightly.
async fn forget(txn: &mut Transaction<'_>, blob: BlobId) -> Result<(), Error> {
    let row = txn.get(&keys::blob_state(&blob)).await?.map(|value| BlobRow::decode(&value)).transpose()?;
    if row.is_none_or(|row| !row.object.is_empty()) {
        txn.clear(&keys::large_blob(&blob));
    }
    Ok(())
}

/// A blob is freed: its object is to be removed.
pub(super) fn free(txn: &mut Transaction<'_>, row: &BlobRow) -> Result<(), Error> {
    txn.set(&keys::blob_object(UnixMillis(0), &row.object()?), DEAD);
    Ok(())
}

/// Removes the objects of freed bodies, and of uploads given up so long ago that none can be under way.
async fn remove_due(store: &Store, blobs: &Arc<Blobs>, objects: &Objects, now: UnixMillis) -> Result<usize, Error> {
    let wait = u64::try_from(blobs.staged_ttl.as_millis()).unwrap_or(u64::MAX);
    let mut due = keys::blob_objects_before(UnixMillis(now.0.saturating_sub(wait)));
    let (mut removed, mut refused) = (0, 0);
    loop {
        let page = store.snapshot().range_sealed(RangeRequest::new(&due.begin, &due.end).limit(STEP)).await?;
        for (key, _) in &page.rows {
            let id = KeyParts::of(key).object().ok_or_else(|| Error::Corrupt("a key of an object".to_owned()))?;
            // From here on no commit can make the object somebody's.
            if store.transact(|txn| Box::pin(condemn(txn, key))).await? {
                if let Err(error) = objects.delete(&id).await {
                    // One that the store keeps, by a lock or a right, holds back neither the others nor what is to move.
                    emit(event::StoreFailed { operation: "remove an object", reason: error.to_string() });
                    refused += 1;
                    if refused == REFUSED_MAX {
                        return Ok(removed);
                    }
                    continue;
                }
                store
                    .transact(|txn| {
                        txn.clear(key);
                        Box::pin(async { Ok(()) })
                    })
                    .await?;
                removed += 1;
            }
        }
        match page.rows.last() {
            Some((last, _)) if page.more => due.begin = keys::after(last),
            _ => return Ok(removed),
        }
    }
}

async fn condemn(txn: &mut Transaction<'_>, key: &[u8]) -> Result<bool, Error> {
    let is_there = txn.get(key).await?.is_some();
    if is_there {
        txn.set(key, DEAD);
    }
    Ok(is_there)
}
