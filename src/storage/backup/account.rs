//! One account as it was at one ModSeq, taken while it changes.
//!
//! Its messages are read in chunks, each from a snapshot of its own, so that no snapshot lives long. What changed since
//! the first chunk is read again, round by round, until so little is left that one snapshot shows the account's rows, its
//! mailboxes and the last changes together: that snapshot's ModSeq is the closing one. The change log names every message
//! that came, changed or left, and a Uid is never given twice, so the later word on a message holds and one that left
//! stays away. What the log does not tell (rows of a copy that nobody sees yet, mailboxes that are being swept) a reader
//! never sees, and neither does an image.

mod message;
mod rounds;

use std::collections::BTreeSet;

use posthouse_mail::{AccountId, IngestId, MailboxId, UnixMillis};

use super::damage::{Damage, readable};
use super::lock::Lock;
use super::record::{AccountEntry, AccountHead, DoneEntry, MailboxEntry};
use super::target::{Target, rows_path};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::mailbox;
use crate::record::{AccountRow, CredentialRow, DoneRow, MailboxRow};
use crate::store::Store;
use crate::transaction::Transaction;
use rounds::Rounds;

pub(crate) use message::places_of;

/// Where an account is taken from and to.
pub(crate) struct Taking<'a> {
    pub store: &'a Store,
    pub target: &'a Target,
    pub lock: &'a Lock,
    /// Spooled messages begin here: older proofs of deliveries are of no use after a restore.
    pub oldest_spooled: IngestId,
}

/// An account that was taken, and the octets that this wrote.
pub(crate) struct Taken {
    pub entry: AccountEntry,
    pub written: u64,
    /// What the store itself can no longer read of it; everything else was taken.
    pub damaged: Damage,
}

/// Takes an account; `None` when it is deleted or gone. `before` is what the point before has of it.
pub(crate) async fn take(
    taking: &Taking<'_>,
    id: AccountId,
    before: Option<&AccountEntry>,
) -> Result<Option<Taken>, Error> {
    let Some(row) = alive(&mut taking.store.snapshot(), id).await? else { return Ok(None) };
    let (mut written, mut damaged) = (0, Damage::default());
    // The same ModSeq: not one message came, changed or left since then.
    let earlier = match before.filter(|entry| entry.modseq == row.modseq) {
        Some(entry) => usable(taking.target, entry, row.generation).await?,
        None => None,
    };
    let mut rounds = match earlier {
        Some(head) => Rounds::onto(taking, id, row.modseq, head.runs, head.gone),
        None => {
            let (base, octets) = message::base(taking, id, row.next_email, &mut damaged).await?;
            written += octets;
            Rounds::onto(taking, id, row.modseq, vec![base], Vec::new())
        }
    };
    let Some(closing) = rounds.close().await? else { return Ok(None) };
    let entry = AccountEntry {
        id: id.get(),
        address: closing.account.address.clone(),
        modseq: closing.account.modseq,
        head: Vec::new(),
        messages: closing.mailboxes.iter().filter_map(|m| m.row.as_ref()).map(|row| u64::from(row.messages)).sum(),
    };
    damaged.absorb("", std::mem::take(&mut rounds.damaged));
    let (runs, gone, octets) = rounds.finish().await?;
    let dones = dones(taking, id, entry.modseq, &mut damaged).await?;
    let head = AccountHead {
        account: Some(closing.account),
        credential: closing.credential,
        mailboxes: closing.mailboxes,
        subscriptions: closing.subscriptions,
        runs,
        gone,
        dones,
        incomplete: !damaged.is_empty(),
    };
    let (name, of_head) = taking.target.put_rows(prost::Message::encode_to_vec(&head)).await?;
    written += octets + of_head;
    Ok(Some(Taken { entry: AccountEntry { head: name.to_vec(), ..entry }, written, damaged }))
}

/// What the point before has of an account, if all of it can be counted on and is of the same generation: an account that
/// came back from a backup has the ModSeq that it had then.
async fn usable(target: &Target, entry: &AccountEntry, generation: u64) -> Result<Option<AccountHead>, Error> {
    let head = match head(target, entry).await {
        Err(Error::BackupDamaged(_)) => return Ok(None),
        head => head?,
    };
    let mut names = head.runs.iter().flat_map(|run| &run.parts).map(|part| &part.name).chain(&head.gone);
    let is_damaged = names.any(|name| target.is_suspect(&rows_path(name)));
    let is_same = head.account.as_ref().is_some_and(|row| row.generation == generation);
    Ok(if is_damaged || head.incomplete || !is_same { None } else { Some(head) })
}

