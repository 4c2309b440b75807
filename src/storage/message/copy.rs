//! COPY and MOVE within an account.
//!
//! COPY makes new emails that share body and thread, all or none of them (RFC 9051 §6.4.7). A large one writes its rows
//! in chunks at UidNext and above, where nobody looks; its last transaction moves UidNext over them. Cut short, it is
//! undone before anything else is written to the account. MOVE keeps the email and commits by chunks (RFC 6851 §3.3
//! allows a part of them to be moved).

use posthouse_mail::{EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity};

use super::expunge::{remove_one, unlink};
use super::read::{is_deleted, is_seen, uid_of};
use super::{CHUNK, Copied, Copy};
use crate::blob;
use crate::codec;
use crate::done;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyRange};
use crate::record::{DoneRow, EmailMailbox, EmailRow, MailboxRow, MembershipRow, PendingCopy};
use crate::store::Store;
use crate::thread;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// Copies messages. A repeat of the request copies nothing and reports what it copied then.
pub async fn copy(store: &Store, writer: &Writer, request: &Copy) -> Result<Copied, Error> {
    if request.uids.len() <= CHUNK {
        match writer.run(store, |txn| boxed(copy_small(txn, writer, request))).await {
            // Emails with very large structures: their rows need several transactions.
            Err(Error::TooLarge { .. }) => {}
            copied => return copied,
        }
    }
    if let Some(done) = done::find(&mut store.snapshot(), writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    match copy_large(store, writer, request).await {
        Err(error) => {
            undo(store, writer).await?;
            Err(error)
        }
        copied => copied,
    }
}

/// Moves messages to another mailbox. A repeat of the request moves nothing and reports what it moved then.
pub async fn move_to(store: &Store, writer: &Writer, request: &Copy) -> Result<Copied, Error> {
    let mut all: Option<Copied> = None;
    for (item, uids) in (0..).zip(request.uids.chunks(CHUNK)) {
        match move_part(store, writer, request, (item, uids)).await {
            Err(Error::TooLarge { .. }) if uids.len() > 1 => {
                for (place, uid) in (0..).zip(uids.chunks(1)) {
                    let part = move_part(store, writer, request, (super::single(item, place), uid)).await?;
                    all = Some(joined(all, part));
                }
            }
            part => all = Some(joined(all, part?)),
        }
    }
    all.ok_or(Error::NotFound)
}

async fn move_part(store: &Store, writer: &Writer, request: &Copy, part: (u32, &[Uid])) -> Result<Copied, Error> {
    writer.run(store, |txn| boxed(move_chunk(txn, writer, request, part))).await
}

fn joined(before: Option<Copied>, part: Copied) -> Copied {
    match before {
        None => part,
        Some(before) => {
            Copied { uids: [before.uids, part.uids].concat(), modseq: part.modseq.or(before.modseq), ..before }
        }
    }
}

async fn copy_small(txn: &mut Transaction<'_>, writer: &Writer, request: &Copy) -> Result<Copied, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open(txn, writer).await?;
    account.mailbox(txn, request.source).await?;
    let uid_validity = validity(account.mailbox(txn, request.target).await?)?;
    let mut uids = Vec::new();
    for uid in &request.uids {
        let Some(mut row) = source_row(txn, &account, request.source, *uid).await? else { continue };
        let email = twin(txn, &mut account, &row).await?;
        row.email = email.id.get();
        row.modseq = account.modseq()?.get();
        let new = account.add(request.target, &row)?;
        write_twin(txn, &account, (request.target, new), (row, email))?;
        uids.push((*uid, new));
    }
    account.will_prove();
    let modseq = account.save(txn)?;
    let copied = Copied { uid_validity, uids, modseq };
    done::record(txn, writer.account, (request.request, 0), &proof(&copied))?;
    Ok(copied)
}

async fn source_row(
    txn: &mut Transaction<'_>,
    account: &AccountState,
    source: MailboxId,
    uid: Uid,
) -> Result<Option<MembershipRow>, Error> {
    codec::get::<MembershipRow>(txn, &keys::membership(account.id, source, uid)).await
}

/// A new email made of an old one.
struct Twin {
    id: EmailId,
    row: EmailRow,
}

/// Makes an email that shares body and thread with another, charged to the account.
async fn twin(txn: &mut Transaction<'_>, account: &mut AccountState, of: &MembershipRow) -> Result<Twin, Error> {
    let key = keys::email(account.id, EmailId::new(of.email));
    let mut row = codec::expect::<EmailRow>(txn, &key, "the email").await?;
    if !account.has_room(row.size()) {
        return Err(Error::OverQuota);
    }
    account.charge(row.size())?;
    let id = account.next_email()?;
    row.mailboxes.clear();
    blob::reference(txn, row.body()?, BlobOwner::Email { account: account.id, email: id }).await?;
    Ok(Twin { id, row })
}

fn write_twin(
    txn: &mut Transaction<'_>,
    account: &AccountState,
    (mailbox, uid): (MailboxId, Uid),
    (membership, mut twin): (MembershipRow, Twin),
) -> Result<(), Error> {
    codec::insert(txn, &keys::membership(account.id, mailbox, uid), &membership)?;
    twin.row.mailboxes.push(EmailMailbox { mailbox: mailbox.get(), uid: uid.get() });
    codec::insert(txn, &keys::email(account.id, twin.id), &twin.row)?;
    let structure = twin.row.structure.take().unwrap_or_default();
    thread::enter(txn, account, (ThreadId::new(twin.row.thread), twin.id), &structure)
}

async fn copy_large(store: &Store, writer: &Writer, request: &Copy) -> Result<Copied, Error> {
    let mut uids: Vec<(Uid, Uid)> = Vec::with_capacity(request.uids.len());
    for chunk in request.uids.chunks(CHUNK) {
        match stage(store, writer, request, (uids.len(), chunk)).await {
            Err(Error::TooLarge { .. }) if chunk.len() > 1 => {
                for uid in chunk.chunks(1) {
                    uids.extend(stage(store, writer, request, (uids.len(), uid)).await?);
                }
            }
            part => uids.extend(part?),
        }
    }
    let uids = &uids;
    store.transact(|txn| boxed(show(txn, writer, request, uids))).await
}

async fn stage(
    store: &Store,
    writer: &Writer,
    request: &Copy,
    (written, chunk): (usize, &[Uid]),
) -> Result<Vec<(Uid, Uid)>, Error> {
    let written = u32::try_from(written).map_err(|_| Error::Limit { what: "Uids" })?;
    writer.run(store, |txn| boxed(stage_chunk(txn, writer, request, (written, chunk)))).await
}

/// Writes a chunk beyond UidNext. `written` messages stand there already; if there are more, this chunk is a repeat.
async fn stage_chunk(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    request: &Copy,
    (written, chunk): (u32, &[Uid]),
) -> Result<Vec<(Uid, Uid)>, Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    let fresh =
        PendingCopy { request: request_octets(request), target: request.target.get(), ..PendingCopy::default() };
    let mut pending = match account.row.pending_copy.take() {
        Some(pending) if pending.request == fresh.request => pending,
        None if written == 0 && account.row.deleted_at.is_none() => {
            PendingCopy { modseq: account.row.modseq.saturating_add(1), ..fresh }
        }
        _ => return Err(Error::CopyUnfinished),
    };
    account.mailbox(txn, request.source).await?;
    let uid_next = account.mailbox(txn, request.target).await?.uid_next;
    let is_repeat = pending.done > written;
    let mut next = uid_next.checked_add(written).ok_or(Error::Limit { what: "Uids" })?;
    let mut uids = Vec::with_capacity(chunk.len());
    for uid in chunk {
        let Some(mut row) = source_row(txn, &account, request.source, *uid).await? else { continue };
        let new = super::uid(next)?;
        // RFC 9051 §2.3.1.1: UidNext must exist, so the last Uid is never given.
        next = next.checked_add(1).ok_or(Error::Limit { what: "Uids" })?;
        uids.push((*uid, new));
        if !is_repeat {
            let twin = twin(txn, &mut account, &row).await?;
            (row.email, row.modseq) = (twin.id.get(), pending.modseq);
            pending.done += 1;
            pending.size += row.size;
            pending.unseen += u32::from(!is_seen(&row));
            pending.deleted += u32::from(is_deleted(&row));
            write_twin(txn, &account, (request.target, new), (row, twin))?;
        }
    }
    account.touch().pending_copy = Some(pending);
    account.save(txn)?;
    Ok(uids)
}

