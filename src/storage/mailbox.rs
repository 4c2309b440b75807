//! Mailboxes of an account: listing, creating, renaming, deleting and subscribing to them.
//!
//! A row holds its own name and its parent, so that renaming a tree is one row; the path with `/` between levels is made
//! when it is read. A deleted mailbox is a tombstone until the sweep has taken its messages.

mod change;
mod name;
mod sweep;

use std::collections::{HashMap, HashSet};

use posthouse_mail::{AccountId, IngestId, MailboxId, ModSeq, SpecialUse, Uid, UidValidity};

pub(crate) use change::{NewRow, create_row};
pub use change::{create, delete, rename, set_subscribed};
pub use name::{SEPARATOR, canonical};
pub use sweep::sweep;

use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::message;
use crate::record::MailboxRow;
use crate::store::Store;
use crate::transaction::Transaction;

/// One mailbox as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    pub id: MailboxId,
    /// Levels joined by `/`; the inbox is `INBOX`.
    pub path: String,
    pub role: Option<SpecialUse>,
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    pub highest_modseq: ModSeq,
    pub messages: u32,
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Octets of all messages.
    pub size: u64,
    pub subscribed: bool,
    pub has_children: bool,
}

/// Bounds of `conf.mailbox` that hold for names.
#[derive(Debug, Clone, Copy)]
pub struct NameLimits {
    pub mailboxes_max: usize,
    /// Characters of a path.
    pub name_max: usize,
    pub depth_max: usize,
}

/// CREATE, with every missing level above it (RFC 9051 §6.3.4).
#[derive(Debug, Clone)]
pub struct Create {
    pub request: IngestId,
    pub path: String,
    /// RFC 6154 §3 CREATE with USE.
    pub role: Option<SpecialUse>,
    pub limits: NameLimits,
}

/// RENAME (RFC 9051 §6.3.6).
#[derive(Debug, Clone)]
pub struct Rename {
    pub request: IngestId,
    pub from: String,
    pub to: String,
    pub limits: NameLimits,
}

/// DELETE (RFC 9051 §6.3.5).
#[derive(Debug, Clone)]
pub struct Delete {
    pub request: IngestId,
    pub path: String,
}

/// A change of a mailbox that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    pub mailbox: MailboxId,
    pub modseq: ModSeq,
}

/// Every mailbox of an account, sorted by path with INBOX first.
pub async fn list(store: &Store, account: AccountId) -> Result<Vec<Mailbox>, Error> {
    list_in(&mut store.snapshot(), account).await
}

pub(crate) async fn list_in(txn: &mut Transaction<'_>, account: AccountId) -> Result<Vec<Mailbox>, Error> {
    let rows = rows(txn, account).await?;
    let subscribed = subscribed_in(txn, account).await?;
    let by_id: HashMap<u64, &MailboxRow> = rows.iter().map(|(id, row)| (id.get(), row)).collect();
    let parents: HashSet<u64> = rows.iter().map(|(_, row)| row.parent).collect();
    let mut mailboxes = Vec::with_capacity(rows.len());
    for (id, row) in &rows {
        let path = path_of(row, &by_id)?;
        let mut mailbox = read(*id, row, path)?;
        mailbox.subscribed = subscribed.contains(&mailbox.path);
        mailbox.has_children = parents.contains(&id.get());
        mailboxes.push(mailbox);
    }
    mailboxes.sort_by(|a, b| (a.path != "INBOX").cmp(&(b.path != "INBOX")).then_with(|| a.path.cmp(&b.path)));
    Ok(mailboxes)
}

/// A mailbox by its path; INBOX in any case.
pub async fn by_path(store: &Store, account: AccountId, path: &str) -> Result<Option<Mailbox>, Error> {
    let mut txn = store.snapshot();
    let Some(path) = canonical(path) else { return Ok(None) };
    let Some(id) = change::find(&mut txn, account, &path).await? else { return Ok(None) };
    one(&mut txn, account, id, path).await
}

/// A mailbox by its id.
pub async fn by_id(store: &Store, account: AccountId, id: MailboxId) -> Result<Option<Mailbox>, Error> {
    let mut txn = store.snapshot();
    let mut path = Vec::new();
    let mut next = id.get();
    // A path has few levels; damage must not turn this into an endless loop.
    while next != 0 && path.len() < name::DEPTH_BOUND {
        let key = keys::mailbox(account, MailboxId::new(next));
        let Some(row) = codec::get::<MailboxRow>(&mut txn, &key).await? else { return Ok(None) };
        next = row.parent;
        path.push(row.name);
    }
    path.reverse();
    one(&mut txn, account, id, path.join(SEPARATOR)).await
}