/// What a point has of an account.
pub(crate) async fn head(target: &Target, entry: &AccountEntry) -> Result<AccountHead, Error> {
    let content = target.rows(&entry.head).await?;
    prost::Message::decode(content.as_slice())
        .map_err(|error| Error::BackupDamaged(format!("the account {}: {error}", entry.address)))
}

/// What an account is besides its messages, all from one snapshot.
struct Closing {
    account: AccountRow,
    credential: Option<CredentialRow>,
    mailboxes: Vec<MailboxEntry>,
    subscriptions: Vec<String>,
}

impl Closing {
    async fn read(
        txn: &mut Transaction<'_>,
        id: AccountId,
        account: AccountRow,
        damage: &mut Damage,
    ) -> Result<Self, Error> {
        let credential = codec::get::<CredentialRow>(txn, &keys::credential(id)).await;
        let credential = readable(credential, || "the password".to_owned(), damage)?.flatten();
        let mut mailboxes = Vec::new();
        let mut range = keys::mailboxes(id);
        loop {
            let tell = |key: &[u8], reason| {
                let number = mailbox::id_of(key).map_or(0, MailboxId::get);
                damage.add(format!("mailbox {number}, with its messages: {reason}"));
            };
            let (rows, next) = codec::scan_readable::<MailboxRow>(txn, &range, 1000, tell).await?;
            for (key, row) in rows.into_iter().filter(|(_, row)| row.deleted_at.is_none()) {
                mailboxes.push(MailboxEntry { id: mailbox::id_of(&key)?.get(), row: Some(row) });
            }
            let Some(next) = next else { break };
            range.begin = next;
        }
        let subscriptions = subscriptions(txn, id, damage).await?;
        Ok(Self { account, credential, mailboxes, subscriptions })
    }
}

/// What is subscribed is told by the keys, whatever their rows hold.
async fn subscriptions(txn: &mut Transaction<'_>, id: AccountId, damage: &mut Damage) -> Result<Vec<String>, Error> {
    let mut range = keys::subscriptions(id);
    let mut paths = BTreeSet::new();
    loop {
        let tell = |key: &[u8], reason| {
            let path = mailbox::subscribed_path(key);
            damage.add(format!("the subscription {}: {reason}", path.as_deref().unwrap_or_default()));
            paths.extend(path);
        };
        let (rows, next) = codec::page_readable(txn, &range, 1000, tell).await?;
        paths.extend(rows.iter().filter_map(|(key, _)| mailbox::subscribed_path(key)));
        match next {
            Some(next) => range.begin = next,
            None => return Ok(paths.into_iter().collect()),
        }
    }
}

async fn alive(txn: &mut Transaction<'_>, id: AccountId) -> Result<Option<AccountRow>, Error> {
    let row = codec::get::<AccountRow>(txn, &keys::account(id)).await?;
    Ok(row.filter(|row| row.deleted_at.is_none()))
}

/// Proofs of the deliveries up to the closing ModSeq that the spool of the backup might repeat. A later one is no part of
/// the image, and its message must be delivered again.
async fn dones(taking: &Taking<'_>, id: AccountId, closing: u64, damage: &mut Damage) -> Result<Vec<DoneEntry>, Error> {
    let mut range = keys::dones_from(id, taking.oldest_spooled);
    let mut found = Vec::new();
    loop {
        taking.lock.renew().await?;
        let tell = |_: &[u8], reason| {
            damage.add(format!("the proof of a delivery: {reason}"));
        };
        let (rows, next) = codec::scan_readable::<DoneRow>(&mut taking.store.snapshot(), &range, 1000, tell).await?;
        for (key, row) in &rows {
            // A delivery names its email; what else stands here are changes that no client asks for again.
            if row.email == 0 || row.modseq > closing {
                continue;
            }
            let mut parts = KeyParts::of(key);
            let (item, request) = (parts.u32().unwrap_or(0), parts.u128().unwrap_or(0));
            found.push(DoneEntry { request: request.to_be_bytes().to_vec(), item, row: Some(row.clone()) });
        }
        match next {
            Some(next) => range.begin = next,
            None => return Ok(found),
        }
    }
}

/// No message was spooled: an id that no proof reaches.
pub(crate) fn none_spooled(now: UnixMillis) -> IngestId {
    IngestId::from_parts(now.0, 0)
}