/// Makes all of a large copy visible.
async fn show(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    request: &Copy,
    uids: &[(Uid, Uid)],
) -> Result<Copied, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open_any(txn, writer).await?;
    let pending = account.touch().pending_copy.take().filter(|pending| pending.request == request_octets(request));
    let pending = pending.ok_or(Error::CopyUnfinished)?;
    let uid_validity = validity(account.mailbox(txn, request.target).await?)?;
    let row = account.mark(request.target)?;
    row.uid_next = row.uid_next.checked_add(pending.done).ok_or(Error::Limit { what: "Uids" })?;
    row.messages += pending.done;
    row.unseen += pending.unseen;
    row.deleted += pending.deleted;
    row.size += pending.size;
    account.note_added(request.target, uids.iter().map(|(_, new)| new.get()))?;
    account.will_prove();
    let modseq = account.save(txn)?;
    if modseq.is_some_and(|modseq| modseq.get() != pending.modseq) {
        return Err(Error::CopyUnfinished);
    }
    let copied = Copied { uid_validity, uids: uids.to_vec(), modseq };
    done::record(txn, writer.account, (request.request, 0), &proof(&copied))?;
    Ok(copied)
}

/// Removes what a copy that was cut short left beyond UidNext.
pub(crate) async fn undo(store: &Store, writer: &Writer) -> Result<(), Error> {
    while store.transact(|txn| boxed(undo_chunk(txn, writer))).await? {}
    Ok(())
}

