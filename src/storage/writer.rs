//! What every change of an account goes through: fence, account row, one ModSeq, counters, change log.
//!
//! Apart so that no operation on messages or mailboxes can forget one of them. `AccountState` is read at the start of a
//! transaction and saved at its end; whatever touches a mailbox in between says so here, and `save` writes one account
//! row, one row for each mailbox touched and one change row.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use posthouse_mail::{AccountId, EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity, UnixMillis};

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::message::{self, copy};
use crate::record::{AccountRow, ChangeRow, MailboxChange, MailboxRow, MembershipRow, UidRange};
use crate::shard::Fence;
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};

/// Who writes to which account, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    /// The fence of `keys::account_shard(account)`.
    pub fence: Fence,
    pub account: AccountId,
    pub now: UnixMillis,
}

impl Writer {
    /// Runs a transaction; a copy that was cut short is undone before.
    pub(crate) async fn run<'env, T, F>(&self, store: &Store, mut body: F) -> Result<T, Error>
    where
        T: Send,
        F: for<'t> FnMut(&'t mut Transaction<'env>) -> BoxFuture<'t, Result<T, Error>> + Send,
    {
        match store.transact(&mut body).await {
            Err(Error::CopyUnfinished) => {
                copy::undo(store, self).await?;
                store.transact(body).await
            }
            outcome => outcome,
        }
    }
}

/// What happened to a mailbox itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Itself {
    Created = 1,
    Changed = 2,
    Deleted = 3,
}

#[derive(Default)]
struct Touched {
    row: MailboxRow,
    added: Vec<u32>,
    flags: Vec<u32>,
    expunged: Vec<u32>,
    itself: Option<Itself>,
    dirty: bool,
}

/// The account as one transaction sees and changes it.
pub(crate) struct AccountState {
    pub id: AccountId,
    pub now: UnixMillis,
    pub row: AccountRow,
    mailboxes: BTreeMap<MailboxId, Touched>,
    modseq: Option<ModSeq>,
    dirty: bool,
}

impl AccountState {
    /// Reads the account under its fence; a deleted one is not found.
    pub async fn open(txn: &mut Transaction<'_>, writer: &Writer) -> Result<Self, Error> {
        let state = Self::open_any(txn, writer).await?;
        if state.row.deleted_at.is_some() {
            return Err(Error::NotFound);
        }
        if state.row.pending_copy.is_some() {
            return Err(Error::CopyUnfinished);
        }
        Ok(state)
    }

    /// As `open`, for what deals with deleted accounts and unfinished copies.
    pub async fn open_any(txn: &mut Transaction<'_>, writer: &Writer) -> Result<Self, Error> {
        if writer.fence.shard != keys::account_shard(writer.account) {
            return Err(Error::Fenced { shard: writer.fence.shard, epoch: writer.fence.epoch });
        }
        check_fence(txn, writer.fence).await?;
        let row = codec::get::<AccountRow>(txn, &keys::account(writer.account)).await?.ok_or(Error::NotFound)?;
        Ok(Self::new(writer, row))
    }

    /// An account that this transaction creates.
    pub fn new(writer: &Writer, row: AccountRow) -> Self {
        Self { id: writer.account, now: writer.now, row, mailboxes: BTreeMap::new(), modseq: None, dirty: false }
    }

    /// The account row is to be written.
    pub fn touch(&mut self) -> &mut AccountRow {
        self.dirty = true;
        &mut self.row
    }

    /// The one ModSeq of this transaction (RFC 7162 §3.1: messages changed together may share it).
    pub fn modseq(&mut self) -> Result<ModSeq, Error> {
        if let Some(modseq) = self.modseq {
            return Ok(modseq);
        }
        // RFC 7162 §7: 63 bits.
        let next =
            self.row.modseq.checked_add(1).filter(|next| *next < 1 << 63).ok_or(Error::Limit { what: "changes" })?;
        self.touch().modseq = next;
        let modseq = message::modseq(next)?;
        self.modseq = Some(modseq);
        Ok(modseq)
    }

    /// Counts a proof that `done::record` is about to write.
    pub fn will_prove(&mut self) {
        self.touch().done_count += 1;
    }

    pub fn next_email(&mut self) -> Result<EmailId, Error> {
        bump(&mut self.touch().next_email).map(EmailId::new)
    }

    pub fn next_thread(&mut self) -> Result<ThreadId, Error> {
        bump(&mut self.touch().next_thread).map(ThreadId::new)
    }

