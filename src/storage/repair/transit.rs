//! Spool and queue: messages and work rows name each other again, and are counted.

use std::collections::{BTreeMap, BTreeSet};

use posthouse_mail::{Domain, IngestId};

use super::pen::{Edit, Pen};
use crate::check::rows::Entities;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts, Subspace};
use crate::queue::{self, COUNT_DEFERRED, COUNT_FRESH, COUNT_MESSAGES, COUNT_SPOOL};
use crate::record::transport::TransitRow;
use crate::record::{DestinationRow, QueueMessageRow, QueueWorkRow, SpoolRow};
use crate::shard::ShardId;
use crate::transit::Transit;

/// A message whose envelope is lost is tried for so long.
const EXPIRY_MILLIS: u64 = 5 * 86_400_000;

/// Work rows by message.
type Works = BTreeMap<u128, Vec<(DestinationRow, QueueWorkRow)>>;

pub(super) async fn mend(pen: &mut Pen<'_>, entities: &Entities) -> Result<(), Error> {
    let spooled = spool(pen).await?;
    let works = works(pen, &entities.queues).await?;
    let messages = messages(pen, &works).await?;
    counters(pen, (spooled, messages), &works).await
}

async fn spool(pen: &mut Pen<'_>) -> Result<u64, Error> {
    let mut count = 0;
    for (key, row) in pen.records::<SpoolRow>(keys::spools()).await? {
        let id = IngestId::new(KeyParts::of(&key).u128().unwrap_or(0));
        if row.recipients.iter().all(|recipient| recipient.finished) {
            pen.mend(Edit::Clear(key.to_vec()), format!("spooled {id}"), "all its recipients had it").await?;
            continue;
        }
        count += 1;
        held(pen, id, row.message, BlobOwner::Spool(id)).await?;
    }
    Ok(count)
}

/// A holder refers to its body.
async fn held(pen: &mut Pen<'_>, id: IngestId, row: Option<TransitRow>, owner: BlobOwner) -> Result<(), Error> {
    let blob = Transit::from_row(id, row)?.body.blob;
    let key = keys::blob_ref(&blob, owner);
    if pen.store.snapshot().get(&key).await?.is_none_or(|value| !value.is_empty()) {
        let what = "the reference to its body is there again";
        pen.mend(Edit::Set(key.to_vec(), Vec::new()), format!("message {id}"), what).await?;
    }
    Ok(())
}

async fn works(pen: &mut Pen<'_>, shards: &BTreeSet<u16>) -> Result<Works, Error> {
    let mut works = Works::new();
    for shard in shards.iter().copied().filter_map(ShardId::new) {
        for (key, row) in pen.records::<QueueWorkRow>(keys::queue_works_in(shard)).await? {
            let (due, message) = queue::work_place(&key)?;
            let place = DestinationRow { domain: row.destination.clone(), due: due.0 };
            works.entry(message.get()).or_default().push((place, row));
        }
    }
    Ok(works)
}

/// Messages and their work; returns how many messages there are.
async fn messages(pen: &mut Pen<'_>, works: &Works) -> Result<u64, Error> {
    let mut present = BTreeSet::new();
    for (key, mut row) in pen.records::<QueueMessageRow>(keys::queue_messages()).await? {
        let id = IngestId::new(KeyParts::of(&key).u128().unwrap_or(0));
        let right: Vec<DestinationRow> =
            works.get(&id.get()).into_iter().flatten().map(|(place, _)| place.clone()).collect();
        let place = format!("queued {id}");
        for lost in row.destinations.iter().filter(|destination| !right.contains(destination)) {
            let from = row.message.as_ref().map(|message| message.reverse_path.clone()).unwrap_or_default();
            let what = format!("its recipients at {} are lost: tell its sender <{from}>", lost.domain);
            pen.say(&place, what);
        }
        if right.is_empty() {
            let value = pen.store.snapshot().get(&key).await?.unwrap_or_default();
            pen.lay_aside(&key, &value, "nobody is left to send it to").await?;
            continue;
        }
        present.insert(id.get());
        held(pen, id, row.message.clone(), BlobOwner::Queue(id)).await?;
        if right.len() != row.destinations.len() || right.iter().any(|place| !row.destinations.contains(place)) {
            row.destinations = right;
            let edit = Edit::QueueMessage { key: keys::queue_message(id), row: Box::new(row) };
            pen.mend(edit, place, "it names the work that there is").await?;
        }
    }
    for (id, work) in works {
        if !present.contains(id) && remake(pen, IngestId::new(*id), work).await? {
            present.insert(*id);
        }
    }
    Ok(u64::try_from(present.len()).unwrap_or(u64::MAX))
}

