//! Proof that a request was done: written with what it did, read before anything else by whoever repeats it.
//!
//! Rows are sorted by the time that their request's id begins with, so that expired ones are swept as one range. A row
//! must outlive every repeat of its request: `storage.done_ttl` is longer than any message stays in spool or queue.

use posthouse_mail::{AccountId, IngestId, UnixMillis};

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::DoneRow;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// What came of a request, if it was done.
pub(crate) async fn find(
    txn: &mut Transaction<'_>,
    account: AccountId,
    request: IngestId,
    item: u32,
) -> Result<Option<DoneRow>, Error> {
    codec::get(txn, &keys::done(account, request, item)).await
}

/// Proves a request.
pub(crate) fn record(
    txn: &mut Transaction<'_>,
    account: AccountId,
    (request, item): (IngestId, u32),
    row: &DoneRow,
) -> Result<(), Error> {
    codec::insert(txn, &keys::done(account, request, item), row)
}

/// Removes the proofs of requests that were made before a time.
pub async fn sweep(store: &Store, writer: &Writer, before: UnixMillis) -> Result<(), Error> {
    writer.run(store, |txn| boxed(sweep_in(txn, writer, before))).await
}

async fn sweep_in(txn: &mut Transaction<'_>, writer: &Writer, before: UnixMillis) -> Result<(), Error> {
    AccountState::open_any(txn, writer).await?;
    let expired = keys::dones_before(writer.account, before);
    // A sweep that finds nothing costs no commit.
    if !codec::any(txn, &expired).await? {
        return Ok(());
    }
    for range in [keys::chunks_within(&expired), expired] {
        txn.clear_range(&range.begin, &range.end);
    }
    Ok(())
}
