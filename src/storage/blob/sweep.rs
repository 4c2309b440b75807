//! Frees what nothing refers to any more: references released long ago, bodies staged and never referred to, chunks of
//! stages given up, and segment files in which no blob is left.
//!
//! Every step is a small transaction of its own that proves again what it acts on, so that a sweep may run beside all
//! else, stop anywhere and run twice.

use bytes::Bytes;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::place::Place;
use super::row::BlobRow;
use super::{Blobs, rotation, rows, tier};
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts, KeyRange};
use crate::store::Store;
use crate::transaction::Transaction;

/// Rows looked at in one transaction.
const STEP: usize = 128;

/// What one sweep freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// References whose retention was over, and staged bodies whose time was.
    pub rows: usize,
    pub blobs: usize,
    pub segments: usize,
    /// Octets of segment files removed.
    pub octets: u64,
}

pub(crate) struct Sweeper<'a> {
    store: &'a Store,
    blobs: &'a Blobs,
}

impl<'a> Sweeper<'a> {
    pub(crate) fn new(store: &'a Store, blobs: &'a Blobs) -> Self {
        Self { store, blobs }
    }

    pub(crate) async fn run(&self, now: UnixMillis) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        let released = keys::blob_tombstones_before(before(now, self.blobs.retention));
        let staged = keys::blob_stageds_before(before(now, self.blobs.staged_ttl));
        for (due, is_tombstone) in [(&released, true), (&staged, false)] {
            loop {
                let step = self.store.transact(|txn| Box::pin(free_due(txn, due, is_tombstone))).await?;
                report.rows += step.rows;
                report.blobs += step.blobs;
                for (blob, reason) in step.damaged {
                    emit(event::BodyDamaged { blob: blob.to_string(), reason });
                }
                if step.rows < STEP {
                    break;
                }
            }
        }
        self.clear_stages(now).await?;
        (report.segments, report.octets) = self.unlink_dead().await?;
        let SweepReport { blobs, segments, octets, .. } = report;
        if blobs + segments > 0 {
            emit(event::StoreSwept { blobs, segments, octets });
        }
        // Last: a key that is away must not keep what is dead from going.
        rotation::follow(self.store, &self.blobs.keys, now, self.blobs.staged_ttl).await?;
        Ok(report)
    }

    /// Removes chunk rows of stages that were given up.
    async fn clear_stages(&self, now: UnixMillis) -> Result<(), Error> {
        let due = &keys::blob_stages_before(before(now, self.blobs.staged_ttl));
        while self.store.transact(|txn| Box::pin(clear_due_stages(txn, due))).await? == STEP {}
        Ok(())
    }

    /// Removes segment files without a live blob; how many, and their octets. A sealed segment gets no new one, so that zero stays zero.
    pub(crate) async fn unlink_dead(&self) -> Result<(usize, u64), Error> {
        let Place::Segments(files) = &self.blobs.place else {
            return Ok((0, 0));
        };
        let (segments, mut count, mut octets) = (files.clone(), 0, 0);
        // The list comes before the counters: what was committed into a listed segment is counted by then.
        let sealed = self.blobs.blocking(move || segments.sealed()).await?;
        for number in sealed {
            if self.store.live_octets(number).await? != 0 {
                continue;
            }
            let segments = files.clone();
            octets += self.blobs.blocking(move || segments.unlink(number)).await?;
            count += 1;
            self.store
                .transact(|txn| {
                    Box::pin(async move {
                        txn.clear(&keys::segment(number));
                        Ok(())
                    })
                })
                .await?;
        }
        Ok((count, octets))
    }
}

fn before(now: UnixMillis, wait: std::time::Duration) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
}

/// What one step of a sweep did.
#[derive(Default)]
struct Freed {
    rows: usize,
    blobs: usize,
    /// What has a row that cannot be read: it stays, without the line that named it here, for whoever mends the store.
    damaged: Vec<(BlobId, String)>,
}

/// Works off the first due rows of a time index. They are known by their keys alone.
async fn free_due(txn: &mut Transaction<'_>, due: &KeyRange, is_tombstone: bool) -> Result<Freed, Error> {
    let mut freed = Freed::default();
    let page = txn.range_sealed(RangeRequest::new(&due.begin, &due.end).limit(STEP)).await?;
    for (key, _) in &page.rows {
        freed.rows += 1;
        txn.clear(key);
        let mut parts = KeyParts::of(key);
        let owner = if is_tombstone { parts.owner() } else { None };
        let (Some(blob), Some(at)) = (parts.blob(), parts.u64()) else {
            return Err(Error::Corrupt("a key in the time index of blobs".to_owned()));
        };
        match free_one(txn, &blob, owner.map(|owner| (owner, at))).await {
            Ok(is_freed) => freed.blobs += usize::from(is_freed),
            // One row that is damaged must not keep all the others for ever.
            Err(Error::Corrupt(reason)) => freed.damaged.push((blob, reason)),
            Err(error) => return Err(error),
        }
    }
    Ok(freed)
}

/// Drops a reference that was released at a time, if it still is, and then the blob if that was the last.
async fn free_one(txn: &mut Transaction<'_>, blob: &BlobId, released: Option<(BlobOwner, u64)>) -> Result<bool, Error> {
    if let Some((owner, at)) = released {
        let reference = keys::blob_ref(blob, owner);
        // The reference may have come back to life, or been released again later.
        match txn.get(&reference).await? {
            Some(value) if *value == at.to_be_bytes() => txn.clear(&reference),
            _ => return Ok(false),
        }
    }
    free_unreferenced(txn, blob).await
}

/// Removes the first due stages with their chunks and returns how many there were.
async fn clear_due_stages(txn: &mut Transaction<'_>, due: &KeyRange) -> Result<usize, Error> {
    let page = txn.range_sealed(RangeRequest::new(&due.begin, &due.end).limit(STEP)).await?;
    for (key, _) in &page.rows {
        let stage = KeyParts::of(key).stage();
        rows::clear(txn, &stage.ok_or_else(|| Error::Corrupt("a key of a stage".to_owned()))?);
        txn.clear(key);
    }
    Ok(page.rows.len())
}

/// Gives up the places where a body's frames lie.
pub(super) fn vacate(txn: &mut Transaction<'_>, row: &BlobRow) -> Result<(), Error> {
    for (segment, stored) in row.stored_in_segments() {
        txn.atomic_add(&keys::segment(segment), -stored);
    }
    if row.chunks > 0 {
        rows::clear(txn, &row.stage()?);
    }
    if !row.object.is_empty() {
        tier::free(txn, row)?;
    }
    Ok(())
}

/// Deletes a blob's row if no reference is left, not even a tombstone.
async fn free_unreferenced(txn: &mut Transaction<'_>, blob: &BlobId) -> Result<bool, Error> {
    let state = keys::blob_state(blob);
    let Some(value): Option<Bytes> = txn.get(&state).await? else {
        return Ok(false);
    };
    let refs = keys::blob_refs(blob);
    if !txn.range_sealed(RangeRequest::new(&refs.begin, &refs.end).limit(1)).await?.rows.is_empty() {
        return Ok(false);
    }
    vacate(txn, &BlobRow::decode(&value)?)?;
    txn.clear(&keys::large_blob(blob));
    txn.clear(&state);
    Ok(true)
}
