//! An account in memory: as its rows say, as it will be, and the edits between.

use std::collections::{BTreeMap, BTreeSet};

use posthouse_mail::stage::BodyRef;
use posthouse_mail::{AccountId, EmailId, MailboxId, ModSeq, ThreadId, Uid};

use super::email_id;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::mailbox::id_of;
use crate::message::read::{is_deleted, is_seen, uid_of};
use crate::record::account::IdRow;
use crate::record::{AccountRow, ChangeRow, DoneRow, EmailMailbox, EmailRow, LockRow, MailboxRow, MembershipRow};
use crate::repair::pen::{Edit, Pen};
use crate::thread;

/// What of an email its neighbours must agree with.
pub(super) struct Email {
    pub mailboxes: Vec<EmailMailbox>,
    pub flags: u32,
    pub keywords: Vec<String>,
    pub size: u64,
    pub received_at: u64,
    pub thread: u64,
    pub hashes: BTreeSet<u64>,
    pub body: BodyRef,
    /// Its row has to be written.
    pub dirty: bool,
}

pub(super) struct Model {
    pub id: AccountId,
    pub row: AccountRow,
    /// The row as it is; `None`: it is lost.
    pub was: Option<AccountRow>,
    pub mailboxes: BTreeMap<u64, MailboxRow>,
    pub names: BTreeMap<(u64, String), u64>,
    pub emails: BTreeMap<u64, Email>,
    pub members: BTreeMap<(u64, u32), MembershipRow>,
    threads: BTreeMap<(u64, u64), u64>,
    index: BTreeMap<(u64, u64), u64>,
    pub subscriptions: u64,
    pub dones: u64,
    pub has_lock: bool,
    pub has_credential: bool,
    pub is_admin: bool,
    /// The change log is as it must be.
    pub log_is_whole: bool,
    pub log_last: u64,
    /// Something that a client sees changed under this number.
    pub modseq: Option<u64>,
    pub edits: Vec<Edit>,
    pub notes: Vec<(String, String)>,
    were: BTreeMap<u64, MailboxRow>,
}

impl Email {
    pub(super) fn of(row: &EmailRow) -> Result<Self, Error> {
        Ok(Self {
            mailboxes: row.mailboxes.clone(),
            flags: row.flags,
            keywords: row.keywords.clone(),
            size: row.size(),
            received_at: row.received_at,
            thread: row.thread,
            hashes: row.structure.as_ref().map(thread::hashes).unwrap_or_default(),
            body: row.body()?,
            dirty: false,
        })
    }
}

impl Model {
    pub(super) async fn load(pen: &Pen<'_>, id: AccountId) -> Result<Self, Error> {
        let mut txn = pen.store.snapshot();
        let was = codec::get::<AccountRow>(&mut txn, &keys::account(id)).await?;
        let mut model = Self {
            id,
            row: was.clone().unwrap_or_default(),
            was,
            mailboxes: BTreeMap::new(),
            names: BTreeMap::new(),
            emails: BTreeMap::new(),
            members: BTreeMap::new(),
            threads: BTreeMap::new(),
            index: BTreeMap::new(),
            subscriptions: 0,
            dones: 0,
            has_lock: codec::get::<LockRow>(&mut txn, &keys::lock(id)).await?.is_some(),
            has_credential: txn.get(&keys::credential(id)).await?.is_some(),
            is_admin: txn.get(&keys::admin(id)).await?.is_some(),
            log_is_whole: true,
            log_last: 0,
            modseq: None,
            edits: Vec::new(),
            notes: Vec::new(),
            were: BTreeMap::new(),
        };
        model.load_mailboxes(pen).await?;
        model.load_mail(pen).await?;
        model.load_log(pen).await?;
        Ok(model)
    }

