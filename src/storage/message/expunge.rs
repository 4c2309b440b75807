//! EXPUNGE: messages leave a mailbox, by chunks, each a transaction of its own.
//!
//! An email without a mailbox is gone: its rows are cleared, its room is free at once, and its body keeps a tombstone
//! until the sweeper takes it.

use posthouse_mail::{EmailId, MailboxId, ThreadId, Uid};

use super::read::is_deleted;
use super::{CHUNK, Expunge, ExpungeWhich, Expunged};
use crate::blob;
use crate::codec;
use crate::done;
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::record::{DoneRow, EmailRow, MembershipRow};
use crate::store::Store;
use crate::thread;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// Removes messages from a mailbox. A repeat of the request removes nothing and reports what it removed then.
pub async fn expunge(store: &Store, writer: &Writer, request: &Expunge) -> Result<Expunged, Error> {
    let mut all = Expunged::default();
    for (item, uids) in (0..).zip(request.uids.chunks(CHUNK)) {
        let part = writer.run(store, |txn| boxed(chunk_in(txn, writer, request, (item, uids)))).await?;
        all.uids.extend(part.uids);
        all.modseq = part.modseq.or(all.modseq);
    }
    Ok(all)
}

async fn chunk_in(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    request: &Expunge,
    (item, uids): (u32, &[Uid]),
) -> Result<Expunged, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, item).await? {
        let uids = done.uids.iter().map(|uid| super::uid(*uid)).collect::<Result<_, Error>>()?;
        return Ok(Expunged { uids, modseq: posthouse_mail::ModSeq::new(done.modseq) });
    }
    let mut account = AccountState::open(txn, writer).await?;
    account.mailbox(txn, request.mailbox).await?;
    let mut gone = Vec::new();
    for uid in uids {
        let key = keys::membership(account.id, request.mailbox, *uid);
        let Some(row) = codec::get::<MembershipRow>(txn, &key).await? else { continue };
        if request.which == ExpungeWhich::All || is_deleted(&row) {
            remove_one(txn, &mut account, (request.mailbox, *uid), &row).await?;
            gone.push(*uid);
        }
    }
    account.will_prove();
    let modseq = account.save(txn)?;
    let done = DoneRow {
        uids: gone.iter().map(|uid| uid.get()).collect(),
        modseq: modseq.map_or(0, posthouse_mail::ModSeq::get),
        ..DoneRow::default()
    };
    done::record(txn, writer.account, (request.request, item), &done)?;
    Ok(Expunged { uids: gone, modseq })
}

/// Takes one message out of its mailbox, and the email away with its last one.
pub(crate) async fn remove_one(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    (mailbox, uid): (MailboxId, Uid),
    row: &MembershipRow,
) -> Result<(), Error> {
    account.expunge(mailbox, uid, row)?;
    unlink(txn, account, (mailbox, uid), row).await
}

/// The same without a line in the change log and without the mailbox's counters: the mailbox itself is going.
pub(crate) async fn unlink(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    (mailbox, uid): (MailboxId, Uid),
    row: &MembershipRow,
) -> Result<(), Error> {
    txn.clear(&keys::membership(account.id, mailbox, uid));
    let email = EmailId::new(row.email);
    let key = keys::email(account.id, email);
    let mut email_row = codec::expect::<EmailRow>(txn, &key, "the email").await?;
    email_row.mailboxes.retain(|place| (place.mailbox, place.uid) != (mailbox.get(), uid.get()));
    if !email_row.mailboxes.is_empty() {
        return codec::put(txn, &key, &email_row);
    }
    codec::remove::<EmailRow>(txn, &key);
    let structure = email_row.structure.take().unwrap_or_default();
    thread::leave(txn, account, (ThreadId::new(email_row.thread), email), &structure);
    blob::release(txn, email_row.body()?.blob, BlobOwner::Email { account: account.id, email }, account.now);
    account.discharge(email_row.size())
}
