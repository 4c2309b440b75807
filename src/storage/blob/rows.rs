//! Chunk rows: where bodies lie on engines without segments, each frame the value of one row.
//!
//! A body longer than a frame is written in transactions of its own before the one that makes it visible. The first puts a
//! stage row beside the frames; the transaction that writes the blob's row takes it away. So whatever a stage that was
//! given up left behind is named by a stage row, and the sweeper and a late commit can't both have it.

use bytes::Bytes;
use posthouse_mail::UnixMillis;

use super::frame::StageId;
use crate::engine::{Engine, Kv as _, RangeRequest};
use crate::error::Error;
use crate::keys;
use crate::store::{Retry, transact};
use crate::transaction::Transaction;

/// Octets of frames after which they are written: a batch stays well under a megabyte.
pub(crate) const BATCH: usize = 256 << 10;
/// A body of one frame up to this size is committed with the blob's row itself, which saves it a transaction. The
/// deliveries that a mailbox actor merges must stay well under a megabyte together.
pub(crate) const DIRECT_MAX: usize = 8 << 10;

/// One writing of a body, and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) id: StageId,
    pub(crate) at: UnixMillis,
}

/// The chunk rows of an engine.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) engine: Engine,
    retry: Retry,
}

impl Rows {
    pub(crate) fn new(engine: Engine, retry: Retry) -> Self {
        Self { engine, retry }
    }

    /// Writes the frames of a stage from number `first` on, durably.
    pub(crate) async fn put(&self, stage: Stage, first: u32, frames: &[Bytes]) -> Result<(), Error> {
        let written = transact(&self.engine, self.retry, |txn| {
            Box::pin(async move {
                match first {
                    0 => txn.set(&keys::blob_stage(stage.at, &stage.id), &[]),
                    _ => expect_open(txn, stage).await?,
                }
                for (number, frame) in (first..).zip(frames) {
                    txn.set(&keys::blob_chunk(&stage.id, number), frame);
                }
                Ok(())
            })
        });
        written.await
    }

    /// The first frames from `from` on and before `end`: as many as a page holds.
    pub(crate) async fn page(&self, stage: &StageId, from: u32, end: u32) -> Result<Vec<Bytes>, Error> {
        let range = keys::blob_chunks_between(stage, from, end);
        let mut txn = Transaction::snapshot(self.engine.begin());
        let page = txn.range(RangeRequest::new(&range.begin, &range.end)).await?;
        let mut frames = Vec::with_capacity(page.rows.len());
        for (number, (key, frame)) in (from..).zip(page.rows) {
            if *key != *keys::blob_chunk(stage, number) {
                break;
            }
            frames.push(frame);
        }
        if frames.is_empty() {
            return Err(damaged(stage, from, "the row is missing"));
        }
        Ok(frames)
    }
}

pub(crate) fn damaged(stage: &StageId, number: u32, reason: &str) -> Error {
    Error::Corrupt(format!("{}: {reason}", keys::describe(&keys::blob_chunk(stage, number))))
}

/// Ends a stage: its chunks belong to the blob whose row this transaction writes.
pub(crate) async fn adopt(txn: &mut Transaction<'_>, stage: Stage) -> Result<(), Error> {
    expect_open(txn, stage).await?;
    txn.clear(&keys::blob_stage(stage.at, &stage.id));
    Ok(())
}

/// Fails when the sweeper took the stage for given up, or a blob that is gone since had it.
async fn expect_open(txn: &mut Transaction<'_>, stage: Stage) -> Result<(), Error> {
    match txn.get(&keys::blob_stage(stage.at, &stage.id)).await? {
        Some(_) => Ok(()),
        None => Err(Error::Unavailable("the body was written too long ago; it has to be sent again".to_owned())),
    }
}

/// Removes all frames of a stage.
pub(crate) fn clear(txn: &mut Transaction<'_>, stage: &StageId) {
    let chunks = keys::blob_chunks(stage);
    txn.clear_range(&chunks.begin, &chunks.end);
}
