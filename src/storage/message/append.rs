//! Delivering: a batch of messages for one account in one transaction.
//!
//! What a delivery costs: it reads its done row, the fence, the account, the mailbox, one thread row for each
//! Message-ID and the body's state; it writes account, mailbox and change row once for the whole batch, and for each
//! message its email, membership, thread, reference and done row.

use std::borrow::Borrow;

use posthouse_mail::stage::{BodyRef, StoredMessage};
use posthouse_mail::{Flag, MailboxId, ModSeq, SpecialUse, ThreadId, UidValidity};

use super::{Append, AppendBody, Appended, QuotaRule, Target, flag_bits};
use crate::blob;
use crate::codec;
use crate::done;
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::mailbox::role_number;
use crate::record::{DoneRow, EmailMailbox, EmailRow, MembershipRow};
use crate::store::Store;
use crate::thread;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// Stores messages. Each item has its own answer: one that is over quota or names no mailbox leaves the others alone;
/// one that was stored before yields what it yielded then.
pub async fn append<A>(store: &Store, writer: &Writer, batch: &[A]) -> Result<Appended, Error>
where
    A: Borrow<Append> + Sync,
{
    writer.run(store, |txn| boxed(append_in(txn, writer, batch))).await
}

async fn append_in<A>(txn: &mut Transaction<'_>, writer: &Writer, batch: &[A]) -> Result<Appended, Error>
where
    A: Borrow<Append> + Sync,
{
    let mut results = Vec::with_capacity(batch.len());
    let mut account: Option<AccountState> = None;
    for item in batch.iter().map(Borrow::borrow) {
        if let Some(done) = done::find(txn, writer.account, item.request, item.item).await? {
            results.push(earlier(writer, &done));
            continue;
        }
        let mut state = match account.take() {
            Some(state) => state,
            None => AccountState::open(txn, writer).await?,
        };
        let outcome = store_one(txn, &mut state, item).await;
        account = Some(state);
        results.push(match outcome {
            Err(error @ (Error::OverQuota | Error::NotFound | Error::Limit { .. })) => Err(error),
            outcome => Ok(outcome?),
        });
    }
    if let Some(account) = account {
        account.save(txn)?;
    }
    Ok(results)
}

async fn store_one(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    item: &Append,
) -> Result<StoredMessage, Error> {
    // Nothing may be touched before all that can refuse this item has been asked.
    if item.quota == QuotaRule::Enforce && !account.has_room(item.size()) {
        return Err(Error::OverQuota);
    }
    let (mailbox, uid_validity) = find_target(txn, account, item.target).await?;
    let thread = thread::join(txn, account, &item.structure).await?;
    let email = account.next_email()?;
    if let AppendBody::Staged(staged) = &item.body {
        txn.attach(staged);
    }
    let body = item.body.body();
    blob::reference(txn, body, BlobOwner::Email { account: account.id, email }).await?;
    let modseq = account.modseq()?;
    let membership = membership_row(item, email.get(), modseq);
    let uid = account.add(mailbox, &membership)?;
    codec::insert(txn, &keys::membership(account.id, mailbox, uid), &membership)?;
    let place = EmailMailbox { mailbox: mailbox.get(), uid: uid.get() };
    codec::insert(txn, &keys::email(account.id, email), &email_row(item, body, thread, place))?;
    thread::enter(txn, account, (thread, email), &item.structure)?;
    account.charge(item.size())?;
    let done = DoneRow {
        modseq: modseq.get(),
        mailbox: mailbox.get(),
        email: email.get(),
        uids: vec![uid.get()],
        uid_validity: uid_validity.get(),
        ..DoneRow::default()
    };
    account.will_prove();
    done::record(txn, account.id, (item.request, item.item), &done)?;
    Ok(StoredMessage { account: account.id, email, mailbox, uid, uid_validity, modseq })
}

async fn find_target(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    target: Target,
) -> Result<(MailboxId, UidValidity), Error> {
    let id = match target {
        Target::Mailbox(id) => id,
        Target::Role(role) => {
            with_role(account, role).or_else(|| with_role(account, SpecialUse::Inbox)).ok_or(Error::NotFound)?
        }
    };
    let row = account.mailbox(txn, id).await?;
    if row.uid_next == u32::MAX {
        return Err(Error::Limit { what: "Uids" });
    }
    let validity = UidValidity::new(row.uid_validity);
    Ok((id, validity.ok_or_else(|| Error::Corrupt("a mailbox has the UidValidity 0".to_owned()))?))
}

fn with_role(account: &AccountState, role: SpecialUse) -> Option<MailboxId> {
    let found = account.row.roles.iter().find(|entry| entry.role == role_number(role));
    found.map(|entry| MailboxId::new(entry.mailbox))
}

fn membership_row(item: &Append, email: u64, modseq: ModSeq) -> MembershipRow {
    let (flags, keywords) = flag_bits::write(&item.flags);
    MembershipRow { email, modseq: modseq.get(), flags, keywords, size: item.size(), received_at: item.received_at.0 }
}

fn email_row(item: &Append, body: BodyRef, thread: ThreadId, place: EmailMailbox) -> EmailRow {
    let mut of_email = item.flags.clone();
    of_email.remove(&Flag::Deleted);
    let (flags, keywords) = flag_bits::write(&of_email);
    EmailRow {
        prefix: item.prefix.clone(),
        blob: body.blob.as_bytes().to_vec(),
        body_size: body.size,
        received_at: item.received_at.0,
        thread: thread.get(),
        flags,
        keywords,
        mailboxes: vec![place],
        structure: Some(item.structure.clone()),
    }
}

/// What an append yielded when it was done.
fn earlier(writer: &Writer, done: &DoneRow) -> Result<StoredMessage, Error> {
    let uid_validity = UidValidity::new(done.uid_validity);
    Ok(StoredMessage {
        account: writer.account,
        email: posthouse_mail::EmailId::new(done.email),
        mailbox: MailboxId::new(done.mailbox),
        uid: super::uid(done.uids.first().copied().unwrap_or(0))?,
        uid_validity: uid_validity.ok_or_else(|| Error::Corrupt("a done row has the UidValidity 0".to_owned()))?,
        modseq: super::modseq(done.modseq)?,
    })
}
