//! The queue: what is to be sent to other servers.
//!
//! A message row holds envelope and body; a work row, one for each message and destination, holds the recipients that
//! are still open and sorts by the time it is due. Anyone inserts; the queue actor of the destination changes. A work row
//! that was settled lies under another key or nowhere, so that a repeat finds nothing to do.

mod settle;

use posthouse_mail::envelope::Recipient;
use posthouse_mail::{Domain, IngestId, UnixMillis};

pub use settle::{Later, Settlement, reschedule, settle};

use crate::blob;
use crate::codec;
use crate::engine::Atomic;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::message::AppendBody;
use crate::record::{DestinationRow, QueueMessageRow, QueueWorkRow};
use crate::spool::Queued;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::transit::{self, LastOutcome, Transit};
use crate::writer::boxed;

pub(crate) const COUNT_SPOOL: &str = "spool";
pub(crate) const COUNT_MESSAGES: &str = "queue messages";
pub(crate) const COUNT_FRESH: &str = "queue fresh";
pub(crate) const COUNT_DEFERRED: &str = "queue deferred";

/// One queued message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMessage {
    pub transit: Transit,
    pub queued_at: UnixMillis,
    /// Returned to its sender after this (RFC 5321 §4.5.4.1).
    pub expires_at: UnixMillis,
    /// Where it still has work, and when that is due.
    pub destinations: Vec<(Domain, UnixMillis)>,
}

/// Names one work row as it lies now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkId {
    pub destination: Domain,
    pub due: UnixMillis,
    pub message: IngestId,
}

/// What is still to do for one message at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub id: WorkId,
    pub recipients: Vec<Recipient>,
    pub attempt_count: u32,
    pub last_attempt_at: Option<UnixMillis>,
    pub last_outcome: Option<LastOutcome>,
    /// The sender heard of the delay.
    pub delay_reported: bool,
}

/// How much waits, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub spool_messages: u64,
    pub queue_messages: u64,
    /// Work that was never tried.
    pub fresh: u64,
    /// Work that was tried and deferred.
    pub deferred: u64,
    pub oldest_spooled_at: Option<UnixMillis>,
    pub oldest_queued_at: Option<UnixMillis>,
}

/// Queues a message. A repeat changes nothing.
pub async fn insert(
    store: &Store,
    transit: &Transit,
    body: &AppendBody,
    queued: &[Queued],
    now: UnixMillis,
) -> Result<(), Error> {
    store.transact(|txn| boxed(insert_in(txn, transit, body, (queued, now)))).await
}

async fn insert_in(
    txn: &mut Transaction<'_>,
    transit: &Transit,
    body: &AppendBody,
    (queued, now): (&[Queued], UnixMillis),
) -> Result<(), Error> {
    if txn.get(&keys::queue_message(transit.id)).await?.is_some() {
        return Ok(());
    }
    if let AppendBody::Staged(staged) = body {
        txn.attach(staged);
    }
    add(txn, transit, queued, now).await
}

/// Adds recipients to a message's work, making the message row if there is none.
pub(crate) async fn add(
    txn: &mut Transaction<'_>,
    transit: &Transit,
    queued: &[Queued],
    now: UnixMillis,
) -> Result<(), Error> {
    let key = keys::queue_message(transit.id);
    let mut row = match codec::get::<QueueMessageRow>(txn, &key).await? {
        Some(row) => row,
        None => {
            blob::reference(txn, transit.body, BlobOwner::Queue(transit.id)).await?;
            txn.atomic_add(&keys::counter(COUNT_MESSAGES), 1);
            QueueMessageRow { message: Some(transit.to_row()), queued_at: now.0, ..QueueMessageRow::default() }
        }
    };
    for entry in queued {
        row.expires_at = row.expires_at.max(entry.expires_at.0);
        let key = keys::queue_work(&entry.destination, entry.due, transit.id);
        let recipients = entry.recipients.iter().map(transit::recipient_row);
        if let Some(mut work) = codec::get::<QueueWorkRow>(txn, &key).await? {
            work.recipients.extend(recipients);
            codec::put(txn, &key, &work)?;
            continue;
        }
        let work = QueueWorkRow {
            destination: entry.destination.to_string(),
            recipients: recipients.collect(),
            ..QueueWorkRow::default()
        };
        codec::insert(txn, &key, &work)?;
        row.destinations.push(DestinationRow { domain: entry.destination.to_string(), due: entry.due.0 });
        count_work(txn, &entry.destination, COUNT_FRESH, 1);
    }
    codec::put(txn, &key, &row)
}