    pub fn next_mailbox(&mut self) -> Result<MailboxId, Error> {
        bump(&mut self.touch().next_mailbox).map(MailboxId::new)
    }

    pub fn next_uid_validity(&mut self) -> Result<UidValidity, Error> {
        let next = self.row.uid_validity.checked_add(1).and_then(UidValidity::new);
        let next = next.ok_or(Error::Limit { what: "UidValidity" })?;
        self.touch().uid_validity = next.get();
        Ok(next)
    }

    /// A mailbox's row; a deleted or unknown one is not found.
    pub async fn mailbox(&mut self, txn: &mut Transaction<'_>, id: MailboxId) -> Result<&mut MailboxRow, Error> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.mailboxes.entry(id) {
            let row = codec::get::<MailboxRow>(txn, &keys::mailbox(self.id, id)).await?;
            let row = row.filter(|row| row.deleted_at.is_none()).ok_or(Error::NotFound)?;
            entry.insert(Touched { row, ..Touched::default() });
        }
        Ok(&mut self.touched(id)?.row)
    }

    /// A mailbox that this transaction creates, or reads though it is deleted.
    pub fn adopt_mailbox(&mut self, id: MailboxId, row: MailboxRow) {
        self.mailboxes.insert(id, Touched { row, dirty: true, ..Touched::default() });
    }

    fn touched(&mut self, id: MailboxId) -> Result<&mut Touched, Error> {
        self.mailboxes.get_mut(&id).ok_or(Error::NotFound)
    }

    /// Gives the next Uid of a mailbox that was read, and notes the new message.
    pub fn add(&mut self, id: MailboxId, row: &MembershipRow) -> Result<Uid, Error> {
        let touched = self.touched(id)?;
        let uid = message::uid(touched.row.uid_next)?;
        // RFC 9051 §2.3.1.1: Uids strictly ascend; the last one is never given, as UidNext must exist.
        touched.row.uid_next = uid.next().ok_or(Error::Limit { what: "Uids" })?.get();
        count(&mut touched.row, row, Sign::Plus)?;
        touched.added.push(uid.get());
        touched.dirty = true;
        Ok(uid)
    }

    /// Notes that a message's flags went from one row to another.
    pub fn reflag(
        &mut self,
        id: MailboxId,
        uid: Uid,
        (old, new): (&MembershipRow, &MembershipRow),
    ) -> Result<(), Error> {
        let touched = self.touched(id)?;
        count(&mut touched.row, old, Sign::Minus)?;
        count(&mut touched.row, new, Sign::Plus)?;
        touched.flags.push(uid.get());
        touched.dirty = true;
        Ok(())
    }

    /// Notes that a message left a mailbox.
    pub fn expunge(&mut self, id: MailboxId, uid: Uid, old: &MembershipRow) -> Result<(), Error> {
        let touched = self.touched(id)?;
        count(&mut touched.row, old, Sign::Minus)?;
        touched.expunged.push(uid.get());
        touched.dirty = true;
        Ok(())
    }

    /// Notes that a mailbox itself was created, changed or deleted.
    pub fn note(&mut self, id: MailboxId, itself: Itself) -> Result<(), Error> {
        let touched = self.touched(id)?;
        touched.itself = Some(itself);
        touched.dirty = true;
        Ok(())
    }

    /// Changes a mailbox's counters without a line in the change log: rows that nobody sees come and go.
    pub fn mark(&mut self, id: MailboxId) -> Result<&mut MailboxRow, Error> {
        let touched = self.touched(id)?;
        touched.dirty = true;
        Ok(&mut touched.row)
    }

    /// Notes Uids that became visible at once.
    pub fn note_added(&mut self, id: MailboxId, uids: impl Iterator<Item = u32>) -> Result<(), Error> {
        let touched = self.touched(id)?;
        touched.added.extend(uids);
        touched.dirty = true;
        Ok(())
    }

    /// Counts a new email against the quota; its bound is checked by the caller.
    pub fn charge(&mut self, octets: u64) -> Result<(), Error> {
        let row = self.touch();
        row.quota_used = row.quota_used.checked_add(octets).ok_or(Error::Limit { what: "octets" })?;
        row.email_count += 1;
        Ok(())
    }

    /// Frees an email's room.
    pub fn discharge(&mut self, octets: u64) -> Result<(), Error> {
        let row = self.touch();
        let freed = row.quota_used.checked_sub(octets).zip(row.email_count.checked_sub(1));
        (row.quota_used, row.email_count) =
            freed.ok_or_else(|| Error::Corrupt("an account's use is less than its contents".to_owned()))?;
        Ok(())
    }

    /// Whether so much more fits.
    pub fn has_room(&self, octets: u64) -> bool {
        self.row.quota_max == 0 || self.row.quota_used.saturating_add(octets) <= self.row.quota_max
    }

    /// Writes what was touched.
    pub fn save(mut self, txn: &mut Transaction<'_>) -> Result<Option<ModSeq>, Error> {
        let mut change = ChangeRow { at: self.now.0, mailboxes: Vec::new() };
        let logged = self.mailboxes.values().any(Touched::is_logged);
        let modseq = if logged { Some(self.modseq()?) } else { self.modseq };
        for (id, touched) in self.mailboxes.iter_mut().filter(|(_, touched)| touched.dirty) {
            if touched.is_logged() {
                touched.row.highest_modseq = modseq.map_or(touched.row.highest_modseq, ModSeq::get);
                change.mailboxes.push(touched.change(*id));
            }
            codec::put(txn, &keys::mailbox(self.id, *id), &touched.row)?;
        }
        if let Some(modseq) = modseq.filter(|_| logged) {
            codec::insert(txn, &keys::change(self.id, modseq), &change)?;
        }
        if self.dirty {
            codec::put(txn, &keys::account(self.id), &self.row)?;
        }
        Ok(modseq)
    }
}

