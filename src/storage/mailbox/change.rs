//! Creating, renaming and deleting mailboxes: one transaction each, but for the renaming of INBOX.

use posthouse_mail::{AccountId, IngestId, MailboxId, ModSeq, SpecialUse, Uid};

use super::name::{self, SEPARATOR};
use super::{Changed, Create, Delete, NameLimits, Rename, canonical, role_number};
use crate::codec;
use crate::done;
use crate::error::Error;
use crate::keys;
use crate::message;
use crate::record::account::IdRow;
use crate::record::{DoneRow, MailboxRow, RoleMailbox};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Itself, Writer, boxed};

/// Makes a mailbox and every level above it that is missing.
pub async fn create(store: &Store, writer: &Writer, request: &Create) -> Result<Changed, Error> {
    writer.run(store, |txn| boxed(create_in(txn, writer, request))).await
}

/// Renames a mailbox with everything below it. Renaming INBOX moves its messages to a new mailbox and leaves it empty
/// (RFC 9051 §6.3.6).
pub async fn rename(store: &Store, writer: &Writer, request: &Rename) -> Result<Changed, Error> {
    if canonical(&request.from).as_deref() != Some("INBOX") {
        return writer.run(store, |txn| boxed(rename_in(txn, writer, request))).await;
    }
    let create = Create { request: request.request, path: request.to.clone(), role: None, limits: request.limits };
    let created = self::create(store, writer, &create).await?;
    let inbox = find(&mut store.snapshot(), writer.account, "INBOX").await?.ok_or(Error::NotFound)?;
    let mut from = Some(Uid::FIRST);
    let mut moved = created.modseq;
    while let Some(first) = from {
        let page = message::memberships(store, writer.account, inbox, first, message::CHUNK).await?;
        // What a repeat finds in INBOX is what is left to move: each chunk is named by its first Uid.
        if let Some(first) = page.messages.first() {
            let copy = message::Copy {
                request: chunk_request(request.request, first.uid),
                source: inbox,
                target: created.mailbox,
                uids: page.messages.iter().map(|message| message.uid).collect(),
            };
            moved = message::move_to(store, writer, &copy).await?.modseq.unwrap_or(moved);
        }
        from = page.next;
    }
    Ok(Changed { modseq: moved, ..created })
}

/// A request of its own for one chunk of a larger one, the same at every repeat.
fn chunk_request(request: IngestId, first: Uid) -> IngestId {
    IngestId::new(request.get() ^ (u128::from(first.get()) << 16))
}

/// Deletes a mailbox: it is gone at once, its messages go with the sweep. INBOX and mailboxes with children stay
/// (RFC 9051 §6.3.5).
pub async fn delete(store: &Store, writer: &Writer, request: &Delete) -> Result<Changed, Error> {
    writer.run(store, |txn| boxed(delete_in(txn, writer, request))).await
}

/// Adds a path to the subscriptions or removes it; the mailbox need not exist (RFC 9051 §6.3.7).
pub async fn set_subscribed(store: &Store, writer: &Writer, path: &str, subscribed: bool) -> Result<(), Error> {
    let path = canonical(path).ok_or(Error::Invalid("a mailbox cannot have this name"))?;
    // A bound on what stands in a key.
    if path.len() > SUBSCRIPTION_MAX {
        return Err(Error::Limit { what: "characters in a mailbox name" });
    }
    let path = &path;
    writer.run(store, |txn| boxed(set_subscribed_in(txn, writer, path, subscribed))).await
}

/// Octets of a subscribed path.
const SUBSCRIPTION_MAX: usize = 2000;

async fn set_subscribed_in(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    path: &str,
    subscribed: bool,
) -> Result<(), Error> {
    let mut account = AccountState::open(txn, writer).await?;
    let key = keys::subscription(writer.account, path);
    match (txn.get(&key).await?.is_some(), subscribed) {
        (false, true) => {
            txn.set(&key, &[]);
            account.touch().subscription_count += 1;
        }
        (true, false) => {
            txn.clear(&key);
            let row = account.touch();
            row.subscription_count = row.subscription_count.saturating_sub(1);
        }
        _ => {}
    }
    account.save(txn)?;
    Ok(())
}

async fn create_in(txn: &mut Transaction<'_>, writer: &Writer, request: &Create) -> Result<Changed, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open(txn, writer).await?;
    let path = name::check_new(&request.path, request.limits)?;
    let (parent, leaf) = parents(txn, &mut account, &path, request.limits).await?;
    if find_child(txn, account.id, parent, leaf).await?.is_some() {
        return Err(Error::Exists);
    }
    let new = NewRow { parent, name: leaf, role: request.role };
    let id = create_row(txn, &mut account, new, Some(request.limits))?;
    finish(txn, account, (request.request, id))
}

async fn rename_in(txn: &mut Transaction<'_>, writer: &Writer, request: &Rename) -> Result<Changed, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open(txn, writer).await?;
    let from = canonical(&request.from).ok_or(Error::NotFound)?;
    let to = name::check_new(&request.to, request.limits)?;
    let id = find(txn, account.id, &from).await?.ok_or(Error::NotFound)?;
    if to == from {
        return Err(Error::Exists);
    }
    // RFC 9051 §6.3.6: everything below is renamed with it, so it cannot go below itself.
    if to.strip_prefix(&from).is_some_and(|rest| rest.starts_with(SEPARATOR)) {
        return Err(Error::Invalid("a mailbox cannot go below itself"));
    }
    let (parent, leaf) = parents(txn, &mut account, &to, request.limits).await?;
    if find_child(txn, account.id, parent, leaf).await?.is_some() {
        return Err(Error::Exists);
    }
    let row = account.mailbox(txn, id).await?;
    let old = (MailboxId::new(row.parent), std::mem::replace(&mut row.name, leaf.to_owned()));
    row.parent = parent.map_or(0, MailboxId::get);
    account.note(id, Itself::Changed)?;
    txn.clear(&keys::mailbox_name(account.id, Some(old.0).filter(|id| id.get() != 0), &old.1));
    codec::insert(txn, &keys::mailbox_name(account.id, parent, leaf), &IdRow { id: id.get() })?;
    finish(txn, account, (request.request, id))
}

