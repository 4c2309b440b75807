//! Puts a body that was staged anew in the place of an equal one that cannot be read any more.
//!
//! Equal content is kept once, by its name: what a backup brings back would otherwise only refer to the damaged body that is
//! there. Whoever else holds that body has it again as well.

use std::sync::Arc;

use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::row::BlobRow;
use super::{Blobs, StagedBody, insert, sweep};
use crate::error::Error;
use crate::keys;
use crate::store::Store;
use crate::transaction::Transaction;

/// Octets of a body read at once.
const PIECE: u64 = 1 << 20;

/// Whether the stored body was damaged, and is replaced.
pub(crate) async fn run(store: &Store, blobs: &Arc<Blobs>, staged: &StagedBody) -> Result<bool, Error> {
    let old = match blobs.row(&staged.body.blob).await {
        Ok(None) => return Ok(false),
        Ok(Some(row)) if row == staged.staged.row() || is_right(blobs, staged, &row).await? => return Ok(false),
        Ok(Some(row)) => Some(row),
        // Nobody can say any more where that body lies: what it took up stays until the segments are counted anew.
        Err(Error::Corrupt(_)) => None,
        Err(error) => return Err(error),
    };
    let old = old.as_ref();
    let is_done = store.transact(|txn| Box::pin(replace(txn, staged, old))).await?;
    if is_done {
        emit(event::BodyHealed { blob: staged.body.blob.to_string() });
    }
    Ok(is_done)
}

/// Whether what lies where the row says is the body. One that goes meanwhile stands in nobody's way.
async fn is_right(blobs: &Arc<Blobs>, staged: &StagedBody, row: &BlobRow) -> Result<bool, Error> {
    let (blob, mut hasher, mut offset) = (staged.body.blob, blobs.hasher(), 0);
    while offset < row.size {
        let end = row.size.min(offset + PIECE);
        match blobs.read_following(&blob, row.clone(), offset..end).await {
            Ok(piece) => hasher.update(&piece),
            Err(Error::Corrupt(_)) => return Ok(false),
            Err(Error::NotFound) => return Ok(true),
            Err(error) => return Err(error),
        };
        offset = end;
    }
    Ok(hasher.finalize().as_bytes() == blob.as_bytes())
}

/// Whether the row is that of the staged body now; `old` is what stood there, if it could be read.
async fn replace(txn: &mut Transaction<'_>, staged: &StagedBody, old: Option<&BlobRow>) -> Result<bool, Error> {
    let value = match txn.get(&keys::blob_state(&staged.body.blob)).await {
        // Freed meanwhile.
        Ok(None) => return Ok(false),
        Ok(Some(value)) => BlobRow::decode(&value),
        Err(error) => Err(error),
    };
    let now = match value {
        Ok(row) => Some(row),
        Err(Error::Corrupt(_)) => None,
        Err(error) => return Err(error),
    };
    // A repeat after an unknown outcome finds its own row.
    if now.as_ref() == Some(&staged.staged.row()) {
        return Ok(true);
    }
    // Moved or replaced by another meanwhile.
    if now.as_ref() != old {
        return Ok(false);
    }
    if let Some(old) = old {
        sweep::vacate(txn, old)?;
    }
    insert(txn, staged).await?;
    Ok(true)
}