/// The mailbox with a special use.
pub async fn by_role(store: &Store, account: AccountId, role: SpecialUse) -> Result<Option<Mailbox>, Error> {
    let row = codec::get::<crate::record::AccountRow>(&mut store.snapshot(), &keys::account(account)).await?;
    let found = row.and_then(|row| row.roles.into_iter().find(|entry| entry.role == role_number(role)));
    match found {
        Some(entry) => by_id(store, account, MailboxId::new(entry.mailbox)).await,
        None => Ok(None),
    }
}

/// Every subscribed path, also of mailboxes that are gone (RFC 9051 §6.3.7).
pub async fn subscriptions(store: &Store, account: AccountId) -> Result<Vec<String>, Error> {
    let mut paths: Vec<String> = subscribed_in(&mut store.snapshot(), account).await?.into_iter().collect();
    paths.sort();
    Ok(paths)
}

async fn one(
    txn: &mut Transaction<'_>,
    account: AccountId,
    id: MailboxId,
    path: String,
) -> Result<Option<Mailbox>, Error> {
    let row = codec::get::<MailboxRow>(txn, &keys::mailbox(account, id)).await?;
    let Some(row) = row.filter(|row| row.deleted_at.is_none()) else { return Ok(None) };
    let mut mailbox = read(id, &row, path)?;
    mailbox.subscribed = txn.get(&keys::subscription(account, &mailbox.path)).await?.is_some();
    mailbox.has_children = codec::any(txn, &keys::mailbox_names(account, Some(id))).await?;
    Ok(Some(mailbox))
}

/// Rows of mailboxes that are not deleted.
pub(crate) async fn rows(txn: &mut Transaction<'_>, account: AccountId) -> Result<Vec<(MailboxId, MailboxRow)>, Error> {
    let rows = codec::scan_all::<MailboxRow>(txn, &keys::mailboxes(account)).await?;
    let alive = rows.into_iter().filter(|(_, row)| row.deleted_at.is_none());
    alive.map(|(key, row)| Ok((id_of(&key)?, row))).collect()
}

pub(crate) async fn subscribed_in(txn: &mut Transaction<'_>, account: AccountId) -> Result<HashSet<String>, Error> {
    let mut range = keys::subscriptions(account);
    let mut paths = HashSet::new();
    loop {
        let page = codec::page(txn, &range, 1000).await?;
        paths.extend(page.rows.iter().filter_map(|(key, _)| subscribed_path(key)));
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(paths),
        }
    }
}

/// The path that the key of a subscription tells.
pub(crate) fn subscribed_path(key: &[u8]) -> Option<String> {
    KeyParts::of(key).text_after(keys::OWNED_ID_WIDTH).and_then(|text| String::from_utf8(text).ok())
}

fn read(id: MailboxId, row: &MailboxRow, path: String) -> Result<Mailbox, Error> {
    let uid_validity = UidValidity::new(row.uid_validity);
    Ok(Mailbox {
        id,
        path,
        role: role_of(row.role),
        uid_validity: uid_validity.ok_or_else(|| Error::Corrupt("a mailbox has the UidValidity 0".to_owned()))?,
        uid_next: message::uid(row.uid_next)?,
        highest_modseq: message::modseq(row.highest_modseq)?,
        messages: row.messages,
        unseen: row.unseen,
        deleted: row.deleted,
        size: row.size,
        subscribed: false,
        has_children: false,
    })
}

pub(crate) fn path_of(row: &MailboxRow, by_id: &HashMap<u64, &MailboxRow>) -> Result<String, Error> {
    let mut levels = vec![row.name.as_str()];
    let mut parent = row.parent;
    while parent != 0 {
        let above = by_id.get(&parent).filter(|_| levels.len() < name::DEPTH_BOUND);
        let above = above.ok_or_else(|| Error::Corrupt("a mailbox has no parent".to_owned()))?;
        levels.push(&above.name);
        parent = above.parent;
    }
    levels.reverse();
    Ok(levels.join(SEPARATOR))
}

pub(crate) fn id_of(key: &[u8]) -> Result<MailboxId, Error> {
    let id = KeyParts::of(key).u64();
    id.map(MailboxId::new).ok_or_else(|| Error::Corrupt("a mailbox row has no id".to_owned()))
}

/// A special use's number in rows; fixed for ever.
pub(crate) fn role_number(role: SpecialUse) -> u32 {
    match role {
        SpecialUse::Inbox => 1,
        SpecialUse::Drafts => 2,
        SpecialUse::Sent => 3,
        SpecialUse::Junk => 4,
        SpecialUse::Trash => 5,
        SpecialUse::Archive => 6,
    }
}

pub(crate) fn role_of(number: u32) -> Option<SpecialUse> {
    SpecialUse::DEFAULTS.into_iter().map(|(role, _)| role).find(|role| role_number(*role) == number)
}

#[cfg(test)]
mod tests;
