//! One account: sums, ids, emails against memberships, threads, change log, proofs.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use posthouse_mail::{AccountId, EmailId, MailboxId, ModSeq, ThreadId, Uid};

use super::{Report, Rule, STEP, Source};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::mailbox::id_of;
use crate::message::flag_bits;
use crate::message::read::{is_deleted, is_seen, uid_of};
use crate::record::account::IdRow;
use crate::record::{AccountRow, ChangeRow, DoneRow, EmailRow, LockRow, MailboxRow, MembershipRow, UidRange};
use crate::thread;
use crate::transaction::Transaction;

/// Proves everything about one account.
pub(super) async fn walk(source: &mut Source, id: AccountId, report: &mut Report) -> Result<(), Error> {
    let Some(row) = codec::get::<AccountRow>(source.step(), &keys::account(id)).await? else { return Ok(()) };
    if row.deleted_at.is_some() {
        // The sweep takes its rows in no order that would mean anything.
        return Ok(());
    }
    let mut walk = Walk { id, row, mailboxes: BTreeMap::new(), report };
    walk.mailboxes(source).await?;
    walk.emails(source).await?;
    walk.threads(source).await?;
    walk.changes(source).await?;
    walk.dones(source).await?;
    codec::get::<LockRow>(source.step(), &keys::lock(id)).await.map(|_| ())
}

struct Walk<'r> {
    id: AccountId,
    row: AccountRow,
    mailboxes: BTreeMap<u64, MailboxRow>,
    report: &'r mut Report,
}

/// What a mailbox's counters should be.
#[derive(Default)]
struct Sums {
    messages: u32,
    unseen: u32,
    deleted: u32,
    size: u64,
    modseq: u64,
}

