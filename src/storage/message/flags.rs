//! STORE: flags of messages in one mailbox, by chunks, each a transaction of its own.
//!
//! Keywords and system flags are the email's: all its memberships repeat them and each gets the new ModSeq. `\Deleted`
//! is the membership's alone.

use std::collections::HashSet;

use posthouse_mail::{Flag, FlagSet, MailboxId, ModSeq, Uid};

use super::{CHUNK, FlagChange, FlagsOf, FlagsSet, SetFlags, flag_bits};
use crate::codec;
use crate::done;
use crate::error::Error;
use crate::keys;
use crate::record::{DoneRow, EmailRow, MembershipRow};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// Changes flags. A repeat of the request changes nothing and reports the flags as they are now.
pub async fn set_flags(store: &Store, writer: &Writer, request: &SetFlags) -> Result<FlagsSet, Error> {
    let mut all = FlagsSet::default();
    for (item, uids) in (0..).zip(request.uids.chunks(CHUNK)) {
        match chunk(store, writer, request, (item, uids)).await {
            // Emails with very large structures: their rows are written one by one.
            Err(Error::TooLarge { .. }) if uids.len() > 1 => {
                for (place, uid) in (0..).zip(uids.chunks(1)) {
                    all.extend(chunk(store, writer, request, (super::single(item, place), uid)).await?);
                }
            }
            part => all.extend(part?),
        }
    }
    Ok(all)
}

impl FlagsSet {
    fn extend(&mut self, part: Self) {
        self.messages.extend(part.messages);
        self.modified.extend(part.modified);
    }
}

async fn chunk(store: &Store, writer: &Writer, request: &SetFlags, part: (u32, &[Uid])) -> Result<FlagsSet, Error> {
    writer.run(store, |txn| boxed(chunk_in(txn, writer, request, part))).await
}

async fn chunk_in(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    request: &SetFlags,
    (item, uids): (u32, &[Uid]),
) -> Result<FlagsSet, Error> {
    if let Some(done) = super::find_chunk(txn, writer.account, request.request, (item, uids)).await? {
        return earlier(txn, writer, (request.mailbox, uids), &done).await;
    }
    let mut account = AccountState::open(txn, writer).await?;
    account.mailbox(txn, request.mailbox).await?;
    let mut outcome = FlagsSet::default();
    for uid in uids {
        let key = keys::membership(account.id, request.mailbox, *uid);
        let Some(row) = codec::get::<MembershipRow>(txn, &key).await? else { continue };
        if request.unchanged_since.is_some_and(|since| row.modseq > since.get()) {
            outcome.modified.push(*uid);
            continue;
        }
        outcome.messages.push(change_one(txn, &mut account, request, (*uid, row)).await?);
    }
    account.will_prove();
    account.save(txn)?;
    let refused = outcome.modified.iter().map(|uid| uid.get()).collect();
    done::record(txn, writer.account, (request.request, item), &DoneRow { refused, ..DoneRow::default() })?;
    Ok(outcome)
}

async fn change_one(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    request: &SetFlags,
    (uid, row): (Uid, MembershipRow),
) -> Result<FlagsOf, Error> {
    let old = flag_bits::read(row.flags, &row.keywords);
    let new = changed(&old, request.change, &request.flags);
    if new == old {
        // RFC 7162 §3.1.3: what changes nothing needs no new mod-sequence.
        return Ok(FlagsOf { uid, modseq: super::modseq(row.modseq)?, flags: new });
    }
    // Where the limit was lowered a message may lose keywords, and what it has beside them may change.
    if super::keywords(&new) > super::keywords(&old) {
        super::check_keywords(&new, request.keywords_max)?;
    }
    let modseq = account.modseq()?;
    let of_email = |flags: &FlagSet| flags.iter().filter(|flag| **flag != Flag::Deleted).cloned().collect::<FlagSet>();
    if of_email(&old) != of_email(&new) {
        change_email(txn, account, (&row, request.mailbox, uid), &of_email(&new)).await?;
    }
    write_membership(txn, account, (request.mailbox, uid, &row), (&new, modseq)).await?;
    Ok(FlagsOf { uid, modseq, flags: new })
}

/// Writes an email's flags into its row and into its other memberships, which keep their own `\Deleted`.
async fn change_email(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    (membership, mailbox, uid): (&MembershipRow, MailboxId, Uid),
    flags: &FlagSet,
) -> Result<(), Error> {
    let email = posthouse_mail::EmailId::new(membership.email);
    let key = keys::email(account.id, email);
    let mut row = codec::expect::<EmailRow>(txn, &key, "the email").await?;
    (row.flags, row.keywords) = flag_bits::write(flags);
    codec::put(txn, &key, &row)?;
    let modseq = account.modseq()?;
    for place in &row.mailboxes {
        let other = (MailboxId::new(place.mailbox), super::uid(place.uid)?);
        if other == (mailbox, uid) {
            continue;
        }
        let key = keys::membership(account.id, other.0, other.1);
        let old = codec::expect::<MembershipRow>(txn, &key, "the membership").await?;
        let mut here = flags.clone();
        here.extend(flag_bits::read(old.flags & flag_bits::DELETED, &[]));
        write_membership(txn, account, (other.0, other.1, &old), (&here, modseq)).await?;
    }
    Ok(())
}

async fn write_membership(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    (mailbox, uid, old): (MailboxId, Uid, &MembershipRow),
    (flags, modseq): (&FlagSet, ModSeq),
) -> Result<(), Error> {
    account.mailbox(txn, mailbox).await?;
    let (flags, keywords) = flag_bits::write(flags);
    let new = MembershipRow { flags, keywords, modseq: modseq.get(), ..old.clone() };
    account.reflag(mailbox, uid, (old, &new))?;
    codec::put(txn, &keys::membership(account.id, mailbox, uid), &new)
}

fn changed(old: &FlagSet, change: FlagChange, flags: &FlagSet) -> FlagSet {
    match change {
        FlagChange::Add => old | flags,
        FlagChange::Remove => old - flags,
        FlagChange::Replace => flags.clone(),
    }
}

/// The answer to a repeat: what was refused then, and the others as they stand now.
async fn earlier(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    (mailbox, uids): (MailboxId, &[Uid]),
    done: &DoneRow,
) -> Result<FlagsSet, Error> {
    let refused: HashSet<u32> = done.refused.iter().copied().collect();
    let mut outcome = FlagsSet::default();
    for uid in uids {
        if refused.contains(&uid.get()) {
            outcome.modified.push(*uid);
            continue;
        }
        let key = keys::membership(writer.account, mailbox, *uid);
        if let Some(row) = codec::get::<MembershipRow>(txn, &key).await? {
            let flags = flag_bits::read(row.flags, &row.keywords);
            outcome.messages.push(FlagsOf { uid: *uid, modseq: super::modseq(row.modseq)?, flags });
        }
    }
    Ok(outcome)
}
