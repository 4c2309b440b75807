//! Proof that a request was done: written with what it did, read before anything else by whoever repeats it.
//!
//! Rows are sorted by the time that their request's id begins with, so that expired ones are swept as one range. A row
//! must outlive every repeat of its request: `storage.done_ttl` is longer than any message stays in spool or queue.

use posthouse_mail::{AccountId, IngestId, UnixMillis};

use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyRange};
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

/// Proves a request that `AccountState::will_prove` has counted.
pub(crate) fn record(
    txn: &mut Transaction<'_>,
    account: AccountId,
    (request, item): (IngestId, u32),
    row: &DoneRow,
) -> Result<(), Error> {
    codec::insert(txn, &keys::done(account, request, item), row)
}

/// Proofs removed in one transaction.
const SWEEP_MAX: usize = 1000;

/// Removes proofs of requests that were made before a time; whether more are left.
pub async fn sweep(store: &Store, writer: &Writer, before: UnixMillis) -> Result<bool, Error> {
    writer.run(store, |txn| boxed(sweep_in(txn, writer, before))).await
}

async fn sweep_in(txn: &mut Transaction<'_>, writer: &Writer, before: UnixMillis) -> Result<bool, Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    let page = codec::page(txn, &keys::dones_before(writer.account, before), SWEEP_MAX).await?;
    for (key, _) in &page.rows {
        for range in [keys::chunks(key), KeyRange { begin: key.to_vec(), end: keys::after(key) }] {
            txn.clear_range(&range.begin, &range.end);
        }
    }
    // A sweep that finds nothing costs no commit.
    if !page.rows.is_empty() {
        let row = account.touch();
        row.done_count = row.done_count.saturating_sub(u64::try_from(page.rows.len()).unwrap_or(u64::MAX));
    }
    account.save(txn)?;
    Ok(page.more)
}
