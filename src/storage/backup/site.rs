//! What a site is besides its accounts: domains, aliases, keys and secrets; and the mail under way.
//!
//! A message moves from spool to queue under one id, so both ranges are read side by side in the order of ids, each page from
//! one snapshot: a message is taken once, as it was at one moment. This happens before the accounts are taken, so that
//! what is delivered meanwhile stands in the account, with its proof, and what is not stands here.

use std::collections::HashSet;

use posthouse_mail::{Domain, DomainId, IngestId, UnixMillis};

use super::bundle::{Bundle, BundleWriter};
use super::damage::{Damage, readable};
use super::lock::Lock;
use super::record::{AliasEntry, DkimEntry, DomainEntry, SecretEntry, SiteEntry, SiteFact, TransitEntry, WorkEntry};
use super::target::Target;
use crate::codec;
use crate::engine::{Page, RangeRequest};
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::account::IdRow;
use crate::record::{AddressRow, DkimKeyRow, DomainRow, QueueMessageRow, QueueWorkRow, SpoolRow};
use crate::shard::ShardId;
use crate::store::Store;
use crate::transaction::Transaction;

/// Rows looked at in one snapshot.
const STEP: usize = 500;
/// Messages under way looked at in one snapshot: each has rows in several places.
const TRANSIT_STEP: usize = 100;

/// What was taken of the site.
pub(crate) struct Site {
    pub bundle: Bundle,
    /// What the store itself can no longer read; everything else was taken.
    pub damaged: Damage,
}

/// Facts of the site.
pub(crate) async fn take(store: &Store, (target, lock): (&Target, &Lock)) -> Result<Site, Error> {
    let mut taker = Taker { store, lock, writer: BundleWriter::new(target), damaged: Damage::default() };
    taker.domains().await?;
    taker.secrets().await?;
    Ok(Site { bundle: taker.writer.finish().await?, damaged: taker.damaged })
}

struct Taker<'a> {
    store: &'a Store,
    lock: &'a Lock,
    writer: BundleWriter<'a, SiteEntry>,
    damaged: Damage,
}

