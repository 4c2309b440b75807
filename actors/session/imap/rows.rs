//! Reads the rows of named messages, as one scan where they lie close together.

use posthouse_mail::{AccountId, MailboxId, Uid};
use posthouse_storage::message::{self, Membership};
use posthouse_storage::{Error, Store};

/// A scan may read so many times the rows that are wanted; looking each up costs more than reading a neighbour.
const SPARSENESS_MAX: usize = 4;

/// The rows of these messages, Uids ascending; those that are gone are left out.
pub async fn rows(
    store: &Store,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[Uid],
) -> Result<Vec<Membership>, Error> {
    let (Some(first), Some(last)) = (uids.first(), uids.last()) else {
        return Ok(Vec::new());
    };
    let span = usize::try_from(last.get().saturating_sub(first.get())).unwrap_or(usize::MAX).saturating_add(1);
    if span > uids.len().saturating_mul(SPARSENESS_MAX) {
        return message::memberships_of(store, account, mailbox, uids).await;
    }
    let page = message::memberships(store, account, mailbox, *first, span).await?;
    Ok(page.messages.into_iter().filter(|row| uids.binary_search(&row.uid).is_ok()).collect())
}
