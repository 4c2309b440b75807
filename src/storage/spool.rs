//! The spool: what was answered with 250 and is not yet with all its recipients.
//!
//! Anyone inserts a row under its unique id; from then on only the distributor that owns the id's shard changes it. A
//! recipient is finished in the same transaction as what it causes elsewhere: a queue row, a report. The row goes with
//! its last recipient. Local deliveries are proved by their own `done` rows, under this id and the recipient's number.

use posthouse_mail::envelope::Recipient;
use posthouse_mail::{Domain, IngestId, UnixMillis};

use crate::blob;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::message::AppendBody;
use crate::queue;
use crate::record::{SpoolRecipientRow, SpoolRow};
use crate::shard::Fence;
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};
use crate::transit::{self, Transit};
use crate::writer::boxed;

/// One spooled message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolMessage {
    pub transit: Transit,
    pub recipients: Vec<SpoolRecipient>,
    /// The filter wants it in Junk.
    pub junk: bool,
    /// A report of ours: it skips filter and quota.
    pub report: bool,
}

/// One forward-path of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolRecipient {
    pub recipient: Recipient,
    pub finished: bool,
}

/// A message to be spooled, with its body; `message.transit.body` is that body.
#[derive(Debug, Clone)]
pub struct NewSpool {
    pub message: SpoolMessage,
    pub body: AppendBody,
}

/// Recipients that came to an end, and what they cause.
#[derive(Debug, Clone, Default)]
pub struct Finish {
    /// Numbers of recipients, from 0.
    pub recipients: Vec<usize>,
    /// What goes into the queue for them.
    pub queue: Vec<Queued>,
    /// A report about them.
    pub report: Option<NewSpool>,
}

/// Recipients for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub destination: Domain,
    pub recipients: Vec<Recipient>,
    pub due: UnixMillis,
    pub expires_at: UnixMillis,
}

/// Inserts a message; the 250 follows. A repeat changes nothing.
pub async fn insert(store: &Store, new: &NewSpool) -> Result<(), Error> {
    store.transact(|txn| boxed(insert_in(txn, new))).await
}

pub(crate) async fn insert_in(txn: &mut Transaction<'_>, new: &NewSpool) -> Result<(), Error> {
    let message = &new.message;
    let id = message.transit.id;
    let key = keys::spool(id);
    if txn.get(&key).await?.is_some() {
        return Ok(());
    }
    if let AppendBody::Staged(staged) = &new.body {
        txn.attach(staged);
    }
    blob::reference(txn, message.transit.body, BlobOwner::Spool(id)).await?;
    let recipients = message.recipients.iter().map(|entry| SpoolRecipientRow {
        recipient: Some(transit::recipient_row(&entry.recipient)),
        finished: entry.finished,
    });
    let row = SpoolRow {
        message: Some(message.transit.to_row()),
        recipients: recipients.collect(),
        junk: message.junk,
        report: message.report,
    };
    txn.atomic_add(&keys::counter(queue::COUNT_SPOOL), 1);
    codec::insert(txn, &key, &row)
}

/// One spooled message.
pub async fn get(store: &Store, id: IngestId) -> Result<Option<SpoolMessage>, Error> {
    let row = codec::get::<SpoolRow>(&mut store.snapshot(), &keys::spool(id)).await?;
    row.map(|row| read(id, row)).transpose()
}

/// Ids of spooled messages, oldest first, a page after `after`.
pub async fn list(store: &Store, after: Option<IngestId>, limit: usize) -> Result<Vec<IngestId>, Error> {
    let mut range = keys::spools();
    if let Some(after) = after {
        range.begin = keys::after(&keys::spool(after));
    }
    let page = codec::page(&mut store.snapshot(), &range, limit).await?;
    Ok(page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).u128()).map(IngestId::new).collect())
}

/// Finishes recipients; whether the message is done with. A repeat changes nothing.
pub async fn finish(
    store: &Store,
    fence: Fence,
    id: IngestId,
    finish: &Finish,
    now: UnixMillis,
) -> Result<bool, Error> {
    store.transact(|txn| boxed(finish_in(txn, (fence, id), finish, now))).await
}

async fn finish_in(
    txn: &mut Transaction<'_>,
    (fence, id): (Fence, IngestId),
    finish: &Finish,
    now: UnixMillis,
) -> Result<bool, Error> {
    if fence.shard != keys::spool_shard(id) {
        return Err(Error::Fenced { shard: fence.shard, epoch: fence.epoch });
    }
    check_fence(txn, fence).await?;
    let key = keys::spool(id);
    let Some(mut row) = codec::get::<SpoolRow>(txn, &key).await? else { return Ok(true) };
    let open = finish.recipients.iter().filter(|number| row.recipients.get(**number).is_some_and(|r| !r.finished));
    let open = open.count();
    if open == 0 && !finish.recipients.is_empty() {
        return Ok(false);
    }
    if open != finish.recipients.len() {
        // Half of this was done under another grouping: the caller reads the row again.
        return Err(Error::Exists);
    }
    for number in &finish.recipients {
        if let Some(entry) = row.recipients.get_mut(*number) {
            entry.finished = true;
        }
    }
    if !finish.queue.is_empty() {
        let message = Transit::from_row(id, row.message.clone())?;
        queue::add(txn, &message, &finish.queue, now).await?;
    }
    if let Some(report) = &finish.report {
        insert_in(txn, report).await?;
    }
    if row.recipients.iter().any(|entry| !entry.finished) {
        codec::put(txn, &key, &row)?;
        return Ok(false);
    }
    let body = Transit::from_row(id, row.message)?.body;
    blob::release(txn, body.blob, BlobOwner::Spool(id), now);
    codec::remove::<SpoolRow>(txn, &key);
    txn.atomic_add(&keys::counter(queue::COUNT_SPOOL), -1);
    Ok(true)
}

pub(crate) fn read(id: IngestId, row: SpoolRow) -> Result<SpoolMessage, Error> {
    let recipients = row.recipients.iter().map(|entry| {
        let recipient = entry.recipient.clone().unwrap_or_default();
        Ok(SpoolRecipient { recipient: transit::recipient(id, &recipient)?, finished: entry.finished })
    });
    Ok(SpoolMessage {
        recipients: recipients.collect::<Result<_, Error>>()?,
        transit: Transit::from_row(id, row.message)?,
        junk: row.junk,
        report: row.report,
    })
}
