//! What a site is besides its accounts: domains, aliases, keys and secrets; and the mail under way.
//!
//! A message moves from spool to queue under one id, so both ranges are read side by side in the order of ids, each page from
//! one snapshot: a message is taken once, as it was at one moment. This happens before the accounts are taken, so that
//! what is delivered meanwhile stands in the account, with its proof, and what is not stands here.

use posthouse_mail::{Domain, DomainId, IngestId, UnixMillis};

use super::bundle::{Bundle, BundleWriter};
use super::record::{AliasEntry, DkimEntry, DomainEntry, SecretEntry, SiteEntry, SiteFact, TransitEntry, WorkEntry};
use super::target::Target;
use crate::codec;
use crate::engine::{Page, RangeRequest};
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::account::IdRow;
use crate::record::{AddressRow, DkimKeyRow, DomainRow, QueueMessageRow, QueueWorkRow, SpoolRow};
use crate::store::Store;
use crate::transaction::Transaction;

/// Rows looked at in one snapshot.
const STEP: usize = 500;
/// Messages under way looked at in one snapshot: each has rows in several places.
const TRANSIT_STEP: usize = 100;

/// Facts of the site.
pub(crate) async fn take(store: &Store, target: &Target) -> Result<Bundle, Error> {
    let mut writer = BundleWriter::new(target);
    let mut names = keys::domain_names();
    loop {
        let (rows, more) = codec::scan::<IdRow>(&mut store.snapshot(), &names, STEP).await?;
        for (_, row) in &rows {
            domain(store, DomainId::new(row.id), &mut writer).await?;
        }
        match rows.last() {
            Some((key, _)) if more => names.begin = keys::after(key),
            _ => break,
        }
    }
    secrets(store, &mut writer).await?;
    writer.finish().await
}

async fn domain(store: &Store, id: DomainId, writer: &mut BundleWriter<'_, SiteEntry>) -> Result<(), Error> {
    let mut txn = store.snapshot();
    let Some(row) = codec::get::<DomainRow>(&mut txn, &keys::domain(id)).await? else { return Ok(()) };
    put(writer, SiteFact::Domain(DomainEntry { id: id.get(), row: Some(row) })).await?;
    for (_, row) in codec::scan_all::<DkimKeyRow>(&mut txn, &keys::dkim_keys(id)).await? {
        put(writer, SiteFact::DkimKey(DkimEntry { domain: id.get(), row: Some(row) })).await?;
    }
    let mut range = keys::addresses(id);
    loop {
        let (rows, more) = codec::scan::<AddressRow>(&mut store.snapshot(), &range, STEP).await?;
        let last = rows.last().map(|(key, _)| keys::after(key));
        for (_, row) in rows.into_iter().filter(|(_, row)| row.account.is_none()) {
            put(writer, SiteFact::Alias(AliasEntry { domain: id.get(), row: Some(row) })).await?;
        }
        match last {
            Some(next) if more => range.begin = next,
            _ => return Ok(()),
        }
    }
}

async fn secrets(store: &Store, writer: &mut BundleWriter<'_, SiteEntry>) -> Result<(), Error> {
    let mut range = keys::secrets();
    loop {
        let page = codec::page(&mut store.snapshot(), &range, STEP).await?;
        for (key, value) in &page.rows {
            let name = KeyParts::of(key).text_after(keys::OPEN_WIDTH).and_then(|name| String::from_utf8(name).ok());
            let name = name.ok_or_else(|| Error::Corrupt("a secret has no name".to_owned()))?;
            put(writer, SiteFact::Secret(SecretEntry { name, octets: value.to_vec() })).await?;
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(()),
        }
    }
}

async fn put(writer: &mut BundleWriter<'_, SiteEntry>, fact: SiteFact) -> Result<(), Error> {
    writer.push(&SiteEntry { fact: Some(fact) }).await
}

/// Mail under way, and where the spool begins.
pub(crate) struct Transit {
    pub bundle: Bundle,
    pub oldest_spooled: Option<IngestId>,
    pub messages: u64,
    /// What the store itself can no longer read.
    pub damaged: Vec<String>,
}

/// Takes the mail under way.
pub(crate) async fn take_transit(store: &Store, target: &Target) -> Result<Transit, Error> {
    let mut writer = BundleWriter::new(target);
    let (mut spool, mut queue) = (keys::spools(), keys::queue_messages());
    let (mut oldest_spooled, mut messages, mut damaged) = (None, 0, Vec::new());
    loop {
        let mut txn = store.snapshot();
        let spooled = txn.range_sealed(RangeRequest::new(&spool.begin, &spool.end).limit(TRANSIT_STEP)).await?;
        let queued = txn.range_sealed(RangeRequest::new(&queue.begin, &queue.end).limit(TRANSIT_STEP)).await?;
        // Up to here both pages are whole: an id that one of them does not show has no row there.
        let end = [&spooled, &queued].into_iter().filter_map(end_of).min();
        let mut ids: Vec<IngestId> = [&spooled, &queued].into_iter().flat_map(ids_of).collect();
        ids.retain(|id| end.is_none_or(|end| *id <= end));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let entry = match one(&mut txn, id).await {
                Ok(entry) => entry,
                Err(Error::Corrupt(reason)) => {
                    damaged.push(format!("the message {id} under way: {reason}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            messages += 1;
            oldest_spooled = oldest_spooled.or(entry.spool.is_some().then_some(id));
            writer.push(&entry).await?;
        }
        let Some(end) = end else { break };
        spool.begin = keys::after(&keys::spool(end));
        queue.begin = keys::after(&keys::queue_message(end));
    }
    Ok(Transit { bundle: writer.finish().await?, oldest_spooled, messages, damaged })
}

fn ids_of(page: &Page) -> impl Iterator<Item = IngestId> + '_ {
    page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).u128()).map(IngestId::new)
}

/// The last id of a page that has more behind it.
fn end_of(page: &Page) -> Option<IngestId> {
    if page.more { ids_of(page).last() } else { None }
}

/// All rows of one message.
async fn one(txn: &mut Transaction<'_>, id: IngestId) -> Result<TransitEntry, Error> {
    let spool = codec::get::<SpoolRow>(txn, &keys::spool(id)).await?;
    let queue = codec::get::<QueueMessageRow>(txn, &keys::queue_message(id)).await?;
    let mut works = Vec::new();
    for place in queue.iter().flat_map(|row| &row.destinations) {
        let destination = Domain::parse(&place.domain)
            .map_err(|_| Error::Corrupt(format!("a queue row has the destination {:?}", place.domain)))?;
        let key = keys::queue_work(&destination, UnixMillis(place.due), id);
        let row = codec::expect::<QueueWorkRow>(txn, &key, "the work").await?;
        works.push(WorkEntry { destination: place.domain.clone(), due: place.due, row: Some(row) });
    }
    Ok(TransitEntry { id: id.get().to_be_bytes().to_vec(), spool, queue, works })
}
