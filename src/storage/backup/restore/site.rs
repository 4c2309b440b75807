//! Domains, keys, aliases and secrets come back first, mail under way last, when there is an account to deliver it to.

use posthouse_mail::{BlobId, Domain, DomainId, IngestId, UnixMillis};

use super::{Fences, Restored};
use crate::address;
use crate::backup::bundle;
use crate::backup::image::OpenPoint;
use crate::backup::record::{SecretEntry, SiteEntry, SiteFact, TransitEntry};
use crate::blob::{self, StagedBody};
use crate::codec;
use crate::domain::{self, Counted};
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::queue;
use crate::record::account::IdRow;
use crate::record::transport::TransitRow;
use crate::record::{AddressRow, DkimKeyRow, DomainRow};
use crate::shard::Fence;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// Facts of the site, in the order in which they were taken: a domain before what is in it.
pub(super) async fn restore(
    store: &Store,
    point: &OpenPoint,
    fences: Fences<'_>,
    restored: &mut Restored,
) -> Result<(), Error> {
    for name in &point.row.site {
        for entry in readable::<SiteEntry>(point, name, restored).await? {
            match entry.fact {
                Some(SiteFact::Domain(entry)) => {
                    let (id, row) = (DomainId::new(entry.id), &entry.row.unwrap_or_default());
                    let fence = fences(keys::domain_shard(id));
                    store.transact(|txn| boxed(put_domain(txn, fence, id, row))).await?;
                    restored.domains += 1;
                }
                Some(SiteFact::DkimKey(entry)) => {
                    let (id, row) = (DomainId::new(entry.domain), &entry.row.unwrap_or_default());
                    let fence = fences(keys::domain_shard(id));
                    store.transact(|txn| boxed(put_key(txn, fence, id, row))).await?;
                }
                Some(SiteFact::Alias(entry)) => {
                    let (id, row) = (DomainId::new(entry.domain), &entry.row.unwrap_or_default());
                    let fence = fences(keys::domain_shard(id));
                    store.transact(|txn| boxed(put_alias(txn, fence, id, row))).await?;
                }
                Some(SiteFact::Secret(entry)) => {
                    let entry = &entry;
                    store.transact(|txn| boxed(put_secret(txn, entry))).await?;
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// A domain without keys and addresses: those come one by one, and are counted.
async fn put_domain(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &DomainRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    if codec::get::<DomainRow>(txn, &keys::domain(id)).await?.is_some() {
        return Ok(());
    }
    let name = Domain::parse(&row.name).map_err(|_| damaged("a domain has no name"))?;
    codec::put(txn, &keys::domain_name(&name), &IdRow { id: id.get() })?;
    let bare = DomainRow { selectors: Vec::new(), address_count: 0, ..row.clone() };
    codec::put(txn, &keys::domain(id), &bare)
}

async fn put_key(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &DkimKeyRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    let mut domain = codec::expect::<DomainRow>(txn, &keys::domain(id), "the domain").await?;
    if !domain.selectors.contains(&row.selector) {
        domain.selectors.push(row.selector.clone());
        codec::put(txn, &keys::domain(id), &domain)?;
    }
    codec::put(txn, &keys::dkim_key(id, &row.selector), row)
}

async fn put_alias(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &AddressRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    let address = posthouse_mail::Address::parse(&row.address).map_err(|_| damaged("an alias has no address"))?;
    let key = keys::address(id, &address::folded(&address));
    if codec::get::<AddressRow>(txn, &key).await?.is_some() {
        return Ok(());
    }
    domain::count_address(txn, fence, id, Counted::Added).await?;
    codec::put(txn, &key, row)
}

/// A secret that the new store has made for itself stays: its own rows depend on it.
async fn put_secret(txn: &mut Transaction<'_>, entry: &SecretEntry) -> Result<(), Error> {
    let key = keys::secret(&entry.name);
    if txn.get(&key).await?.is_none() {
        txn.set(&key, &entry.octets);
    }
    Ok(())
}

/// Mail under way.
pub(super) async fn restore_transit(
    store: &Store,
    point: &mut OpenPoint,
    restored: &mut Restored,
) -> Result<(), Error> {
    for name in point.row.transit.clone() {
        for entry in readable::<TransitEntry>(point, &name, restored).await? {
            let id = entry.id.as_slice().try_into().map(u128::from_be_bytes).map(IngestId::new);
            let id = id.map_err(|_| damaged("a message under way has no id"))?;
            let spooled = entry.spool.as_ref().and_then(|row| row.message.as_ref());
            let message = spooled.or_else(|| entry.queue.as_ref().and_then(|row| row.message.as_ref()));
            let blob = blob_of(message.ok_or_else(|| damaged("a message under way is empty"))?)?;
            let staged = match point.stage(store, &blob).await {
                Err(Error::BackupDamaged(reason)) => {
                    restored.leave_out(point, format!("the message {id} under way: {reason}")).await?;
                    continue;
                }
                staged => &staged?,
            };
            let entry = &entry;
            store.transact(|txn| boxed(put_transit(txn, id, entry, staged))).await?;
            restored.under_way += 1;
        }
    }
    Ok(())
}

/// The records of an object; none, and a word about it, when it is damaged.
async fn readable<T: prost::Message + Default>(
    point: &OpenPoint,
    name: &[u8],
    restored: &mut Restored,
) -> Result<Vec<T>, Error> {
    match bundle::read(&point.target, name).await {
        Err(Error::BackupDamaged(reason)) => {
            restored.leave_out(point, format!("domains, aliases, keys or mail under way: {reason}")).await?;
            Ok(Vec::new())
        }
        records => records,
    }
}

fn blob_of(row: &TransitRow) -> Result<BlobId, Error> {
    let octets = row.blob.as_slice().try_into().map_err(|_| damaged("a message under way names no body"))?;
    Ok(BlobId::new(octets))
}

/// All rows of one message, unless they are there already.
async fn put_transit(
    txn: &mut Transaction<'_>,
    id: IngestId,
    entry: &TransitEntry,
    staged: &StagedBody,
) -> Result<(), Error> {
    let here = |row: &TransitRow| TransitRow { blob: staged.body.blob.as_bytes().to_vec(), ..row.clone() };
    txn.attach(staged);
    if let Some(row) = entry.spool.as_ref()
        && txn.get(&keys::spool(id)).await?.is_none()
    {
        let mut row = row.clone();
        row.message = row.message.as_ref().map(here);
        blob::reference(txn, staged.body, BlobOwner::Spool(id)).await?;
        txn.atomic_add(&keys::counter(queue::COUNT_SPOOL), 1);
        codec::insert(txn, &keys::spool(id), &row)?;
    }
    if let Some(row) = entry.queue.as_ref()
        && txn.get(&keys::queue_message(id)).await?.is_none()
    {
        let mut row = row.clone();
        row.message = row.message.as_ref().map(here);
        blob::reference(txn, staged.body, BlobOwner::Queue(id)).await?;
        txn.atomic_add(&keys::counter(queue::COUNT_MESSAGES), 1);
        codec::insert(txn, &keys::queue_message(id), &row)?;
        for work in &entry.works {
            let destination = Domain::parse(&work.destination).map_err(|_| damaged("work has no destination"))?;
            let row = work.row.as_ref().ok_or_else(|| damaged("work is empty"))?;
            codec::insert(txn, &keys::queue_work(&destination, UnixMillis(work.due), id), row)?;
            queue::count_work(txn, &destination, queue::state_of(row), 1);
        }
    }
    Ok(())
}

fn damaged(what: &str) -> Error {
    Error::BackupDamaged(what.to_owned())
}
