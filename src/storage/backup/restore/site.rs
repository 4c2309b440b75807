//! Domains, keys, aliases and secrets come back first, mail under way last, when there is an account to deliver it to.

use posthouse_mail::{Address, BlobId, Domain, DomainId, IngestId, UnixMillis};

use super::{Fences, Restored};
use crate::address;
use crate::backup::bundle;
use crate::backup::image::OpenPoint;
use crate::backup::record::{SecretEntry, SiteEntry, SiteFact, TransitEntry};
use crate::backup::target::named;
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

/// Facts of the site, in the order in which they were taken: a domain before what is in it. Whether none of them is lost.
pub(super) async fn restore(
    store: &Store,
    point: &OpenPoint,
    fences: Fences<'_>,
    restored: &mut Restored,
) -> Result<bool, Error> {
    let mut is_whole = true;
    for name in &point.row.site {
        let Some(entries) = readable::<SiteEntry>(point, name, restored).await? else {
            is_whole = false;
            continue;
        };
        for fact in entries.into_iter().filter_map(|entry| entry.fact) {
            restored.domains += u64::from(matches!(fact, SiteFact::Domain(_)));
            if let Err(error) = put_fact(store, fences, fact, is_whole).await {
                restored.leave_out_damaged(point, "the site", error).await?;
            }
        }
    }
    Ok(is_whole)
}

async fn put_fact(store: &Store, fences: Fences<'_>, fact: SiteFact, is_whole: bool) -> Result<(), Error> {
    match fact {
        SiteFact::Domain(entry) => {
            let (id, row) = (DomainId::new(entry.id), &entry.row.unwrap_or_default());
            let fence = fences(keys::domain_shard(id));
            store.transact(|txn| boxed(put_domain(txn, fence, id, row))).await
        }
        SiteFact::DkimKey(entry) => {
            let (id, row) = (DomainId::new(entry.domain), &entry.row.unwrap_or_default());
            let fence = fences(keys::domain_shard(id));
            store.transact(|txn| boxed(put_key(txn, fence, id, row))).await
        }
        SiteFact::Alias(entry) => {
            let (id, row) = (DomainId::new(entry.domain), &entry.row.unwrap_or_default());
            let fence = fences(keys::domain_shard(id));
            if !is_whole {
                found_domain(store, fence, id, &row.address).await?;
            }
            store.transact(|txn| boxed(put_alias(txn, fence, id, row))).await
        }
        SiteFact::Secret(entry) => {
            let entry = &entry;
            store.transact(|txn| boxed(put_secret(txn, entry))).await
        }
    }
}

/// The domain of an address, of which the backup lost what it had: its name is all that accounts and aliases need.
pub(super) async fn found_domain(store: &Store, fence: Fence, id: DomainId, address: &str) -> Result<(), Error> {
    let Ok(address) = Address::parse(address) else { return Ok(()) };
    let row = &DomainRow { name: address.domain.to_string(), ..DomainRow::default() };
    store.transact(|txn| boxed(put_domain(txn, fence, id, row))).await
}

/// A domain without keys and addresses: those come one by one, and are counted.
async fn put_domain(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &DomainRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    if codec::get::<DomainRow>(txn, &keys::domain(id)).await?.is_some() {
        return Ok(());
    }
    let name = Domain::parse(&row.name).map_err(|_| damaged("a domain has no name"))?;
    let named = codec::get::<IdRow>(txn, &keys::domain_name(&name)).await?;
    if named.is_some_and(|other| other.id != id.get()) {
        return Err(damaged("two domains have one name"));
    }
    codec::put(txn, &keys::domain_name(&name), &IdRow { id: id.get() })?;
    let bare = DomainRow { selectors: Vec::new(), address_count: 0, ..row.clone() };
    codec::put(txn, &keys::domain(id), &bare)
}

async fn put_key(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &DkimKeyRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    let Some(mut domain) = codec::get::<DomainRow>(txn, &keys::domain(id)).await? else {
        return Err(Error::BackupDamaged(format!("the domain of the signing key {} is missing", row.selector)));
    };
    if !domain.selectors.contains(&row.selector) {
        domain.selectors.push(row.selector.clone());
        codec::put(txn, &keys::domain(id), &domain)?;
    }
    codec::put(txn, &keys::dkim_key(id, &row.selector), row)
}

async fn put_alias(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, row: &AddressRow) -> Result<(), Error> {
    domain::own(txn, fence, id).await?;
    let address = Address::parse(&row.address).map_err(|_| damaged("an alias has no address"))?;
    if codec::get::<DomainRow>(txn, &keys::domain(id)).await?.is_none() {
        return Err(Error::BackupDamaged(format!("the domain of the alias {} is missing", row.address)));
    }
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
        for entry in readable::<TransitEntry>(point, &name, restored).await?.unwrap_or_default() {
            match put_message(store, point, &entry).await {
                Ok(()) => restored.under_way += 1,
                Err(error) => restored.leave_out_damaged(point, "mail under way", error).await?,
            }
        }
    }
    Ok(())
}

async fn put_message(store: &Store, point: &mut OpenPoint, entry: &TransitEntry) -> Result<(), Error> {
    let id = entry.id.as_slice().try_into().map(u128::from_be_bytes).map(IngestId::new);
    let id = id.map_err(|_| damaged("a message has no id"))?;
    let spooled = entry.spool.as_ref().and_then(|row| row.message.as_ref());
    let message = spooled.or_else(|| entry.queue.as_ref().and_then(|row| row.message.as_ref()));
    let blob = blob_of(message.ok_or_else(|| damaged("a message is empty"))?)?;
    let staged = &point.stage(store, &blob).await.map_err(|error| named(&format!("the message {id}"), error))?;
    store.transact(|txn| boxed(put_transit(txn, id, entry, staged))).await
}

/// The records of an object; none, and a word about it, when it is damaged.
async fn readable<T: prost::Message + Default>(
    point: &OpenPoint,
    name: &[u8],
    restored: &mut Restored,
) -> Result<Option<Vec<T>>, Error> {
    match bundle::read(&point.target, name).await {
        Err(error) => {
            restored.leave_out_damaged(point, "domains, aliases, keys or mail under way", error).await?;
            Ok(None)
        }
        Ok(records) => Ok(Some(records)),
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