async fn delete_in(txn: &mut Transaction<'_>, writer: &Writer, request: &Delete) -> Result<Changed, Error> {
    if let Some(done) = done::find(txn, writer.account, request.request, 0).await? {
        return earlier(&done);
    }
    let mut account = AccountState::open(txn, writer).await?;
    let path = canonical(&request.path).ok_or(Error::NotFound)?;
    if path == "INBOX" {
        return Err(Error::Invalid("INBOX cannot be deleted"));
    }
    let id = find(txn, account.id, &path).await?.ok_or(Error::NotFound)?;
    if codec::any(txn, &keys::mailbox_names(account.id, Some(id))).await? {
        return Err(Error::HasChildren);
    }
    let now = account.now;
    let row = account.mailbox(txn, id).await?;
    row.deleted_at = Some(now.0);
    let parent = Some(MailboxId::new(row.parent)).filter(|id| id.get() != 0);
    let name = row.name.clone();
    txn.clear(&keys::mailbox_name(account.id, parent, &name));
    account.note(id, Itself::Deleted)?;
    let row = account.touch();
    row.roles.retain(|entry| entry.mailbox != id.get());
    row.mailbox_count = row.mailbox_count.saturating_sub(1);
    row.sweeping.push(id.get());
    finish(txn, account, (request.request, id))
}

fn finish(
    txn: &mut Transaction<'_>,
    mut account: AccountState,
    (request, mailbox): (IngestId, MailboxId),
) -> Result<Changed, Error> {
    let id = account.id;
    account.will_prove();
    let modseq = account.save(txn)?.ok_or_else(|| Error::Corrupt("a mailbox changed without a ModSeq".to_owned()))?;
    let done = DoneRow { modseq: modseq.get(), mailbox: mailbox.get(), ..DoneRow::default() };
    done::record(txn, id, (request, 0), &done)?;
    Ok(Changed { mailbox, modseq })
}

fn earlier(done: &DoneRow) -> Result<Changed, Error> {
    let modseq = ModSeq::new(done.modseq);
    Ok(Changed {
        mailbox: MailboxId::new(done.mailbox),
        modseq: modseq.ok_or_else(|| Error::Corrupt("a done row has the ModSeq 0".to_owned()))?,
    })
}

/// The mailbox above the last level of a path, made if it is missing, and that level.
async fn parents<'p>(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    path: &'p str,
    limits: NameLimits,
) -> Result<(Option<MailboxId>, &'p str), Error> {
    let mut parent = None;
    let mut levels = path.split(SEPARATOR).peekable();
    while let Some(level) = levels.next() {
        if levels.peek().is_none() {
            return Ok((parent, level));
        }
        parent = Some(match find_child(txn, account.id, parent, level).await? {
            Some(id) => id,
            None => create_row(txn, account, NewRow { parent, name: level, role: None }, Some(limits))?,
        });
    }
    Err(Error::Invalid("a mailbox cannot have this name"))
}

/// A mailbox by its canonical path.
pub(crate) async fn find(
    txn: &mut Transaction<'_>,
    account: AccountId,
    path: &str,
) -> Result<Option<MailboxId>, Error> {
    let mut found = None;
    for level in path.split(SEPARATOR) {
        match find_child(txn, account, found, level).await? {
            Some(id) => found = Some(id),
            None => return Ok(None),
        }
    }
    Ok(found)
}

async fn find_child(
    txn: &mut Transaction<'_>,
    account: AccountId,
    parent: Option<MailboxId>,
    name: &str,
) -> Result<Option<MailboxId>, Error> {
    let row = codec::get::<IdRow>(txn, &keys::mailbox_name(account, parent, name)).await?;
    Ok(row.map(|row| MailboxId::new(row.id)))
}

/// A mailbox about to be made.
pub(crate) struct NewRow<'a> {
    pub parent: Option<MailboxId>,
    pub name: &'a str,
    pub role: Option<SpecialUse>,
}

/// Writes the rows of a new mailbox.
pub(crate) fn create_row(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    new: NewRow<'_>,
    limits: Option<NameLimits>,
) -> Result<MailboxId, Error> {
    let count = usize::try_from(account.row.mailbox_count).unwrap_or(usize::MAX);
    if limits.is_some_and(|limits| count >= limits.mailboxes_max) {
        return Err(Error::Limit { what: "mailboxes" });
    }
    let role = new.role.map_or(0, role_number);
    if role != 0 && account.row.roles.iter().any(|entry| entry.role == role) {
        // RFC 6154 §3: an account has one mailbox for each use.
        return Err(Error::Exists);
    }
    let id = account.next_mailbox()?;
    let row = MailboxRow {
        name: new.name.to_owned(),
        parent: new.parent.map_or(0, MailboxId::get),
        role,
        uid_validity: account.next_uid_validity()?.get(),
        uid_next: Uid::FIRST.get(),
        ..MailboxRow::default()
    };
    account.adopt_mailbox(id, row);
    account.note(id, Itself::Created)?;
    let of_account = account.touch();
    of_account.mailbox_count += 1;
    if role != 0 {
        of_account.roles.push(RoleMailbox { role, mailbox: id.get() });
    }
    codec::insert(txn, &keys::mailbox_name(account.id, new.parent, new.name), &IdRow { id: id.get() })?;
    Ok(id)
}