impl Touched {
    fn is_logged(&self) -> bool {
        self.itself.is_some() || !(self.added.is_empty() && self.flags.is_empty() && self.expunged.is_empty())
    }

    fn change(&self, id: MailboxId) -> MailboxChange {
        MailboxChange {
            mailbox: id.get(),
            added: ranges(&self.added),
            flags: ranges(&self.flags),
            expunged: ranges(&self.expunged),
            itself: self.itself.map_or(0, |itself| match itself {
                Itself::Created => 1,
                Itself::Changed => 2,
                Itself::Deleted => 3,
            }),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Plus,
    Minus,
}

/// Moves a mailbox's counters by one message.
fn count(mailbox: &mut MailboxRow, row: &MembershipRow, sign: Sign) -> Result<(), Error> {
    let is = |yes: bool| u32::from(yes);
    let unseen = is(!message::read::is_seen(row));
    let deleted = is(message::read::is_deleted(row));
    let step = |value: u32, by: u32| match sign {
        Sign::Plus => value.checked_add(by),
        Sign::Minus => value.checked_sub(by),
    };
    let size = match sign {
        Sign::Plus => mailbox.size.checked_add(row.size),
        Sign::Minus => mailbox.size.checked_sub(row.size),
    };
    let moved = (step(mailbox.messages, 1), step(mailbox.unseen, unseen), step(mailbox.deleted, deleted), size);
    let (Some(messages), Some(unseen), Some(deleted), Some(size)) = moved else {
        return Err(Error::Corrupt("a mailbox counts fewer messages than it has".to_owned()));
    };
    (mailbox.messages, mailbox.unseen, mailbox.deleted, mailbox.size) = (messages, unseen, deleted, size);
    Ok(())
}

fn bump(counter: &mut u64) -> Result<u64, Error> {
    let value = *counter;
    *counter = value.checked_add(1).ok_or(Error::Limit { what: "ids" })?;
    Ok(value)
}

/// Uids as runs, in ascending order.
pub(crate) fn ranges(uids: &[u32]) -> Vec<UidRange> {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<UidRange> = Vec::new();
    for uid in sorted {
        match runs.last_mut() {
            Some(run) if run.first + run.count == uid => run.count += 1,
            _ => runs.push(UidRange { first: uid, count: 1 }),
        }
    }
    runs
}

/// A closure's future, boxed: what `Store::transact` wants.
pub(crate) fn boxed<'t, T>(
    future: impl Future<Output = Result<T, Error>> + Send + 't,
) -> BoxFuture<'t, Result<T, Error>> {
    future.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_become_runs() {
        assert_eq!(ranges(&[5, 1, 2, 3, 3]), vec![UidRange { first: 1, count: 3 }, UidRange { first: 5, count: 1 }]);
        assert!(ranges(&[]).is_empty());
    }
}