    async fn load_mailboxes(&mut self, pen: &Pen<'_>) -> Result<(), Error> {
        for (key, row) in pen.records::<MailboxRow>(keys::mailboxes(self.id)).await? {
            self.mailboxes.insert(id_of(&key)?.get(), row);
        }
        self.were = self.mailboxes.clone();
        for (key, row) in pen.records::<IdRow>(keys::all_mailbox_names(self.id)).await? {
            let name = KeyParts::of(&key).text_after(keys::MAILBOX_NAME_WIDTH);
            let parent = key.get(keys::OWNED_ID_WIDTH..keys::MAILBOX_NAME_WIDTH).and_then(|id| id.try_into().ok());
            let name = name.and_then(|name| String::from_utf8(name).ok());
            if let (Some(parent), Some(name)) = (parent.map(u64::from_be_bytes), name) {
                self.names.insert((parent, name), row.id);
            }
        }
        let subscriptions = pen.rows(keys::subscriptions(self.id)).await?;
        self.subscriptions = u64::try_from(subscriptions.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    async fn load_mail(&mut self, pen: &Pen<'_>) -> Result<(), Error> {
        for (key, row) in pen.records::<EmailRow>(keys::emails(self.id)).await? {
            self.emails.insert(KeyParts::of(&key).u64().unwrap_or(0), Email::of(&row)?);
        }
        for (key, row) in pen.records::<MembershipRow>(keys::all_memberships(self.id)).await? {
            let uid = uid_of(&key)?;
            let mut parts = KeyParts::of(&key);
            let _ = parts.u32();
            self.members.insert((parts.u64().unwrap_or(0), uid.get()), row);
        }
        for (key, row) in pen.records::<IdRow>(keys::threads(self.id)).await? {
            let mut parts = KeyParts::of(&key);
            let email = parts.u64().unwrap_or(0);
            self.threads.insert((parts.u64().unwrap_or(0), email), row.id);
        }
        for (key, row) in pen.records::<IdRow>(keys::thread_indexes(self.id)).await? {
            let mut parts = KeyParts::of(&key);
            let email = parts.u64().unwrap_or(0);
            self.index.insert((parts.u64().unwrap_or(0), email), row.id);
        }
        Ok(())
    }

    async fn load_log(&mut self, pen: &Pen<'_>) -> Result<(), Error> {
        let mut last = self.row.change_floor;
        for (key, row) in pen.records::<ChangeRow>(keys::changes(self.id)).await? {
            let modseq = crate::change_log::modseq_of(&key)?.get();
            self.log_is_whole &= modseq == last + 1;
            last = modseq;
            for change in &row.mailboxes {
                let mailbox = self.mailboxes.get(&change.mailbox).filter(|row| row.deleted_at.is_none());
                self.log_is_whole &= mailbox.is_none_or(|mailbox| mailbox.highest_modseq >= modseq);
            }
        }
        self.log_is_whole &= last == self.row.modseq;
        self.log_last = last;
        let dones = pen.records::<DoneRow>(keys::dones(self.id)).await?;
        self.dones = u64::try_from(dones.len()).unwrap_or(u64::MAX);
        let latest = dones.iter().map(|(_, row)| row.modseq).max().unwrap_or(0);
        self.log_last = self.log_last.max(latest);
        Ok(())
    }

    /// Nothing tells that there was an account.
    pub(super) fn is_empty(&self) -> bool {
        self.was.is_none() && self.mailboxes.is_empty() && self.emails.is_empty() && self.members.is_empty()
    }

    pub(super) fn note(&mut self, place: impl std::fmt::Display, what: impl Into<String>) {
        let place = format!("account {} {place}", self.id);
        self.notes.push((place.trim_end().to_owned(), what.into()));
    }

    /// The one new ModSeq under which clients see what was mended.
    pub(super) fn next_modseq(&mut self) -> u64 {
        let highest =
            self.members.values().map(|row| row.modseq).chain(self.mailboxes.values().map(|m| m.highest_modseq));
        let last = highest.chain([self.row.modseq, self.log_last]).max().unwrap_or(0);
        *self.modseq.get_or_insert(last + 1)
    }

    /// Gives a message a place in a mailbox.
    pub(super) fn place(&mut self, (mailbox, uid): (u64, u32), email: u64, deleted: u32) {
        let modseq = self.next_modseq();
        let Some(of) = self.emails.get(&email) else { return };
        let row = MembershipRow {
            email,
            modseq,
            flags: of.flags | deleted,
            keywords: of.keywords.clone(),
            size: of.size,
            received_at: of.received_at,
        };
        let key = keys::membership(self.id, MailboxId::new(mailbox), Uid::new(uid).unwrap_or(Uid::FIRST));
        self.edits.push(Edit::record(&key, &row));
        self.members.insert((mailbox, uid), row);
        if let Some(mailbox) = self.mailboxes.get_mut(&mailbox) {
            mailbox.highest_modseq = modseq;
            mailbox.uid_next = mailbox.uid_next.max(uid.saturating_add(1));
        }
    }

    /// The first free Uid of a mailbox.
    pub(super) fn free_uid(&self, mailbox: u64) -> u32 {
        let next = self.mailboxes.get(&mailbox).map_or(1, |row| row.uid_next.max(1));
        let last = self.members.range((mailbox, 0)..=(mailbox, u32::MAX)).next_back().map_or(0, |((_, uid), _)| *uid);
        next.max(last.saturating_add(1))
    }

    /// Counters and threads are those of what is there.
    pub(super) fn sums(&mut self) {
        for (id, row) in self.mailboxes.iter_mut().filter(|(_, row)| row.deleted_at.is_none()) {
            let (mut messages, mut unseen, mut deleted, mut size, mut modseq) = (0, 0, 0, 0_u64, 0);
            let mut next = row.uid_next.max(1);
            for ((_, uid), member) in self.members.range((*id, 0)..=(*id, u32::MAX)) {
                messages += 1;
                unseen += u32::from(!is_seen(member));
                deleted += u32::from(is_deleted(member));
                size = size.saturating_add(member.size);
                modseq = modseq.max(member.modseq);
                next = next.max(uid.saturating_add(1));
            }
            (row.messages, row.unseen, row.deleted, row.size, row.uid_next) = (messages, unseen, deleted, size, next);
            row.highest_modseq = row.highest_modseq.max(modseq).max(1);
        }
        let row = &mut self.row;
        row.quota_used = self.emails.values().map(|email| email.size).sum();
        row.email_count = u64::try_from(self.emails.len()).unwrap_or(u64::MAX);
        let above = |last: Option<&u64>| last.map_or(1, |last| last.saturating_add(1));
        row.next_email = row.next_email.max(above(self.emails.keys().next_back()));
        row.next_mailbox = row.next_mailbox.max(above(self.mailboxes.keys().next_back()));
        row.next_thread = row.next_thread.max(above(self.emails.values().map(|email| &email.thread).max()));
        let alive = self.mailboxes.values().filter(|row| row.deleted_at.is_none());
        row.mailbox_count = u32::try_from(alive.count()).unwrap_or(u32::MAX);
        row.uid_validity = row.uid_validity.max(self.mailboxes.values().map(|row| row.uid_validity).max().unwrap_or(1));
        self.thread_edits();
    }

    fn thread_edits(&mut self) {
        let mut threads = BTreeMap::new();
        let mut index = BTreeMap::new();
        for (id, email) in &self.emails {
            threads.insert((email.thread, *id), email.thread);
            index.extend(email.hashes.iter().map(|hash| ((*hash, *id), email.thread)));
        }
        let account = self.id;
        let thread = |(thread, email): (u64, u64)| keys::thread_email(account, ThreadId::new(thread), email_id(email));
        let hash = |(hash, email): (u64, u64)| keys::thread_index(account, hash, email_id(email));
        let mut edits = differences(&threads, &self.threads, thread);
        edits.extend(differences(&index, &self.index, hash));
        let count = edits.len();
        self.edits.extend(edits);
        if count > 0 {
            self.note("", format!("{count} rows of threads made to fit the emails"));
        }
    }

    /// Writes what differs, the account's own row last.
    pub(super) async fn finish(mut self, pen: &mut Pen<'_>) -> Result<(), Error> {
        let highest = self.mailboxes.values().map(|row| row.highest_modseq).max().unwrap_or(0);
        self.row.modseq = self.row.modseq.max(self.log_last).max(highest).max(self.modseq.unwrap_or(0));
        if !self.log_is_whole || self.modseq.is_some() || Some(self.row.modseq) != self.was.as_ref().map(|r| r.modseq) {
            self.edits.push(Edit::ClearRange(keys::changes(self.id)));
            self.row.change_floor = self.row.modseq;
            self.note("", "its change log begins anew: clients read their mailboxes once in full");
        }
        let changed: Vec<u64> =
            self.mailboxes.iter().filter(|(id, row)| self.were.get(id) != Some(row)).map(|(id, _)| *id).collect();
        for id in changed {
            let row = &self.mailboxes[&id];
            self.edits.push(Edit::record(&keys::mailbox(self.id, MailboxId::new(id)), row));
            self.note(MailboxId::new(id), "its row is what its messages tell");
        }
        if self.was.as_ref() != Some(&self.row) {
            self.edits.push(Edit::record(&keys::account(self.id), &self.row));
            self.note("", "its row is what its contents tell");
        }
        pen.write(&self.edits).await?;
        self.notes.into_iter().for_each(|(place, what)| pen.say(place, what));
        Ok(())
    }
}

/// Edits that make rows of an id under two numbers what they have to be.
fn differences(
    right: &BTreeMap<(u64, u64), u64>,
    present: &BTreeMap<(u64, u64), u64>,
    key: impl Fn((u64, u64)) -> keys::Key,
) -> Vec<Edit> {
    let lost = right.iter().filter(|(place, id)| present.get(place) != Some(id));
    let lost = lost.map(|(place, id)| Edit::record(&key(*place), &IdRow { id: *id }));
    let stray = present.keys().filter(|place| !right.contains_key(place));
    lost.chain(stray.map(|place| Edit::Clear(key(*place).to_vec()))).collect()
}

/// A thread that no email has.
pub(super) fn new_thread(model: &mut Model) -> u64 {
    let used = model.emails.values().map(|email| email.thread).max().unwrap_or(0);
    let thread = model.row.next_thread.max(used.saturating_add(1)).max(1);
    model.row.next_thread = thread.saturating_add(1);
    thread
}

/// The thread that rows still name for an email.
pub(super) fn thread_of(model: &Model, email: u64) -> Option<u64> {
    let named = model.threads.keys().find(|(_, of)| *of == email).map(|(thread, _)| *thread);
    named.or_else(|| model.index.iter().find(|((_, of), _)| *of == email).map(|(_, thread)| *thread))
}

/// An email's key.
pub(super) fn email_key(model: &Model, email: u64) -> keys::Key {
    keys::email(model.id, EmailId::new(email))
}

/// A ModSeq that a row may have.
pub(super) fn is_modseq(value: u64) -> bool {
    ModSeq::new(value).is_some()
}
