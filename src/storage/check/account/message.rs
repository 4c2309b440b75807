//! Emails, their memberships and threads: each names the other, and counters are those of what is there.

use bytes::Bytes;
use posthouse_mail::{EmailId, MailboxId, ThreadId, Uid};

use super::Walk;
use crate::check::{Rule, STEP, Source};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::message::flag_bits;
use crate::message::read::{is_deleted, is_seen, uid_of};
use crate::record::account::IdRow;
use crate::record::{EmailRow, MailboxRow, MembershipRow};
use crate::thread;
use crate::transaction::Transaction;

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
    pub(super) async fn mailbox(&mut self, source: &mut Source, id: MailboxId) -> Result<(), Error> {
        self.report.walked.mailboxes += 1;
        let Some(row) = self.mailboxes.get(&id.get()).cloned() else { return Ok(()) };
        let mut sums = Sums::default();
        let mut pending = 0_u32;
        let mut range = keys::memberships(self.id, id);
        loop {
            let txn = source.step();
            let (rows, more) = codec::scan::<MembershipRow>(txn, &range, STEP).await?;
            for (key, membership) in &rows {
                let uid = uid_of(key)?;
                if self.is_pending(id, uid) {
                    pending += 1;
                } else if row.deleted_at.is_none() {
                    sums.add(membership);
                    if uid.get() >= row.uid_next {
                        self.find(Rule::Ids, format!("{id} uid {uid}"), format!("UidNext is {}", row.uid_next));
                    }
                    self.told(txn, (id, uid), membership.modseq).await?;
                }
                let email = codec::get::<EmailRow>(txn, &keys::email(self.id, EmailId::new(membership.email))).await?;
                self.membership((id, uid), membership, email.as_ref());
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        if row.deleted_at.is_none() {
            self.compare(id, &row, &sums);
        }
        let copying = self.row.pending_copy.as_ref().filter(|copy| copy.target == id.get());
        if copying.is_some_and(|copy| copy.done != pending) {
            self.find(Rule::Counters, id, "an unfinished copy into it does not have the messages that it counts");
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

    /// One step for each mailbox that has memberships, whether it exists or not.
    pub(super) async fn strays(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::all_memberships(self.id);
        loop {
            let page = codec::page(source.step(), &range, 1).await?;
            let Some((key, _)) = page.rows.first() else { return Ok(()) };
            let mut parts = KeyParts::of(key);
            let uid = parts.u32().unwrap_or(0);
            let mailbox = MailboxId::new(parts.u64().unwrap_or(0));
            if !self.mailboxes.contains_key(&mailbox.get()) {
                self.find(Rule::Tree, mailbox, format!("it has messages, the first with uid {uid}, and is gone"));
            }
            range.begin = keys::memberships(self.id, mailbox).end;
        }
    }

    pub(super) async fn emails(&mut self, source: &mut Source) -> Result<(), Error> {
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
                self.find(Rule::Membership, id, format!("uid {} of mailbox m{:x} is not it", place.uid, place.mailbox));
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
            self.lost(Rule::Body, id, "its body is gone");
        }
        Ok(())
    }

    /// Rows of threads whose email is gone.
    pub(super) async fn threads(&mut self, source: &mut Source) -> Result<(), Error> {
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
