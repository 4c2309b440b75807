//! Spool and queue: rows are whole, hold their bodies, name each other, and are counted.

use std::collections::BTreeMap;

use posthouse_mail::stage::BodyRef;
use posthouse_mail::{Domain, IngestId};

use super::{Report, Rule, STEP};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts, KeyRange};
use crate::queue::{self, COUNT_DEFERRED, COUNT_FRESH, COUNT_MESSAGES, COUNT_SPOOL};
use crate::record::{QueueMessageRow, QueueWorkRow, SpoolRow};
use crate::spool;
use crate::store::Store;
use crate::transaction::Transaction;

pub(super) async fn walk(store: &Store, report: &mut Report) -> Result<(), Error> {
    let outcome = spooled(store, report).await;
    report.absorb("the spool", outcome)?;
    let outcome = queued(store, report).await;
    report.absorb("the queue", outcome)?;
    let outcome = works(store, report).await;
    report.absorb("work of the queue", outcome)?;
    let outcome = counters(store, report).await;
    report.absorb("counters of the queue", outcome)
}

async fn spooled(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::spools();
    loop {
        let mut txn = store.snapshot();
        let (rows, more) = codec::scan::<SpoolRow>(&mut txn, &range, STEP).await?;
        let next = rows.last().map(|(key, _)| keys::after(key));
        for (key, row) in rows {
            report.walked.spooled += 1;
            let id = IngestId::new(KeyParts::of(&key).u128().unwrap_or(0));
            let message = spool::read(id, row)?;
            if message.recipients.iter().all(|recipient| recipient.finished) {
                report.add(Rule::Spool, format!("spooled {id}"), "all its recipients are finished");
            }
            held(&mut txn, message.transit.body, (BlobOwner::Spool(id), Rule::Spool), report).await?;
        }
        match next {
            Some(next) if more => range.begin = next,
            _ => return Ok(()),
        }
    }
}

async fn queued(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::queue_messages();
    loop {
        let mut txn = store.snapshot();
        let (rows, more) = codec::scan::<QueueMessageRow>(&mut txn, &range, STEP).await?;
        let next = rows.last().map(|(key, _)| keys::after(key));
        for (key, row) in rows {
            report.walked.queued += 1;
            let id = IngestId::new(KeyParts::of(&key).u128().unwrap_or(0));
            let message = queue::read_message(id, row)?;
            if message.destinations.is_empty() {
                report.add(Rule::Queue, format!("queued {id}"), "it has no destination left");
            }
            for (destination, due) in &message.destinations {
                if txn.get(&keys::queue_work(destination, *due, id)).await?.is_none() {
                    report.lost(Rule::Queue, format!("queued {id}"), format!("its work for {destination} is gone"));
                }
                if txn.get(&keys::queue_count(destination)).await?.is_none() {
                    report.add(Rule::Queue, format!("queue {destination}"), "nobody counts its work");
                }
            }
            held(&mut txn, message.transit.body, (BlobOwner::Queue(id), Rule::Queue), report).await?;
        }
        match next {
            Some(next) if more => range.begin = next,
            _ => return Ok(()),
        }
    }
}

async fn held(
    txn: &mut Transaction<'_>,
    body: BodyRef,
    (owner, rule): (BlobOwner, Rule),
    report: &mut Report,
) -> Result<(), Error> {
    let place = format!("{owner:?}");
    if txn.get(&keys::blob_ref(&body.blob, owner)).await?.is_none_or(|value| !value.is_empty()) {
        report.add(Rule::Reference, place.clone(), "its body is not referenced by it");
    }
    if txn.get(&keys::blob_state(&body.blob)).await?.is_none() {
        report.lost(rule, place, "its body is gone");
    }
    Ok(())
}

/// Every work row has its message, which names it.
async fn works(store: &Store, report: &mut Report) -> Result<(), Error> {
    for domain in counted(&mut store.snapshot()).await?.keys() {
        let mut range = keys::queue_works(domain);
        loop {
            let mut txn = store.snapshot();
            let (rows, more) = codec::scan::<QueueWorkRow>(&mut txn, &range, STEP).await?;
            for (key, row) in &rows {
                let work = queue::read_work(key, row)?;
                let message = codec::get::<QueueMessageRow>(&mut txn, &keys::queue_message(work.id.message)).await?;
                let named = |row: &QueueMessageRow| {
                    let is_it = |domain: &str, due: u64| domain == work.id.destination.as_str() && due == work.id.due.0;
                    row.destinations.iter().any(|entry| is_it(&entry.domain, entry.due))
                };
                if !message.as_ref().is_some_and(named) || work.recipients.is_empty() {
                    let place = format!("work {} for {domain}", work.id.message);
                    report.lost(Rule::Queue, place, "its message does not name it, or nobody is left in it");
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

/// Destinations with their number of work rows, as counted.
async fn counted(txn: &mut Transaction<'_>) -> Result<BTreeMap<Domain, u64>, Error> {
    let mut range = keys::queue_counts();
    let mut counts = BTreeMap::new();
    loop {
        let page = codec::page(txn, &range, STEP).await?;
        for (key, value) in &page.rows {
            let text = KeyParts::of(key).text_after(keys::OPEN_WIDTH).and_then(|text| String::from_utf8(text).ok());
            let domain = text.and_then(|text| Domain::parse(&text).ok());
            let count = <[u8; 8]>::try_from(value.as_ref()).map(u64::from_le_bytes);
            if let Some((domain, count)) = domain.zip(count.ok()) {
                counts.insert(domain, count);
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(counts),
        }
    }
}

/// Counters and rows in one snapshot.
async fn counters(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut txn = store.snapshot();
    let (mut fresh, mut deferred) = (0, 0);
    for (domain, count) in counted(&mut txn).await? {
        let works = codec::scan_all::<QueueWorkRow>(&mut txn, &keys::queue_works(&domain)).await?;
        let tried = works.iter().filter(|(_, row)| row.attempt_count > 0).count();
        fresh += works.len() - tried;
        deferred += tried;
        if u64::try_from(works.len()).ok() != Some(count) {
            report.add(Rule::Queue, format!("queue {domain}"), format!("{count} counted, {} present", works.len()));
        }
    }
    let spooled = rows_in(&mut txn, keys::spools()).await?;
    let queued = rows_in(&mut txn, keys::queue_messages()).await?;
    let present = [(COUNT_FRESH, fresh), (COUNT_DEFERRED, deferred), (COUNT_SPOOL, spooled), (COUNT_MESSAGES, queued)];
    for (name, present) in present {
        let counted = queue::count_of(&mut txn, name).await?;
        if u64::try_from(present).ok() != Some(counted) {
            report.add(Rule::Queue, format!("counter {name}"), format!("{counted} counted, {present} present"));
        }
    }
    let page = codec::page(&mut txn, &keys::counters(), usize::MAX).await?;
    for (key, _) in &page.rows {
        if present.iter().all(|(name, _)| *keys::counter(name) != **key) {
            report.add(Rule::Queue, keys::describe(key), "nothing is counted under this name");
        }
    }
    Ok(())
}

async fn rows_in(txn: &mut Transaction<'_>, mut range: KeyRange) -> Result<usize, Error> {
    let mut count = 0;
    loop {
        let page = codec::page(txn, &range, STEP).await?;
        count += page.rows.len();
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(count),
        }
    }
}
