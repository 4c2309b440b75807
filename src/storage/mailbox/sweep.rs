//! What follows the deletion of a mailbox: its messages go in chunks, then its row.

use posthouse_mail::MailboxId;

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::message::CHUNK;
use crate::message::expunge::unlink;
use crate::message::read::uid_of;
use crate::record::{MailboxRow, MembershipRow};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// Removes a chunk of what deleted mailboxes of the account still hold; whether there is more to do.
pub async fn sweep(store: &Store, writer: &Writer) -> Result<bool, Error> {
    writer.run(store, |txn| boxed(sweep_in(txn, writer))).await
}

async fn sweep_in(txn: &mut Transaction<'_>, writer: &Writer) -> Result<bool, Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    if account.row.pending_copy.is_some() {
        return Err(Error::CopyUnfinished);
    }
    let Some(id) = account.row.sweeping.first().copied().map(MailboxId::new) else { return Ok(false) };
    let range = keys::memberships(account.id, id);
    let (rows, more) = codec::scan::<MembershipRow>(txn, &range, CHUNK).await?;
    for (key, row) in rows {
        unlink(txn, &mut account, (id, uid_of(&key)?), &row).await?;
    }
    if !more {
        codec::remove::<MailboxRow>(txn, &keys::mailbox(account.id, id));
        account.touch().sweeping.remove(0);
    }
    let left = more || !account.row.sweeping.is_empty();
    account.save(txn)?;
    Ok(left)
}