/// Moves the counters that one work row stands in.
pub(crate) fn count_work(txn: &mut Transaction<'_>, destination: &Domain, state: &str, by: i64) {
    txn.atomic_add(&keys::counter(state), by);
    let key = keys::queue_count(destination);
    txn.atomic_add(&key, by);
    if by < 0 {
        txn.atomic(&key, Atomic::CompareAndClear, &0_u64.to_le_bytes());
    }
}

/// The counter that a work row stands in.
pub(crate) fn state_of(row: &QueueWorkRow) -> &'static str {
    if row.attempt_count == 0 { COUNT_FRESH } else { COUNT_DEFERRED }
}

/// Every destination with work, and when its first work is due.
pub async fn destinations(store: &Store) -> Result<Vec<(Domain, UnixMillis)>, Error> {
    let mut range = keys::queue_counts();
    let mut found = Vec::new();
    loop {
        // A snapshot for each page: no snapshot lives long.
        let mut txn = store.snapshot();
        let page = codec::page(&mut txn, &range, 500).await?;
        for (key, _) in &page.rows {
            let text = KeyParts::of(key).text_after(keys::OPEN_WIDTH).unwrap_or_default();
            let Some(domain) = String::from_utf8(text).ok().and_then(|text| Domain::parse(&text).ok()) else {
                continue;
            };
            if let Some(due) = next_due_in(&mut txn, &domain).await? {
                found.push((domain, due));
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(found),
        }
    }
}

/// When the first work of a destination is due; `None`: it has none.
pub async fn next_due(store: &Store, destination: &Domain) -> Result<Option<UnixMillis>, Error> {
    next_due_in(&mut store.snapshot(), destination).await
}

async fn next_due_in(txn: &mut Transaction<'_>, destination: &Domain) -> Result<Option<UnixMillis>, Error> {
    let page = codec::page(txn, &keys::queue_works(destination), 1).await?;
    page.rows.first().map(|(key, _)| work_place(key).map(|(due, _)| due)).transpose()
}

/// Work of a destination that is due, in the order of its time, at most `limit` rows.
pub async fn due(store: &Store, destination: &Domain, now: UnixMillis, limit: usize) -> Result<Vec<Work>, Error> {
    let mut txn = store.snapshot();
    let (rows, _) = codec::scan::<QueueWorkRow>(&mut txn, &keys::queue_works(destination), limit).await?;
    let mut works = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let work = read_work(&key, &row)?;
        if work.id.due > now {
            break;
        }
        works.push(work);
    }
    Ok(works)
}

/// One queued message.
pub async fn message(store: &Store, id: IngestId) -> Result<Option<QueueMessage>, Error> {
    let row = codec::get::<QueueMessageRow>(&mut store.snapshot(), &keys::queue_message(id)).await?;
    row.map(|row| read_message(id, row)).transpose()
}

/// What is still to do for one message.
pub async fn works_of(store: &Store, id: IngestId) -> Result<Vec<Work>, Error> {
    let mut txn = store.snapshot();
    let Some(row) = codec::get::<QueueMessageRow>(&mut txn, &keys::queue_message(id)).await? else {
        return Ok(Vec::new());
    };
    let mut works = Vec::new();
    for (destination, due) in read_message(id, row)?.destinations {
        let key = keys::queue_work(&destination, due, id);
        if let Some(row) = codec::get::<QueueWorkRow>(&mut txn, &key).await? {
            works.push(read_work(&key, &row)?);
        }
    }
    Ok(works)
}

