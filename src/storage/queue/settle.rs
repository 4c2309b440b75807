//! The end of an attempt: recipients leave the queue, the others wait for a later time.

use posthouse_mail::{ForwardPath, UnixMillis};

use super::{COUNT_MESSAGES, WorkId, count_work, state_of};
use crate::blob;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::record::{DestinationRow, QueueMessageRow, QueueWorkRow};
use crate::shard::Fence;
use crate::spool::{self, NewSpool};
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};
use crate::transit::{self, LastOutcome, Transit};
use crate::writer::boxed;

/// What an attempt came to.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Delivered, bounced or given up: they leave the queue.
    pub finished: Vec<ForwardPath>,
    /// For those that stay; without it the others are tried again when `later` of a next settlement says so: at once.
    pub later: Option<Later>,
    /// Reports about the finished ones, or about the delay.
    pub reports: Vec<NewSpool>,
}

/// When those that stay are tried again, and why they stay.
#[derive(Debug, Clone)]
pub struct Later {
    pub due: UnixMillis,
    pub outcome: LastOutcome,
    /// The sender hears of the delay with this settlement, or heard before.
    pub delay_reported: bool,
}

/// Settles an attempt; whether work is left for this message at this destination. A repeat changes nothing.
pub async fn settle(
    store: &Store,
    fence: Fence,
    work: &WorkId,
    settlement: &Settlement,
    now: UnixMillis,
) -> Result<bool, Error> {
    store.transact(|txn| boxed(settle_in(txn, (fence, work), settlement, now))).await
}

async fn settle_in(
    txn: &mut Transaction<'_>,
    (fence, id): (Fence, &WorkId),
    settlement: &Settlement,
    now: UnixMillis,
) -> Result<bool, Error> {
    let Some(mut work) = take(txn, fence, id).await? else { return Ok(false) };
    work.recipients.retain(|row| settlement.finished.iter().all(|path| path.to_string() != row.path));
    let mut due = id.due;
    if let Some(later) = &settlement.later {
        due = later.due;
        work.attempt_count = work.attempt_count.saturating_add(1);
        work.last_attempt_at = Some(now.0);
        work.last_outcome = Some(transit::outcome_row(&later.outcome));
        work.delay_reported |= later.delay_reported;
    }
    for report in &settlement.reports {
        spool::insert_in(txn, report).await?;
    }
    place(txn, id, (work, due), now).await
}

/// Makes work due at another time, as an administrator asks; whether there was such work.
pub async fn reschedule(
    store: &Store,
    fence: Fence,
    work: &WorkId,
    due: UnixMillis,
    now: UnixMillis,
) -> Result<bool, Error> {
    store.transact(|txn| boxed(reschedule_in(txn, (fence, work), due, now))).await
}

async fn reschedule_in(
    txn: &mut Transaction<'_>,
    (fence, id): (Fence, &WorkId),
    due: UnixMillis,
    now: UnixMillis,
) -> Result<bool, Error> {
    match take(txn, fence, id).await? {
        Some(work) => place(txn, id, (work, due), now).await,
        None => Ok(false),
    }
}

/// Removes a work row from where it lies; `None`: it was settled before.
async fn take(txn: &mut Transaction<'_>, fence: Fence, id: &WorkId) -> Result<Option<QueueWorkRow>, Error> {
    if fence.shard != keys::queue_shard(&id.destination) {
        return Err(Error::Fenced { shard: fence.shard, epoch: fence.epoch });
    }
    check_fence(txn, fence).await?;
    let key = keys::queue_work(&id.destination, id.due, id.message);
    let Some(work) = codec::get::<QueueWorkRow>(txn, &key).await? else { return Ok(None) };
    codec::remove::<QueueWorkRow>(txn, &key);
    count_work(txn, &id.destination, state_of(&work), -1);
    Ok(Some(work))
}

/// Puts what is left of a work row where it now belongs, and keeps the message row true.
async fn place(
    txn: &mut Transaction<'_>,
    id: &WorkId,
    (work, due): (QueueWorkRow, UnixMillis),
    now: UnixMillis,
) -> Result<bool, Error> {
    let key = keys::queue_message(id.message);
    let mut message = codec::expect::<QueueMessageRow>(txn, &key, "the queued message").await?;
    message.destinations.retain(|entry| (entry.domain.as_str(), entry.due) != (id.destination.as_str(), id.due.0));
    let left = !work.recipients.is_empty();
    if left {
        let due = free_due(txn, id, due).await?;
        message.destinations.push(DestinationRow { domain: id.destination.to_string(), due: due.0 });
        count_work(txn, &id.destination, state_of(&work), 1);
        codec::insert(txn, &keys::queue_work(&id.destination, due, id.message), &work)?;
    }
    if !message.destinations.is_empty() {
        codec::put(txn, &key, &message)?;
        return Ok(left);
    }
    let body = Transit::from_row(id.message, message.message)?.body;
    blob::release(txn, body.blob, BlobOwner::Queue(id.message), now);
    codec::remove::<QueueMessageRow>(txn, &key);
    txn.atomic_add(&keys::counter(COUNT_MESSAGES), -1);
    Ok(left)
}

/// A due time at which this message has no other work: never the old one, so that a repeat finds nothing under its key.
async fn free_due(txn: &mut Transaction<'_>, id: &WorkId, wanted: UnixMillis) -> Result<UnixMillis, Error> {
    let mut due = wanted;
    while due == id.due || txn.get(&keys::queue_work(&id.destination, due, id.message)).await?.is_some() {
        due = UnixMillis(due.0.saturating_add(1));
    }
    Ok(due)
}