impl Walk<'_> {
    fn find(&mut self, rule: Rule, place: impl std::fmt::Display, detail: impl Into<String>) {
        let place = format!("account {} {place}", self.id);
        self.report.add(rule, place, detail);
    }

    async fn mailboxes(&mut self, source: &mut Source) -> Result<(), Error> {
        let rows = codec::scan_all::<MailboxRow>(source.step(), &keys::mailboxes(self.id)).await?;
        for (key, row) in rows {
            self.mailboxes.insert(id_of(&key)?.get(), row);
        }
        self.tree(source).await?;
        let ids: Vec<u64> = self.mailboxes.keys().copied().collect();
        for id in ids {
            self.mailbox(source, MailboxId::new(id)).await?;
        }
        Ok(())
    }

    async fn tree(&mut self, source: &mut Source) -> Result<(), Error> {
        let alive: Vec<(u64, MailboxRow)> = self
            .mailboxes
            .iter()
            .filter(|(_, row)| row.deleted_at.is_none())
            .map(|(id, row)| (*id, row.clone()))
            .collect();
        for (id, row) in &alive {
            let parent = Some(MailboxId::new(row.parent)).filter(|parent| parent.get() != 0);
            let name = codec::get::<IdRow>(source.step(), &keys::mailbox_name(self.id, parent, &row.name)).await?;
            if name.map(|name| name.id) != Some(*id) {
                self.find(Rule::Tree, MailboxId::new(*id), "its name row names another mailbox or none");
            }
            if row.parent != 0 && alive.iter().all(|(other, _)| *other != row.parent) {
                self.find(Rule::Tree, MailboxId::new(*id), "its parent is gone");
            }
            if *id >= self.row.next_mailbox || row.uid_validity > self.row.uid_validity || row.uid_validity == 0 {
                self.find(Rule::Ids, MailboxId::new(*id), "its id or UidValidity was never given");
            }
            let role = self.row.roles.iter().find(|entry| entry.mailbox == *id).map_or(0, |entry| entry.role);
            if role != row.role {
                self.find(Rule::Tree, MailboxId::new(*id), "the account row gives it another special use");
            }
        }
        let sweeping = self.mailboxes.iter().filter(|(_, row)| row.deleted_at.is_some());
        let sweeping: Vec<u64> = sweeping.map(|(id, _)| *id).collect();
        for id in sweeping.into_iter().filter(|id| !self.row.sweeping.contains(id)).collect::<Vec<_>>() {
            self.find(Rule::Tree, MailboxId::new(id), "it was deleted and no sweep knows of it");
        }
        if usize::try_from(self.row.mailbox_count).ok() != Some(alive.len()) {
            self.find(Rule::Tree, "", format!("{} mailboxes counted, {} present", self.row.mailbox_count, alive.len()));
        }
        Ok(())
    }

    /// Uids from here on belong to a copy that nobody sees yet.
    fn is_pending(&self, mailbox: MailboxId, uid: Uid) -> bool {
        let next = self.mailboxes.get(&mailbox.get()).map_or(0, |row| row.uid_next);
        let target = self.row.pending_copy.as_ref().filter(|pending| pending.target == mailbox.get());
        target.is_some_and(|pending| (next..next.saturating_add(pending.done)).contains(&uid.get()))
    }

    async fn mailbox(&mut self, source: &mut Source, id: MailboxId) -> Result<(), Error> {
        self.report.walked.mailboxes += 1;
        let Some(row) = self.mailboxes.get(&id.get()).cloned() else { return Ok(()) };
        let mut sums = Sums::default();
        let mut range = keys::memberships(self.id, id);
        loop {
            let txn = source.step();
            let (rows, more) = codec::scan::<MembershipRow>(txn, &range, STEP).await?;
            for (key, membership) in &rows {
                let uid = uid_of(key)?;
                if row.deleted_at.is_none() && !self.is_pending(id, uid) {
                    sums.add(membership);
                    if uid.get() >= row.uid_next {
                        self.find(Rule::Ids, format!("{id} uid {uid}"), format!("UidNext is {}", row.uid_next));
                    }
                }
                let email = codec::get::<EmailRow>(txn, &keys::email(self.id, EmailId::new(membership.email))).await?;
                self.membership((id, uid), membership, email.as_ref());
                if !self.is_pending(id, uid) && row.deleted_at.is_none() {
                    self.told(txn, (id, uid), membership.modseq).await?;
                }
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        if row.deleted_at.is_none() {
            self.compare(id, &row, &sums);
        }
        Ok(())
    }

    fn compare(&mut self, id: MailboxId, row: &MailboxRow, sums: &Sums) {
        let counted = (row.messages, row.unseen, row.deleted, row.size);
        let present = (sums.messages, sums.unseen, sums.deleted, sums.size);
        if counted != present {
            self.find(
                Rule::Counters,
                id,
                format!("(messages, unseen, deleted, size) {counted:?}, present {present:?}"),
            );
        }
        if sums.modseq > row.highest_modseq || row.highest_modseq > self.row.modseq {
            let (of_mailbox, of_account) = (row.highest_modseq, self.row.modseq);
            self.find(
                Rule::ModSeq,
                id,
                format!("messages {}, mailbox {of_mailbox}, account {of_account}", sums.modseq),
            );
        }
    }

    fn membership(&mut self, (id, uid): (MailboxId, Uid), row: &MembershipRow, email: Option<&EmailRow>) {
        let place = format!("{id} uid {uid}");
        let Some(email) = email else {
            self.find(Rule::Membership, place, format!("its email {} is gone", EmailId::new(row.email)));
            return;
        };
        if email.mailboxes.iter().all(|entry| (entry.mailbox, entry.uid) != (id.get(), uid.get())) {
            self.find(Rule::Membership, &place, "its email does not name it");
        }
        let flags = |bits: u32, keywords: &[String]| flag_bits::read(bits & !flag_bits::DELETED, keywords);
        if flags(row.flags, &row.keywords) != flags(email.flags, &email.keywords)
            || email.flags & flag_bits::DELETED != 0
        {
            self.find(Rule::Membership, &place, "its flags are not those of its email");
        }
        if (row.size, row.received_at) != (email.size(), email.received_at) {
            self.find(Rule::Membership, &place, "its size or time is not that of its email");
        }
    }

    /// The change log names a message under its ModSeq, unless that is below the floor.
    async fn told(&mut self, txn: &mut Transaction<'_>, (id, uid): (MailboxId, Uid), modseq: u64) -> Result<(), Error> {
        if modseq <= self.row.change_floor {
            return Ok(());
        }
        let row = match ModSeq::new(modseq) {
            Some(modseq) => codec::get::<ChangeRow>(txn, &keys::change(self.id, modseq)).await?,
            None => None,
        };
        let change = row.and_then(|row| row.mailboxes.into_iter().find(|change| change.mailbox == id.get()));
        let is_in =
            |runs: &[UidRange]| runs.iter().any(|run| uid.get() >= run.first && uid.get() - run.first < run.count);
        if !change.is_some_and(|change| is_in(&change.added) || is_in(&change.flags)) {
            self.find(Rule::ChangeLog, format!("{id} uid {uid}"), format!("no change {modseq} tells of it"));
        }
        Ok(())
    }

    async fn emails(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::emails(self.id);
        let (mut octets, mut count) = (0_u64, 0_u64);
        loop {
            let txn = source.step();
            let (rows, more) = codec::scan::<EmailRow>(txn, &range, STEP).await?;
            for (key, row) in &rows {
                let id = EmailId::new(KeyParts::of(key).u64().unwrap_or(0));
                octets = octets.saturating_add(row.size());
                count += 1;
                self.email(txn, id, row).await?;
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        self.report.walked.emails += count;
        let counted = (self.row.quota_used, self.row.email_count);
        if counted != (octets, count) {
            self.find(Rule::Quota, "", format!("(octets, emails) {counted:?}, present {:?}", (octets, count)));
        }
        Ok(())
    }

    async fn email(&mut self, txn: &mut Transaction<'_>, id: EmailId, row: &EmailRow) -> Result<(), Error> {
        if id.get() >= self.row.next_email || row.thread >= self.row.next_thread {
            self.find(Rule::Ids, id, "its id or its thread was never given");
        }
        if row.mailboxes.is_empty() {
            self.find(Rule::Membership, id, "it stands in no mailbox");
        }
        for place in &row.mailboxes {
            let key = keys::membership(self.id, MailboxId::new(place.mailbox), crate::message::uid(place.uid)?);
            let membership = codec::get::<MembershipRow>(txn, &key).await?;
            if membership.is_none_or(|membership| membership.email != id.get()) {
                self.find(Rule::Membership, id, format!("uid {} of mailbox {:x} is not it", place.uid, place.mailbox));
            }
        }
        let thread = ThreadId::new(row.thread);
        if txn.get(&keys::thread_email(self.id, thread, id)).await?.is_none() {
            self.find(Rule::Thread, id, format!("thread {thread} does not have it"));
        }
        for hash in row.structure.as_ref().map(thread::hashes).unwrap_or_default() {
            let index = codec::get::<IdRow>(txn, &keys::thread_index(self.id, hash, id)).await?;
            if index.map(|index| index.id) != Some(row.thread) {
                self.find(Rule::Thread, id, "it is not found under its Message-IDs");
            }
        }
        let body = row.body()?;
        let reference: Option<Bytes> =
            txn.get(&keys::blob_ref(&body.blob, BlobOwner::Email { account: self.id, email: id })).await?;
        if reference.is_none_or(|value| !value.is_empty()) {
            self.find(Rule::Reference, id, "its body is not referenced by it");
        }
        if txn.get(&keys::blob_state(&body.blob)).await?.is_none() {
            self.find(Rule::Body, id, "its body is gone");
        }
        Ok(())
    }

    /// Rows of threads whose email is gone.
    async fn threads(&mut self, source: &mut Source) -> Result<(), Error> {
        for mut range in [keys::threads(self.id), keys::thread_indexes(self.id)] {
            loop {
                let txn = source.step();
                let (rows, more) = codec::scan::<IdRow>(txn, &range, STEP).await?;
                for (key, row) in &rows {
                    let id = EmailId::new(KeyParts::of(key).u64().unwrap_or(0));
                    let email = codec::get::<EmailRow>(txn, &keys::email(self.id, id)).await?;
                    if email.map(|email| email.thread) != Some(row.id) {
                        self.find(Rule::Thread, id, "a thread has it, but it is gone or in another");
                    }
                }
                match rows.last() {
                    Some((key, _)) if more => range.begin = keys::after(key),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    async fn changes(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::changes(self.id);
        let mut highest: HashMap<u64, u64> = HashMap::new();
        let mut last = self.row.change_floor;
        loop {
            let txn = source.step();
            let (rows, more) = codec::scan::<ChangeRow>(txn, &range, STEP).await?;
            for (key, row) in &rows {
                let modseq = crate::change_log::modseq_of(key)?.get();
                if modseq != last + 1 || modseq > self.row.modseq {
                    self.find(
                        Rule::ChangeLog,
                        format!("change {modseq}"),
                        format!("follows {last}, of {}", self.row.modseq),
                    );
                }
                last = modseq;
                for change in &row.mailboxes {
                    highest.insert(change.mailbox, modseq);
                    self.expunged(txn, MailboxId::new(change.mailbox), &change.expunged).await?;
                }
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        if last != self.row.modseq {
            self.find(Rule::ChangeLog, "", format!("the log ends at {last}, the account is at {}", self.row.modseq));
        }
        let told: Vec<(u64, u64)> = highest.into_iter().collect();
        for (id, modseq) in told {
            let row = self.mailboxes.get(&id).filter(|row| row.deleted_at.is_none());
            if row.is_some_and(|row| row.highest_modseq != modseq) {
                self.find(Rule::ChangeLog, MailboxId::new(id), format!("its last change is {modseq}"));
            }
        }
        Ok(())
    }

    async fn expunged(&mut self, txn: &mut Transaction<'_>, id: MailboxId, runs: &[UidRange]) -> Result<(), Error> {
        for uid in runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count)) {
            let uid = crate::message::uid(uid)?;
            if txn.get(&keys::membership(self.id, id, uid)).await?.is_some() {
                self.find(Rule::ChangeLog, format!("{id} uid {uid}"), "it was expunged and is there");
            }
        }
        Ok(())
    }

    async fn dones(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::dones(self.id);
        loop {
            let (rows, more) = codec::scan::<DoneRow>(source.step(), &range, STEP).await?;
            for (key, row) in &rows {
                let late = row.modseq > self.row.modseq;
                if late || (!row.target_uids.is_empty() && row.target_uids.len() != row.uids.len()) {
                    let mut parts = KeyParts::of(key);
                    let item = parts.u32().unwrap_or(0);
                    let request = posthouse_mail::IngestId::new(parts.u128().unwrap_or(0));
                    self.find(Rule::Done, format!("request {request} item {item}"), "it proves what cannot have been");
                }
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => return Ok(()),
            }
        }
    }
}

impl Sums {
    fn add(&mut self, row: &MembershipRow) {
        self.messages += 1;
        self.unseen += u32::from(!is_seen(row));
        self.deleted += u32::from(is_deleted(row));
        self.size = self.size.saturating_add(row.size);
        self.modseq = self.modseq.max(row.modseq);
    }
}