/// Ids of queued messages, oldest first, a page after `after`.
pub async fn list(store: &Store, after: Option<IngestId>, limit: usize) -> Result<Vec<IngestId>, Error> {
    let mut range = keys::queue_messages();
    if let Some(after) = after {
        range.begin = keys::after(&keys::queue_message(after));
    }
    let page = codec::page(&mut store.snapshot(), &range, limit).await?;
    Ok(page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).u128()).map(IngestId::new).collect())
}

/// How much waits, and since when.
pub async fn counts(store: &Store) -> Result<Counts, Error> {
    let mut txn = store.snapshot();
    Ok(Counts {
        spool_messages: count_of(&mut txn, COUNT_SPOOL).await?,
        queue_messages: count_of(&mut txn, COUNT_MESSAGES).await?,
        fresh: count_of(&mut txn, COUNT_FRESH).await?,
        deferred: count_of(&mut txn, COUNT_DEFERRED).await?,
        oldest_spooled_at: oldest(&mut txn, &keys::spools()).await?,
        oldest_queued_at: oldest(&mut txn, &keys::queue_messages()).await?,
    })
}

pub(crate) async fn count_of(txn: &mut Transaction<'_>, name: &str) -> Result<u64, Error> {
    let value = txn.get(&keys::counter(name)).await?;
    let octets = value.and_then(|value| <[u8; 8]>::try_from(value.as_ref()).ok());
    Ok(octets.map_or(0, u64::from_le_bytes))
}

/// The time that the first id of a range begins with.
async fn oldest(txn: &mut Transaction<'_>, range: &keys::KeyRange) -> Result<Option<UnixMillis>, Error> {
    let page = codec::page(txn, range, 1).await?;
    let id = page.rows.first().and_then(|(key, _)| KeyParts::of(key).u128());
    Ok(id.and_then(|id| u64::try_from(id >> 80).ok()).map(UnixMillis))
}

pub(crate) fn read_message(id: IngestId, row: QueueMessageRow) -> Result<QueueMessage, Error> {
    let destinations = row.destinations.iter().map(|entry| Ok((domain(&entry.domain)?, UnixMillis(entry.due))));
    Ok(QueueMessage {
        destinations: destinations.collect::<Result<_, Error>>()?,
        transit: Transit::from_row(id, row.message)?,
        queued_at: UnixMillis(row.queued_at),
        expires_at: UnixMillis(row.expires_at),
    })
}

pub(crate) fn read_work(key: &[u8], row: &QueueWorkRow) -> Result<Work, Error> {
    let (due, message) = work_place(key)?;
    let recipients = row.recipients.iter().map(|row| transit::recipient(message, row));
    Ok(Work {
        id: WorkId { destination: domain(&row.destination)?, due, message },
        recipients: recipients.collect::<Result<_, Error>>()?,
        attempt_count: row.attempt_count,
        last_attempt_at: row.last_attempt_at.map(UnixMillis),
        last_outcome: row.last_outcome.as_ref().map(transit::outcome),
        delay_reported: row.delay_reported,
    })
}

/// When a work row is due, and whose it is.
pub(crate) fn work_place(key: &[u8]) -> Result<(UnixMillis, IngestId), Error> {
    let mut parts = KeyParts::of(key);
    let message = parts.u128();
    let place = message.zip(parts.u64()).map(|(message, due)| (UnixMillis(due), IngestId::new(message)));
    place.ok_or_else(|| Error::Corrupt("a work row has no place".to_owned()))
}

fn domain(text: &str) -> Result<Domain, Error> {
    Domain::parse(text).map_err(|_| Error::Corrupt(format!("a queue row has the destination {text:?}")))
}

#[cfg(test)]
mod tests;
