//! Reads every body once in a while at a bounded rate and says which are damaged, long before somebody needs them.
//!
//! How far it has come is a row, so that a restart goes on and two nodes don't do the same. It deletes and mends nothing:
//! what a damaged body needs is a decision, and a backup.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use prost::Message as _;
use tokio::time::Instant;

use super::Blobs;
use super::pace::Pace;
use super::row::BlobRow;
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::seal;
use crate::store::Store;
use crate::transaction::Transaction;

/// Bodies verified between two notes of how far it is.
const STEP: usize = 32;
/// Octets of a body read at once.
const PIECE: u64 = 1 << 20;
/// The layout of the row.
const VERSION: u8 = 1;

/// How far a pass over all bodies has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ScrubRow {
    /// When the pass began, in Unix milliseconds.
    #[prost(uint64, tag = "1")]
    began_at: u64,
    /// The first key not verified yet; empty when the pass is over.
    #[prost(bytes = "vec", tag = "2")]
    cursor: Vec<u8>,
    #[prost(uint64, tag = "3")]
    bodies: u64,
    #[prost(uint64, tag = "4")]
    octets: u64,
    #[prost(uint64, tag = "5")]
    damaged: u64,
}

/// The state of the pass when the work paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubReport {
    pub bodies: u64,
    pub octets: u64,
    pub damaged: u64,
    /// The pass is not over.
    pub more: bool,
}

/// Goes on with the pass under way, or begins one when it is time, for at most `slice`.
pub(crate) async fn run(
    store: &Store,
    blobs: &Arc<Blobs>,
    now: UnixMillis,
    slice: Duration,
) -> Result<ScrubReport, Error> {
    let until = Instant::now() + slice;
    let mut pace = Pace::new(blobs.background_rate);
    let mut row = read(&mut store.snapshot()).await?;
    let interval = u64::try_from(blobs.scrub_interval.as_millis()).unwrap_or(u64::MAX);
    let is_over = row.as_ref().is_none_or(|row| row.cursor.is_empty());
    if is_over && row.as_ref().is_none_or(|row| now.0 >= row.began_at.saturating_add(interval)) {
        let fresh = ScrubRow { began_at: now.0, cursor: keys::blob_states().begin, ..ScrubRow::default() };
        row = advance(store, row, fresh).await?;
    }
    let Some(mut row) = row else {
        return Ok(ScrubReport { bodies: 0, octets: 0, damaged: 0, more: false });
    };
    while !row.cursor.is_empty() && Instant::now() < until {
        let next = step(store, blobs, row.clone(), &mut pace).await?;
        let is_end = next.cursor.is_empty();
        // Without a next row another node has gone on with it.
        let Some(noted) = advance(store, Some(row.clone()), next).await? else { break };
        row = noted;
        emit(event::ScrubAdvanced { permille: permille(&row.cursor) });
        if is_end {
            emit(event::ScrubFinished { bodies: row.bodies, octets: row.octets, damaged: row.damaged });
        }
    }
    let ScrubRow { bodies, octets, damaged, .. } = row;
    Ok(ScrubReport { bodies, octets, damaged, more: !row.cursor.is_empty() })
}

/// Verifies the next bodies and returns where that leads.
async fn step(store: &Store, blobs: &Arc<Blobs>, mut row: ScrubRow, pace: &mut Pace) -> Result<ScrubRow, Error> {
    let end = keys::blob_states().end;
    // As they lie: a row that is not what was written is a body damaged, and no end of the walk.
    let page = store.snapshot().range_sealed(RangeRequest::new(&row.cursor, &end).limit(STEP)).await?;
    for (key, value) in &page.rows {
        let blob = KeyParts::of(key).blob().ok_or_else(|| Error::Corrupt("a key of a blob".to_owned()))?;
        row.bodies += 1;
        match verify(blobs, blob, (key, value), pace).await {
            Ok(octets) => row.octets += octets,
            // Swept meanwhile.
            Err(Error::NotFound) => {}
            Err(Error::Corrupt(reason)) => {
                row.damaged += 1;
                emit(event::BodyDamaged { blob: blob.to_string(), reason });
            }
            // A key or a disk that is away says nothing about the body.
            Err(error) => return Err(error),
        }
    }
    row.cursor = match page.rows.last() {
        Some((last, _)) if page.more => keys::after(last),
        _ => Vec::new(),
    };
    Ok(row)
}

/// Reads a body to its end and compares it with its name.
async fn verify(
    blobs: &Arc<Blobs>,
    blob: BlobId,
    (key, sealed): (&[u8], &Bytes),
    pace: &mut Pace,
) -> Result<u64, Error> {
    let row = BlobRow::decode(&seal::open(key, sealed)?)?;
    let (size, mut hasher) = (row.size, blobs.hasher());
    let mut offset = 0;
    while offset < size {
        let end = size.min(offset + PIECE);
        let piece = blobs.read_following(&blob, row.clone(), offset..end).await?;
        pace.spend(end - offset).await;
        hasher.update(&piece);
        offset = end;
    }
    emit(event::BodyVerified { octets: size });
    match hasher.finalize().as_bytes() == blob.as_bytes() {
        true => Ok(size),
        false => Err(Error::Corrupt("the body is not the one that its name stands for".to_owned())),
    }
}

async fn read(txn: &mut Transaction<'_>) -> Result<Option<ScrubRow>, Error> {
    match txn.get(&keys::meta("scrub")).await?.as_deref() {
        None => Ok(None),
        Some([VERSION, row @ ..]) => {
            ScrubRow::decode(row).map(Some).map_err(|_| Error::Corrupt("the scrub row".to_owned()))
        }
        Some(_) => Err(Error::Corrupt("the scrub row has an unknown version".to_owned())),
    }
}

/// Notes the progress; `None` when another node has gone on meanwhile.
async fn advance(store: &Store, from: Option<ScrubRow>, to: ScrubRow) -> Result<Option<ScrubRow>, Error> {
    let (from, to) = (&from, &to);
    let noted = store.transact(|txn| {
        Box::pin(async move {
            let now = read(txn).await?;
            // A repeat after an unknown outcome finds its own row.
            if now.as_ref() != Some(to) {
                if now != *from {
                    return Ok(false);
                }
                txn.set(&keys::meta("scrub"), &[&[VERSION], to.encode_to_vec().as_slice()].concat());
            }
            Ok(true)
        })
    });
    Ok(noted.await?.then(|| to.clone()))
}

/// How far a cursor is: names of bodies are hashes, spread evenly.
fn permille(cursor: &[u8]) -> i64 {
    match cursor {
        [] => 1000,
        [_, high, low, ..] => i64::from(u16::from_be_bytes([*high, *low])) * 1000 / (1 << 16),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_by_the_names_of_bodies() {
        assert_eq!(permille(&keys::blob_states().begin), 0);
        assert_eq!(permille(&keys::blob_state(&BlobId::new([0x80; 32]))), 501);
        assert_eq!(permille(&[]), 1000);
    }
}