/// Whether more is left.
async fn undo_chunk(txn: &mut Transaction<'_>, writer: &Writer) -> Result<bool, Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    let Some(pending) = account.row.pending_copy.clone() else { return Ok(false) };
    let target = MailboxId::new(pending.target);
    let from = super::uid(account.mailbox(txn, target).await?.uid_next)?;
    let range = KeyRange {
        begin: keys::membership(account.id, target, from).to_vec(),
        end: keys::memberships(account.id, target).end,
    };
    let (rows, more) = codec::scan::<MembershipRow>(txn, &range, CHUNK).await?;
    for (key, row) in rows {
        unlink(txn, &mut account, (target, uid_of(&key)?), &row).await?;
    }
    if !more {
        account.touch().pending_copy = None;
    }
    account.save(txn)?;
    Ok(more)
}

async fn move_chunk(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    request: &Copy,
    (item, uids): (u32, &[Uid]),
) -> Result<Copied, Error> {
    if let Some(done) = super::find_chunk(txn, writer.account, request.request, (item, uids)).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open(txn, writer).await?;
    account.mailbox(txn, request.source).await?;
    let uid_validity = validity(account.mailbox(txn, request.target).await?)?;
    let mut moved = Vec::new();
    for uid in uids {
        if let Some(row) = source_row(txn, &account, request.source, *uid).await? {
            moved.push((*uid, move_one(txn, &mut account, request, (*uid, row)).await?));
        }
    }
    account.will_prove();
    let modseq = account.save(txn)?;
    let copied = Copied { uid_validity, uids: moved, modseq };
    done::record(txn, writer.account, (request.request, item), &proof(&copied))?;
    Ok(copied)
}

async fn move_one(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    request: &Copy,
    (uid, old): (Uid, MembershipRow),
) -> Result<Uid, Error> {
    let key = keys::email(account.id, EmailId::new(old.email));
    let mut email = codec::expect::<EmailRow>(txn, &key, "the email").await?;
    let mut row = MembershipRow { modseq: account.modseq()?.get(), ..old.clone() };
    let elsewhere = request.source != request.target;
    if elsewhere && email.mailboxes.iter().any(|place| place.mailbox == request.target.get()) {
        // An email stands at most once in a mailbox (RFC 8621 §4.1.1 mailboxIds is a set): the one moved becomes its twin.
        let id = account.next_email()?;
        account.charge(email.size())?;
        blob::reference(txn, email.body()?, BlobOwner::Email { account: account.id, email: id }).await?;
        email.mailboxes.clear();
        row.email = id.get();
        let new = account.add(request.target, &row)?;
        write_twin(txn, account, (request.target, new), (row, Twin { id, row: email }))?;
        remove_one(txn, account, (request.source, uid), &old).await?;
        return Ok(new);
    }
    let new = account.add(request.target, &row)?;
    account.expunge(request.source, uid, &old)?;
    txn.clear(&keys::membership(account.id, request.source, uid));
    codec::insert(txn, &keys::membership(account.id, request.target, new), &row)?;
    for place in &mut email.mailboxes {
        if (place.mailbox, place.uid) == (request.source.get(), uid.get()) {
            *place = EmailMailbox { mailbox: request.target.get(), uid: new.get() };
        }
    }
    codec::put(txn, &key, &email)?;
    Ok(new)
}

fn validity(row: &MailboxRow) -> Result<UidValidity, Error> {
    UidValidity::new(row.uid_validity).ok_or_else(|| Error::Corrupt("a mailbox has the UidValidity 0".to_owned()))
}

fn request_octets(request: &Copy) -> Vec<u8> {
    request.request.get().to_be_bytes().to_vec()
}

fn proof(copied: &Copied) -> DoneRow {
    DoneRow {
        modseq: copied.modseq.map_or(0, ModSeq::get),
        uids: copied.uids.iter().map(|(source, _)| source.get()).collect(),
        target_uids: copied.uids.iter().map(|(_, target)| target.get()).collect(),
        uid_validity: copied.uid_validity.get(),
        ..DoneRow::default()
    }
}

fn earlier(done: &DoneRow) -> Result<Copied, Error> {
    let pairs = done.uids.iter().zip(&done.target_uids);
    let uid_validity = UidValidity::new(done.uid_validity);
    Ok(Copied {
        uid_validity: uid_validity.ok_or_else(|| Error::Corrupt("a done row has the UidValidity 0".to_owned()))?,
        uids: pairs.map(|(from, to)| Ok((super::uid(*from)?, super::uid(*to)?))).collect::<Result<_, Error>>()?,
        modseq: ModSeq::new(done.modseq),
    })
}

#[cfg(test)]
pub(super) async fn stage_for_test(store: &Store, writer: &Writer, request: &Copy, count: usize) -> Result<(), Error> {
    stage(store, writer, request, (0, &request.uids[..count])).await.map(|_| ())
}
