//! Moves what still lives out of segments that are mostly dead, so that their files can go while the store serves.
//!
//! A body's frames are copied as they are, which needs no key; its row follows in a transaction that fails if the row
//! changed meanwhile. Whoever holds the older row either still has the file open or finds it gone, and then reads the row
//! again. The file itself is removed by the sweep, once nothing in it lives: the rows are durable by then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::Blobs;
use super::frame::{self, FrameId};
use super::pace::Pace;
use super::place::stored_frame;
use super::row::{BlobRow, Placed};
use super::rows::Stage;
use super::segment::{SegmentNumber, Segments};
use super::staged::{Content, Run, Staged, StagedBody};
use super::writer::{append, sync};
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::seal;
use crate::store::Store;

/// Octets of rows looked at in one step.
const STEP: usize = 256 << 10;

/// What one pass moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RewriteReport {
    /// Segments of which more than half was dead.
    pub segments: usize,
    /// Bodies moved out of them.
    pub bodies: usize,
    pub octets: u64,
}

/// Empties the segments that are more than half dead.
pub(crate) async fn run(store: &Store, blobs: &Arc<Blobs>, segments: &Arc<Segments>) -> Result<RewriteReport, Error> {
    let mut report = RewriteReport::default();
    let victims = mostly_dead(store, blobs, segments).await?;
    report.segments = victims.len();
    if victims.is_empty() {
        return Ok(report);
    }
    let mut pace = Pace::new(blobs.background_rate);
    let mut range = keys::blob_states();
    loop {
        let page = store.snapshot().range_sealed(RangeRequest::new(&range.begin, &range.end).bytes(STEP)).await?;
        for (key, sealed) in &page.rows {
            // A row that is not what was written keeps its segment, whichever that is; a scrub tells of it.
            let row = match seal::open(key, sealed) {
                Ok(value) => BlobRow::decode(&value)?,
                Err(_) => continue,
            };
            if !row.placed().any(|placed| victims.contains(&placed.segment)) {
                continue;
            }
            let blob = KeyParts::of(key).blob().ok_or_else(|| Error::Corrupt("a key of a blob".to_owned()))?;
            let octets: u64 = row.stored.iter().map(|stored| u64::from(*stored)).sum();
            match relocate(store, blobs, segments, (blob, row)).await {
                Ok(true) => {
                    report.bodies += 1;
                    report.octets += octets;
                }
                Ok(false) => {}
                // It stays where it is, and its segment with it, for whoever mends it.
                Err(Error::Corrupt(reason)) => emit(event::BodyDamaged { blob: blob.to_string(), reason }),
                Err(error) => return Err(error),
            }
            pace.spend(octets).await;
        }
        match page.rows.last() {
            Some((last, _)) if page.more => range.begin = keys::after(last),
            _ => break,
        }
    }
    emit(event::SegmentsRewritten { segments: report.segments, bodies: report.bodies, octets: report.octets });
    Ok(report)
}

async fn mostly_dead(store: &Store, blobs: &Blobs, segments: &Arc<Segments>) -> Result<HashSet<SegmentNumber>, Error> {
    let files = segments.clone();
    let sealed = blobs.blocking(move || files.sealed_sizes()).await?;
    let mut victims = HashSet::new();
    for (number, octets) in sealed {
        let live = u64::try_from(store.live_octets(number).await?).unwrap_or(0);
        // What holds nothing at all is the sweep's.
        if live > 0 && live < octets / 2 {
            victims.insert(number);
        }
    }
    Ok(victims)
}

/// Copies a body and makes its row follow; whether it did.
async fn relocate(
    store: &Store,
    blobs: &Arc<Blobs>,
    segments: &Arc<Segments>,
    (blob, row): (BlobId, BlobRow),
) -> Result<bool, Error> {
    let (files, from) = (segments.clone(), row.clone());
    let copied = blobs.blocking(move || copy(&files, &from)).await;
    let runs = match copied {
        Ok(runs) => sync(&runs).await.map(|()| runs)?,
        // Swept, or moved by another pass.
        Err(Error::Corrupt(_)) if blobs.row(&blob).await?.as_ref() != Some(&row) => return Ok(false),
        Err(error) => return Err(error),
    };
    let staged = StagedBody {
        body: BodyRef { blob, size: row.size },
        staged: Arc::new(Staged {
            body: BodyRef { blob, size: row.size },
            stage: Stage { id: row.stage()?, at: UnixMillis(0) },
            content: Content::Runs(runs),
            key: row.key.clone(),
            is_durable: AtomicBool::new(true),
            blobs: blobs.clone(),
        }),
    };
    let (old, new) = (&row, &staged.staged.row());
    let moved = store.transact(|txn| {
        let staged = staged.clone();
        Box::pin(async move {
            let state = keys::blob_state(&blob);
            // A repeat after an unknown outcome finds its own row.
            match txn.get(&state).await?.map(|value| BlobRow::decode(&value)).transpose()? {
                Some(row) if row == *new => return Ok(true),
                Some(row) if row == *old => {}
                _ => return Ok(false),
            }
            txn.set(&state, &new.encode());
            for (segment, stored) in old.stored_in_segments() {
                txn.atomic_add(&keys::segment(segment), -stored);
            }
            for (segment, stored) in new.stored_in_segments() {
                txn.atomic_add(&keys::segment(segment), stored);
            }
            txn.make_durable(&staged);
            Ok(true)
        })
    });
    moved.await
}

/// Copies the frames of a body to new places.
fn copy(segments: &Segments, row: &BlobRow) -> Result<Vec<Run>, Error> {
    let (stage, mut runs) = (row.stage()?, Vec::new());
    for placed in row.placed() {
        let octets = stored_frame(segments, placed)?;
        let Placed { segment, offset, index, .. } = placed;
        frame::verify(&octets, FrameId { stage, index }).map_err(|reason| segments.damaged(segment, offset, reason))?;
        append(segments, &mut runs, &octets)?;
    }
    Ok(runs)
}
