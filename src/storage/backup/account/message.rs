//! Messages of an account into a run: one entry an email, cut into parts so that unchanged ones are found again.

use std::collections::HashMap;

use posthouse_mail::{AccountId, EmailId, MailboxId, Uid};

use super::Taking;
use crate::backup::damage::{Damage, readable};
use crate::backup::record::{MessageEntry, PartRow, PlaceEntry, RunRow};
use crate::backup::seal::CONTENT_MAX;
use crate::backup::target::Target;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts, KeyRange};
use crate::record::{EmailRow, MailboxRow, MembershipRow};
use crate::transaction::Transaction;

/// A part ends where the hash of an email's id says so, one in so many: the same emails make the same parts at every run,
/// whatever came or went before them.
const PART_EMAILS: u8 = 255;

/// Reads every email below `end`, chunk by chunk, and writes them as the first run.
pub(super) async fn base(
    taking: &Taking<'_>,
    id: AccountId,
    end: u64,
    damage: &mut Damage,
) -> Result<(RunRow, u64), Error> {
    let mut writer = RunWriter::new(taking.target);
    let mut range = KeyRange { end: keys::email(id, EmailId::new(end)).to_vec(), ..keys::emails(id) };
    loop {
        taking.lock.renew().await?;
        let mut txn = taking.store.snapshot();
        let limit = taking.target.settings.rows_at_once.max(1);
        let tell = |key: &[u8], reason| {
            let email = KeyParts::of(key).u64().unwrap_or(0);
            damage.add(format!("the message {email}: {reason}"));
        };
        let (rows, next) = codec::scan_readable::<EmailRow>(&mut txn, &range, limit, tell).await?;
        let mut shown = Shown::new(damage);
        for (key, row) in rows {
            let email = EmailId::new(KeyParts::of(&key).u64().unwrap_or(0));
            let entry = shown.entry(&mut txn, id, email, row).await?;
            // What nobody sees yet is named by the log when it is seen.
            if !entry.places.is_empty() {
                writer.push(&entry).await?;
            }
        }
        match next {
            Some(next) => range.begin = next,
            None => return writer.finish().await,
        }
    }
}

/// What is visible in one snapshot.
pub(super) struct Shown<'d> {
    /// UidNext of each mailbox that was looked at; `None`: deleted, or damaged.
    mailboxes: HashMap<u64, Option<u32>>,
    damage: &'d mut Damage,
}

impl<'d> Shown<'d> {
    pub fn new(damage: &'d mut Damage) -> Self {
        Self { mailboxes: HashMap::new(), damage }
    }

    /// An email with the places where it is seen.
    pub async fn entry(
        &mut self,
        txn: &mut Transaction<'_>,
        account: AccountId,
        email: EmailId,
        row: EmailRow,
    ) -> Result<MessageEntry, Error> {
        let mut places = Vec::with_capacity(row.mailboxes.len());
        for place in &row.mailboxes {
            if !self.is_shown(txn, account, place.mailbox, place.uid).await? {
                continue;
            }
            let uid = crate::message::uid(place.uid)?;
            let key = keys::membership(account, MailboxId::new(place.mailbox), uid);
            let membership = codec::expect::<MembershipRow>(txn, &key, "the membership").await;
            let what = || format!("the message {email} in mailbox {} under Uid {}", place.mailbox, place.uid);
            // It may stand elsewhere as well.
            if let Some(membership) = readable(membership, what, self.damage)? {
                places.push(PlaceEntry { mailbox: place.mailbox, uid: place.uid, row: Some(membership) });
            }
        }
        // Where it stands is told by the places; the list here also has those that are not to be seen.
        let row = EmailRow { mailboxes: Vec::new(), ..row };
        Ok(MessageEntry { email: email.get(), row: Some(row), places })
    }

    async fn is_shown(
        &mut self,
        txn: &mut Transaction<'_>,
        account: AccountId,
        mailbox: u64,
        uid: u32,
    ) -> Result<bool, Error> {
        if let Some(uid_next) = self.mailboxes.get(&mailbox) {
            return Ok(uid_next.is_some_and(|next| uid < next));
        }
        let row = codec::get::<MailboxRow>(txn, &keys::mailbox(account, MailboxId::new(mailbox))).await;
        let row = readable(row, || format!("mailbox {mailbox}, with its messages"), self.damage)?.flatten();
        let uid_next = row.filter(|row| row.deleted_at.is_none()).map(|row| row.uid_next);
        self.mailboxes.insert(mailbox, uid_next);
        Ok(uid_next.is_some_and(|next| uid < next))
    }
}

/// The email that stands at a place now.
pub(super) async fn email_at(
    txn: &mut Transaction<'_>,
    account: AccountId,
    (mailbox, uid): (u64, u32),
) -> Result<Option<EmailId>, Error> {
    let Some(uid) = Uid::new(uid) else { return Ok(None) };
    let key = keys::membership(account, MailboxId::new(mailbox), uid);
    let row = codec::get::<MembershipRow>(txn, &key).await?;
    Ok(row.map(|row| EmailId::new(row.email)))
}

/// Writes messages in the order of their ids.
pub(super) struct RunWriter<'t> {
    target: &'t Target,
    run: RunRow,
    buffer: Vec<u8>,
    first: u64,
    messages: u32,
    written: u64,
}

impl<'t> RunWriter<'t> {
    pub fn new(target: &'t Target) -> Self {
        Self { target, run: RunRow::default(), buffer: Vec::new(), first: 0, messages: 0, written: 0 }
    }

    pub async fn push(&mut self, entry: &MessageEntry) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.first = entry.email;
        }
        prost::Message::encode_length_delimited(entry, &mut self.buffer).expect("a Vec grows as needed");
        self.messages += 1;
        if self.buffer.len() >= CONTENT_MAX || ends_part(entry.email) { self.cut().await } else { Ok(()) }
    }

    async fn cut(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (name, written) = self.target.put_rows(std::mem::take(&mut self.buffer)).await?;
        self.written += written;
        let messages = std::mem::take(&mut self.messages);
        self.run.parts.push(PartRow { name: name.to_vec(), first: self.first, messages });
        Ok(())
    }

    /// The run, and the octets that were not there before.
    pub async fn finish(mut self) -> Result<(RunRow, u64), Error> {
        self.cut().await?;
        Ok((self.run, self.written))
    }
}

fn ends_part(email: u64) -> bool {
    blake3::hash(&email.to_be_bytes()).as_bytes()[0] == PART_EMAILS
}

/// The places of an email that an image shows: in a mailbox that is there, and not gone since.
pub(crate) fn places_of(
    entry: &MessageEntry,
    is_alive: impl Fn(u64) -> bool,
    is_gone: impl Fn(u64, u32) -> bool,
) -> Vec<&PlaceEntry> {
    entry.places.iter().filter(|place| is_alive(place.mailbox) && !is_gone(place.mailbox, place.uid)).collect()
}