impl Taker<'_> {
    async fn domains(&mut self) -> Result<(), Error> {
        let mut unreadable = HashSet::new();
        let mut names = keys::domain_names();
        loop {
            let tell = |key: &[u8], reason| {
                let name = text_of(key);
                self.damaged.add(format!("the name of the domain {name}: {reason}"));
                unreadable.insert(name);
            };
            let (rows, next) = codec::scan_readable::<IdRow>(&mut self.store.snapshot(), &names, STEP, tell).await?;
            for (key, row) in rows {
                self.domain(DomainId::new(row.id), &text_of(&key)).await?;
            }
            let Some(next) = next else { break };
            names.begin = next;
            self.lock.renew().await?;
        }
        if unreadable.is_empty() { Ok(()) } else { self.domains_by_their_rows(&unreadable).await }
    }

    /// A domain's own row tells its name too, only not where it lies.
    async fn domains_by_their_rows(&mut self, wanted: &HashSet<String>) -> Result<(), Error> {
        for number in 0..ShardId::COUNT {
            let mut range = keys::domains_in(ShardId::new(number).expect("every number below COUNT is a shard"));
            loop {
                // One that cannot be read either is told where its name leads to it.
                let mut txn = self.store.snapshot();
                let (rows, next) = codec::scan_readable::<DomainRow>(&mut txn, &range, STEP, |_, _| {}).await?;
                for (key, row) in rows.into_iter().filter(|(_, row)| wanted.contains(&row.name)) {
                    let id = KeyParts::of(&key).u64().unwrap_or(0);
                    self.domain(DomainId::new(id), &row.name).await?;
                }
                let Some(next) = next else { break };
                range.begin = next;
            }
        }
        Ok(())
    }

    async fn domain(&mut self, id: DomainId, name: &str) -> Result<(), Error> {
        self.lock.renew().await?;
        let mut txn = self.store.snapshot();
        let row = codec::get::<DomainRow>(&mut txn, &keys::domain(id)).await;
        let what = || format!("the settings of the domain {name}");
        let row = match readable(row, what, &mut self.damaged)? {
            Some(None) => return Ok(()),
            Some(Some(row)) => row,
            // Without a domain none of its accounts would have a place: its name is all that they need.
            None => DomainRow { name: name.to_owned(), ..DomainRow::default() },
        };
        self.put(SiteFact::Domain(DomainEntry { id: id.get(), row: Some(row) })).await?;
        self.dkim_keys(&mut txn, id, name).await?;
        self.aliases(id, name).await
    }

    async fn dkim_keys(&mut self, txn: &mut Transaction<'_>, id: DomainId, name: &str) -> Result<(), Error> {
        let mut range = keys::dkim_keys(id);
        loop {
            let tell = |key: &[u8], reason| {
                let selector = KeyParts::of(key).text_after(keys::OWNED_ID_WIDTH).unwrap_or_default();
                let selector = String::from_utf8_lossy(&selector);
                self.damaged.add(format!("the signing key {selector} of {name}: {reason}"));
            };
            let (rows, next) = codec::scan_readable::<DkimKeyRow>(txn, &range, STEP, tell).await?;
            for (_, row) in rows {
                self.put(SiteFact::DkimKey(DkimEntry { domain: id.get(), row: Some(row) })).await?;
            }
            let Some(next) = next else { return Ok(()) };
            range.begin = next;
        }
    }

    async fn aliases(&mut self, id: DomainId, name: &str) -> Result<(), Error> {
        let mut range = keys::addresses(id);
        loop {
            self.lock.renew().await?;
            let tell = |key: &[u8], reason| {
                let local = KeyParts::of(key).text_after(keys::OWNED_ID_WIDTH).unwrap_or_default();
                let local = String::from_utf8_lossy(&local);
                // The row of an account's address is made anew; whether it is one nobody can tell any more.
                self.damaged.add(format!("the address {local}@{name}, if it is an alias: {reason}"));
            };
            let (rows, next) =
                codec::scan_readable::<AddressRow>(&mut self.store.snapshot(), &range, STEP, tell).await?;
            for (_, row) in rows.into_iter().filter(|(_, row)| row.account.is_none()) {
                self.put(SiteFact::Alias(AliasEntry { domain: id.get(), row: Some(row) })).await?;
            }
            let Some(next) = next else { return Ok(()) };
            range.begin = next;
        }
    }

    async fn secrets(&mut self) -> Result<(), Error> {
        let mut range = keys::secrets();
        loop {
            let tell = |key: &[u8], reason| {
                self.damaged.add(format!("the secret {}: {reason}", text_of(key)));
            };
            let (rows, next) = codec::page_readable(&mut self.store.snapshot(), &range, STEP, tell).await?;
            for (key, value) in rows {
                self.put(SiteFact::Secret(SecretEntry { name: text_of(&key), octets: value.to_vec() })).await?;
            }
            let Some(next) = next else { return Ok(()) };
            range.begin = next;
        }
    }

    async fn put(&mut self, fact: SiteFact) -> Result<(), Error> {
        self.writer.push(&SiteEntry { fact: Some(fact) }).await
    }
}

/// The text that the key of a row without an owner ends in.
fn text_of(key: &[u8]) -> String {
    let text = KeyParts::of(key).text_after(keys::OPEN_WIDTH).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}
/// Mail under way, and where the spool begins.
pub(crate) struct Transit {
    pub bundle: Bundle,
    pub oldest_spooled: Option<IngestId>,
    pub messages: u64,
    /// What the store itself can no longer read.
    pub damaged: Damage,
}

/// Takes the mail under way.
pub(crate) async fn take_transit(store: &Store, (target, lock): (&Target, &Lock)) -> Result<Transit, Error> {
    let mut writer = BundleWriter::new(target);
    let (mut spool, mut queue) = (keys::spools(), keys::queue_messages());
    let (mut oldest_spooled, mut messages, mut damaged) = (None, 0, Damage::default());
    loop {
        lock.renew().await?;
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
                    damaged.add(format!("the message {id} under way: {reason}"));
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
