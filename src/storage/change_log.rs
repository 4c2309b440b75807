//! What changed in an account since a ModSeq: the source of untagged answers, QRESYNC, JMAP changes and the indexer.
//!
//! One row for each transaction. Rows are swept some time after they were written; the floor in the account row says from
//! where on the log is whole, and whoever asks from before it reads everything anew (design: no half answers).

use posthouse_mail::{AccountId, MailboxId, ModSeq, Uid, UnixMillis};

use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::message;
use crate::record::{AccountRow, ChangeRow, MailboxChange, UidRange};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// One transaction's change of one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub modseq: ModSeq,
    pub mailbox: MailboxId,
    pub added: Vec<Uid>,
    pub flags: Vec<Uid>,
    pub expunged: Vec<Uid>,
    pub itself: Option<MailboxEvent>,
}

/// What happened to the mailbox itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxEvent {
    Created,
    /// Renamed, moved, or given another use.
    Changed,
    Deleted,
}

/// A page of changes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Everything up to this ModSeq is told: the place to go on from.
    pub up_to: ModSeq,
    /// Whether there is more behind `up_to`.
    pub more: bool,
}

/// Changes after a ModSeq, from at most `limit` transactions. `None`: the log does not reach back so far, read everything.
pub async fn since(store: &Store, account: AccountId, since: ModSeq, limit: usize) -> Result<Option<Changes>, Error> {
    let mut txn = store.snapshot();
    let row = codec::get::<AccountRow>(&mut txn, &keys::account(account)).await?.ok_or(Error::NotFound)?;
    if since.get() < row.change_floor {
        return Ok(None);
    }
    let mut range = keys::changes(account);
    range.begin = keys::after(&keys::change(account, since));
    let (rows, more) = codec::scan::<ChangeRow>(&mut txn, &range, limit).await?;
    let mut changes = Vec::new();
    let mut up_to = if more { since } else { message::modseq(row.modseq.max(since.get()))? };
    for (key, row) in rows {
        let modseq = modseq_of(&key)?;
        if more {
            up_to = modseq;
        }
        for change in row.mailboxes {
            changes.push(read(modseq, &change)?);
        }
    }
    Ok(Some(Changes { changes, up_to, more }))
}

/// The last change's number.
pub async fn highest(store: &Store, account: AccountId) -> Result<ModSeq, Error> {
    let row = codec::get::<AccountRow>(&mut store.snapshot(), &keys::account(account)).await?;
    message::modseq(row.ok_or(Error::NotFound)?.modseq)
}

/// Removes rows written before a time, at most `limit` of them; whether more are left.
pub async fn sweep(store: &Store, writer: &Writer, before: UnixMillis, limit: usize) -> Result<bool, Error> {
    writer.run(store, |txn| boxed(sweep_in(txn, writer, before, limit))).await
}

async fn sweep_in(txn: &mut Transaction<'_>, writer: &Writer, before: UnixMillis, limit: usize) -> Result<bool, Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    let (rows, more) = codec::scan::<ChangeRow>(txn, &keys::changes(account.id), limit).await?;
    let expired = rows.iter().take_while(|(_, row)| row.at < before.0).count();
    for (key, _) in &rows[..expired] {
        let modseq = modseq_of(key)?;
        codec::remove::<ChangeRow>(txn, &keys::change(account.id, modseq));
        account.touch().change_floor = modseq.get();
    }
    let all_expired = expired == rows.len();
    account.save(txn)?;
    Ok(more && all_expired)
}

pub(crate) fn modseq_of(key: &[u8]) -> Result<ModSeq, Error> {
    message::modseq(KeyParts::of(key).u64().unwrap_or(0))
}

fn read(modseq: ModSeq, change: &MailboxChange) -> Result<Change, Error> {
    Ok(Change {
        modseq,
        mailbox: MailboxId::new(change.mailbox),
        added: uids(&change.added)?,
        flags: uids(&change.flags)?,
        expunged: uids(&change.expunged)?,
        itself: match change.itself {
            1 => Some(MailboxEvent::Created),
            2 => Some(MailboxEvent::Changed),
            3 => Some(MailboxEvent::Deleted),
            _ => None,
        },
    })
}

fn uids(runs: &[UidRange]) -> Result<Vec<Uid>, Error> {
    runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count)).map(message::uid).collect()
}