/// A message whose row is lost is sent from the null reverse-path, as nobody knows its sender.
async fn remake(pen: &mut Pen<'_>, id: IngestId, work: &[(DestinationRow, QueueWorkRow)]) -> Result<bool, Error> {
    let mut blob = None;
    for (key, value) in pen.rows(keys::all_blob_refs()).await? {
        let mut parts = KeyParts::of(&key);
        if parts.owner() == Some(BlobOwner::Queue(id)) && value.is_empty() {
            blob = parts.blob();
        }
    }
    let place = format!("queued {id}");
    let body = match blob {
        Some(blob) => pen.body(blob).await?,
        None => None,
    };
    let Some((blob, body)) = blob.zip(body) else {
        for (destination, _) in work {
            let domain = Domain::parse(&destination.domain).map_err(|_| Error::Invalid("a destination"))?;
            let key = keys::queue_work(&domain, posthouse_mail::UnixMillis(destination.due), id);
            let value = pen.store.snapshot().get(&key).await?.unwrap_or_default();
            pen.lay_aside(&key, &value, "its message is lost").await?;
        }
        return Ok(false);
    };
    let message = TransitRow {
        blob: blob.as_bytes().to_vec(),
        body_size: u64::try_from(body.len()).unwrap_or(u64::MAX),
        received_at: pen.now.0,
        body_type: 1,
        ..TransitRow::default()
    };
    let row = QueueMessageRow {
        message: Some(message),
        queued_at: pen.now.0,
        expires_at: pen.now.0.saturating_add(EXPIRY_MILLIS),
        destinations: work.iter().map(|(place, _)| place.clone()).collect(),
    };
    let what = "its row is lost: made anew from its body and its recipients, without a sender";
    let edit = Edit::QueueMessage { key: keys::queue_message(id), row: Box::new(row) };
    pen.mend(edit, place, what).await?;
    Ok(true)
}

async fn counters(pen: &mut Pen<'_>, (spooled, messages): (u64, u64), works: &Works) -> Result<(), Error> {
    let mut right: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (place, row) in works.values().flatten() {
        let state = if row.attempt_count == 0 { COUNT_FRESH } else { COUNT_DEFERRED };
        *right.entry(keys::counter(state).to_vec()).or_default() += 1;
        if let Ok(domain) = Domain::parse(&place.domain) {
            *right.entry(keys::queue_count(&domain).to_vec()).or_default() += 1;
        }
    }
    right.insert(keys::counter(COUNT_SPOOL).to_vec(), spooled);
    right.insert(keys::counter(COUNT_MESSAGES).to_vec(), messages);
    let mut present = pen.rows(keys::counters()).await?;
    present.extend(pen.rows(keys::queue_counts()).await?);
    for (key, value) in present {
        let counted = <[u8; 8]>::try_from(value.as_ref()).ok().map(u64::from_le_bytes);
        let is_count = keys::place(&key).is_some_and(|place| place.subspace == Subspace::Counter);
        match right.remove(&key[..]) {
            Some(present) if counted == Some(present) => {}
            Some(present) => set(pen, &key, present).await?,
            None if is_count && counted == Some(0) && is_known(&key) => {}
            None => pen.mend(Edit::Clear(key.to_vec()), keys::describe(&key), "nothing is counted there").await?,
        }
    }
    for (key, present) in right.into_iter().filter(|(_, present)| *present > 0) {
        set(pen, &key, present).await?;
    }
    Ok(())
}

fn is_known(key: &[u8]) -> bool {
    [COUNT_FRESH, COUNT_DEFERRED, COUNT_MESSAGES, COUNT_SPOOL].iter().any(|name| *keys::counter(name) == *key)
}

async fn set(pen: &mut Pen<'_>, key: &[u8], count: u64) -> Result<(), Error> {
    let edit = Edit::Set(key.to_vec(), count.to_le_bytes().to_vec());
    pen.mend(edit, keys::describe(key), format!("counted anew: {count}")).await
}
