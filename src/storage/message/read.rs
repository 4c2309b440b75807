//! Reading messages: snapshots only, page by page, nothing that a writer waits for.

use std::ops::Range;

use bytes::Bytes;
use posthouse_mail::{AccountId, EmailId, MailboxId, Uid};

use super::{Email, Membership, Octets, flag_bits};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::{EmailRow, MailboxRow, MembershipRow};
use crate::store::Store;
use crate::transaction::Transaction;

/// A page of a mailbox, in Uid order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipPage {
    pub messages: Vec<Membership>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Uid>,
}

/// Messages of a mailbox from a Uid on, at most `limit` of them.
pub async fn memberships(
    store: &Store,
    account: AccountId,
    mailbox: MailboxId,
    from: Uid,
    limit: usize,
) -> Result<MembershipPage, Error> {
    page_of(&mut store.snapshot(), (account, mailbox), from, limit).await
}

pub(crate) async fn page_of(
    txn: &mut Transaction<'_>,
    (account, mailbox): (AccountId, MailboxId),
    from: Uid,
    limit: usize,
) -> Result<MembershipPage, Error> {
    let Some(row) = codec::get::<MailboxRow>(txn, &keys::mailbox(account, mailbox)).await? else {
        return Ok(MembershipPage::default());
    };
    // Rows at UidNext and above belong to a COPY that nobody may see yet.
    let Some(end) = Uid::new(row.uid_next).filter(|end| from < *end) else {
        return Ok(MembershipPage::default());
    };
    let mut range = keys::memberships_between(account, mailbox, from, end);
    let mut messages = Vec::new();
    loop {
        // Small pieces: their memory is used again while it is warm, and others get their turn between two.
        let wanted = (limit - messages.len()).min(SCAN_ROWS);
        let (found, more) = codec::scan::<MembershipRow>(txn, &range, wanted).await?;
        messages.reserve(if more { wanted } else { found.len() });
        for (key, row) in &found {
            messages.push(Membership::from_row(uid_of(key)?, row)?);
        }
        match found.last() {
            Some((key, _)) if more && messages.len() < limit => range.begin = keys::after(key),
            _ => {
                let next = if more { messages.last().and_then(|last| last.uid.next()) } else { None };
                return Ok(MembershipPage { messages, next });
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Rows read at once in a longer page.
const SCAN_ROWS: usize = 500;

/// The named messages of a mailbox; those that are not there are left out.
pub async fn memberships_of(
    store: &Store,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[Uid],
) -> Result<Vec<Membership>, Error> {
    let mut rows = store.snapshot();
    let mut found = Vec::with_capacity(uids.len());
    for uid in uids {
        let key = keys::membership(account, mailbox, *uid);
        if let Some(row) = codec::get::<MembershipRow>(&mut rows, &key).await? {
            found.push(Membership::from_row(*uid, &row)?);
        }
    }
    Ok(found)
}

/// Uids with `\Deleted`, in order: what EXPUNGE is about to take.
pub async fn deleted_uids(store: &Store, account: AccountId, mailbox: MailboxId) -> Result<Vec<Uid>, Error> {
    let mut deleted = Vec::new();
    let mut next = Some(Uid::FIRST);
    while let Some(from) = next {
        // A snapshot for each page: no snapshot lives long.
        let page = memberships(store, account, mailbox, from, 1000).await?;
        let marked = page.messages.iter().filter(|message| message.flags.contains(&posthouse_mail::Flag::Deleted));
        deleted.extend(marked.map(|message| message.uid));
        next = page.next;
    }
    Ok(deleted)
}

/// One email.
pub async fn email(store: &Store, account: AccountId, email: EmailId) -> Result<Option<Email>, Error> {
    let row = codec::get::<EmailRow>(&mut store.snapshot(), &keys::email(account, email)).await?;
    row.map(|row| Email::from_row(account, email, row)).transpose()
}

/// Several emails, in the order of their ids; `None` for each that is gone.
pub async fn emails(store: &Store, account: AccountId, ids: &[EmailId]) -> Result<Vec<Option<Email>>, Error> {
    let mut rows = store.snapshot();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = codec::get::<EmailRow>(&mut rows, &keys::email(account, *id)).await?;
        found.push(row.map(|row| Email::from_row(account, *id, row)).transpose()?);
    }
    Ok(found)
}

/// Octets of a message as a client sees it: the added header fields, then the body. A range that reaches over the end
/// is cut there.
pub async fn raw(store: &Store, email: &Email, range: Range<u64>) -> Result<Bytes, Error> {
    octets(store, &email.octets(), range).await
}

/// The same of a message whose email may be gone by now.
pub async fn octets(store: &Store, octets: &Octets, range: Range<u64>) -> Result<Bytes, Error> {
    let prefix = u64::try_from(octets.prefix.len()).unwrap_or(u64::MAX);
    let end = range.end.min(octets.size());
    let start = range.start.min(end);
    let index = |offset: u64| usize::try_from(offset.min(prefix)).unwrap_or(usize::MAX);
    let head = octets.prefix.slice(index(start)..index(end));
    if end <= prefix {
        return Ok(head);
    }
    let tail = store.body_read(&octets.body, start.saturating_sub(prefix)..end - prefix).await?;
    if head.is_empty() {
        return Ok(tail);
    }
    Ok([head, tail].concat().into())
}

/// A whole message; the caller holds a permit for its size.
pub async fn body(store: &Store, email: &Email) -> Result<Bytes, Error> {
    raw(store, email, 0..email.size()).await
}

pub(crate) fn uid_of(key: &[u8]) -> Result<Uid, Error> {
    super::uid(KeyParts::of(key).u32().unwrap_or(0))
}

pub(crate) fn is_seen(row: &MembershipRow) -> bool {
    row.flags & flag_bits::SEEN != 0
}

pub(crate) fn is_deleted(row: &MembershipRow) -> bool {
    row.flags & flag_bits::DELETED != 0
}
