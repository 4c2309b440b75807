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
        transact(&self.engine, self.retry, |txn| Box::pin(put_in(txn, stage, first, frames))).await
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

async fn put_in(txn: &mut Transaction<'_>, stage: Stage, first: u32, frames: &[Bytes]) -> Result<(), Error> {
    match first {
        0 => {
            let row = keys::blob_stage(stage.at, &stage.id);
            // A commit of unknown outcome may still be on its way when it is repeated. Were it blind, it could come last and
            // put the row back beside a blob that has these chunks by then; the sweeper would take them from it.
            txn.add_read_conflict(&row, &keys::after(&row));
            txn.set(&row, &[]);
        }
        _ => expect_open(txn, stage).await?,
    }
    for (number, frame) in (first..).zip(frames) {
        txn.set(&keys::blob_chunk(&stage.id, number), frame);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Embedded, Isolation, KvTxn as _};

    const STAGE: Stage = Stage { id: StageId::new([7; 16]), at: UnixMillis(1) };

    #[tokio::test]
    async fn a_late_first_write_does_not_put_a_stage_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Embedded::open(dir.path(), &posthouse_conf::Storage::default()).await.expect("an engine");
        let engine = Engine::Embedded(engine);
        let retry = Retry { tries_max: 3, timeout: std::time::Duration::from_secs(20) };
        let rows = Rows::new(engine.clone(), retry);
        let frames = [Bytes::from_static(b"frame")];
        // Its commit is under way, and its caller gave up waiting.
        let mut late = engine.begin();
        late.read_version().await.expect("a version");
        let mut late = Transaction::new(late);
        put_in(&mut late, STAGE, 0, &frames).await.expect("buffered");
        rows.put(STAGE, 0, &frames).await.expect("the repeat");
        transact(&engine, retry, |txn| Box::pin(adopt(txn, STAGE))).await.expect("adopted");
        assert_eq!(late.commit().await.map(drop), Err(Error::Conflict));
        assert_eq!(engine.begin().get(&keys::blob_stage(STAGE.at, &STAGE.id), Isolation::Snapshot).await, Ok(None));
    }
}
