//! What an account's owner tidies up from time to time: expired proofs and changes, deleted mailboxes, a deleted account.
//!
//! Apart so that the mailbox actor has one call for it; each step is a bounded transaction, and the caller comes back
//! while there is more to do.

use std::time::Duration;

use posthouse_mail::UnixMillis;

use crate::error::Error;
use crate::store::Store;
use crate::writer::Writer;
use crate::{account, change_log, done, mailbox};

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Proofs of requests: longer than any message stays in spool or queue.
    pub done: Duration,
    /// Rows of the change log.
    pub changes: Duration,
}

/// Change rows looked at in one transaction.
const CHANGES_AT_ONCE: usize = 500;

/// One bounded step; whether there is more to do at once.
pub async fn account_step(store: &Store, writer: &Writer, keep: Keep) -> Result<bool, Error> {
    match step(store, writer, keep).await {
        // The account itself went.
        Err(Error::NotFound) => Ok(false),
        outcome => outcome,
    }
}

async fn step(store: &Store, writer: &Writer, keep: Keep) -> Result<bool, Error> {
    if account::sweep(store, writer).await? || mailbox::sweep(store, writer).await? {
        return Ok(true);
    }
    let before =
        |kept: Duration| UnixMillis(writer.now.0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
    if done::sweep(store, writer, before(keep.done)).await? {
        return Ok(true);
    }
    change_log::sweep(store, writer, before(keep.changes), CHANGES_AT_ONCE).await
}
