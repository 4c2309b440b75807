//! Local domains: their settings and signing keys.

use posthouse_mail::secret::Secret;
use posthouse_mail::{Address, Domain, DomainId, UnixMillis};

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::account::IdRow;
use crate::record::{AddressRow, DkimKeyRow, DomainRow};
use crate::shard::Fence;
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};
use crate::writer::boxed;

/// One local domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDomain {
    pub id: DomainId,
    pub name: Domain,
    pub created_at: UnixMillis,
    /// Takes what no address takes.
    pub catch_all: Option<Address>,
}

/// Algorithms of RFC 8301 §3 and RFC 8463 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimAlgorithm {
    Rsa,
    Ed25519,
}

/// One signing key (RFC 6376 §3.6).
#[derive(Debug, Clone)]
pub struct DkimKey {
    /// One label or several (RFC 6376 §3.1), in lower case.
    pub selector: Domain,
    pub algorithm: DkimAlgorithm,
    /// PKCS #8 DER.
    pub private_key: Secret<Vec<u8>>,
    pub created_at: UnixMillis,
}

/// Makes a domain. The id is random and never used again; a repeat with the same id and name changes nothing.
pub async fn create(
    store: &Store,
    fence: Fence,
    id: DomainId,
    name: &Domain,
    now: UnixMillis,
) -> Result<LocalDomain, Error> {
    store.transact(|txn| boxed(create_in(txn, fence, (id, name), now))).await
}

async fn create_in(
    txn: &mut Transaction<'_>,
    fence: Fence,
    (id, name): (DomainId, &Domain),
    now: UnixMillis,
) -> Result<LocalDomain, Error> {
    if name.is_literal() {
        return Err(Error::Invalid("an address literal is no domain of ours"));
    }
    own(txn, fence, id).await?;
    if let Some(row) = codec::get::<IdRow>(txn, &keys::domain_name(name)).await? {
        let existing = load(txn, id).await?.filter(|_| row.id == id.get());
        return existing.ok_or(Error::Exists);
    }
    if codec::get::<DomainRow>(txn, &keys::domain(id)).await?.is_some() {
        return Err(Error::Exists);
    }
    let row = DomainRow { name: name.to_string(), created_at: now.0, ..DomainRow::default() };
    codec::insert(txn, &keys::domain_name(name), &IdRow { id: id.get() })?;
    codec::insert(txn, &keys::domain(id), &row)?;
    read(id, &row)
}

/// A domain by its name.
pub async fn by_name(store: &Store, name: &Domain) -> Result<Option<LocalDomain>, Error> {
    let mut txn = store.snapshot();
    match crate::address::domain_of(&mut txn, name).await? {
        Some(id) => load(&mut txn, id).await,
        None => Ok(None),
    }
}

/// A domain by its id.
pub async fn by_id(store: &Store, id: DomainId) -> Result<Option<LocalDomain>, Error> {
    load(&mut store.snapshot(), id).await
}

/// Every local domain, by name.
pub async fn list(store: &Store) -> Result<Vec<LocalDomain>, Error> {
    let mut txn = store.snapshot();
    let mut domains = Vec::new();
    for (_, row) in codec::scan_all::<IdRow>(&mut txn, &keys::domain_names()).await? {
        domains.extend(load(&mut txn, DomainId::new(row.id)).await?);
    }
    Ok(domains)
}

/// Names who takes what no address takes; `None`: nobody.
pub async fn set_catch_all(
    store: &Store,
    fence: Fence,
    id: DomainId,
    catch_all: Option<&Address>,
) -> Result<(), Error> {
    store.transact(|txn| boxed(set_catch_all_in(txn, fence, id, catch_all))).await
}

async fn set_catch_all_in(
    txn: &mut Transaction<'_>,
    fence: Fence,
    id: DomainId,
    catch_all: Option<&Address>,
) -> Result<(), Error> {
    own(txn, fence, id).await?;
    let mut row = alive(txn, id).await?;
    row.catch_all = catch_all.map(Address::to_string).unwrap_or_default();
    codec::put(txn, &keys::domain(id), &row)
}

/// Deletes a domain with its keys and aliases. One that still has accounts stays: `Exists`.
pub async fn delete(store: &Store, fence: Fence, id: DomainId) -> Result<(), Error> {
    store.transact(|txn| boxed(delete_in(txn, fence, id))).await
}

async fn delete_in(txn: &mut Transaction<'_>, fence: Fence, id: DomainId) -> Result<(), Error> {
    own(txn, fence, id).await?;
    let row = alive(txn, id).await?;
    if codec::scan_all::<AddressRow>(txn, &keys::addresses(id)).await?.iter().any(|(_, row)| row.account.is_some()) {
        return Err(Error::Exists);
    }
    let name = Domain::parse(&row.name).map_err(|_| Error::Corrupt("a domain has no name".to_owned()))?;
    txn.clear(&keys::domain_name(&name));
    codec::remove::<DomainRow>(txn, &keys::domain(id));
    let addresses = keys::addresses(id);
    for range in [keys::chunks_within(&addresses), addresses, keys::dkim_keys(id)] {
        txn.clear_range(&range.begin, &range.end);
    }
    Ok(())
}

/// Adds a signing key; one with its selector must not exist.
pub async fn add_dkim_key(store: &Store, fence: Fence, id: DomainId, key: &DkimKey) -> Result<(), Error> {
    store.transact(|txn| boxed(add_dkim_key_in(txn, fence, id, key))).await
}

async fn add_dkim_key_in(txn: &mut Transaction<'_>, fence: Fence, id: DomainId, key: &DkimKey) -> Result<(), Error> {
    own(txn, fence, id).await?;
    let mut domain = alive(txn, id).await?;
    let place = keys::dkim_key(id, key.selector.as_str());
    let row = DkimKeyRow {
        selector: key.selector.to_string(),
        algorithm: match key.algorithm {
            DkimAlgorithm::Rsa => 1,
            DkimAlgorithm::Ed25519 => 2,
        },
        private_key: key.private_key.reveal().clone(),
        created_at: key.created_at.0,
    };
    match codec::get::<DkimKeyRow>(txn, &place).await? {
        // A repeat after an unknown outcome finds its own row.
        Some(existing) if existing == row => Ok(()),
        Some(_) => Err(Error::Exists),
        None => {
            // Whoever watches the domain's row hears of its keys too.
            domain.selectors.push(row.selector.clone());
            codec::put(txn, &keys::domain(id), &domain)?;
            codec::insert(txn, &place, &row)
        }
    }
}

/// Every signing key of a domain, by selector.
pub async fn dkim_keys(store: &Store, id: DomainId) -> Result<Vec<DkimKey>, Error> {
    let rows = codec::scan_all::<DkimKeyRow>(&mut store.snapshot(), &keys::dkim_keys(id)).await?;
    rows.into_iter().map(|(_, row)| read_key(row)).collect()
}

/// Removes a signing key.
pub async fn remove_dkim_key(store: &Store, fence: Fence, id: DomainId, selector: &Domain) -> Result<(), Error> {
    store.transact(|txn| boxed(remove_dkim_key_in(txn, fence, id, selector))).await
}

async fn remove_dkim_key_in(
    txn: &mut Transaction<'_>,
    fence: Fence,
    id: DomainId,
    selector: &Domain,
) -> Result<(), Error> {
    own(txn, fence, id).await?;
    let mut domain = alive(txn, id).await?;
    domain.selectors.retain(|present| present != selector.as_str());
    codec::put(txn, &keys::domain(id), &domain)?;
    let key = keys::dkim_key(id, selector.as_str());
    codec::get::<DkimKeyRow>(txn, &key).await?.ok_or(Error::NotFound)?;
    codec::remove::<DkimKeyRow>(txn, &key);
    Ok(())
}

/// What became of an address row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Added,
    Removed,
}

/// Keeps the number of a domain's addresses, in the transaction that writes or removes one.
pub(crate) async fn count_address(
    txn: &mut Transaction<'_>,
    fence: Fence,
    id: DomainId,
    what: Counted,
) -> Result<(), Error> {
    own(txn, fence, id).await?;
    let mut row = alive(txn, id).await?;
    row.address_count = match what {
        Counted::Added => row.address_count.saturating_add(1),
        Counted::Removed => row.address_count.saturating_sub(1),
    };
    codec::put(txn, &keys::domain(id), &row)
}

/// Every write to a domain's rows is under the fence of its own shard.
pub(crate) async fn own(txn: &mut Transaction<'_>, fence: Fence, id: DomainId) -> Result<(), Error> {
    if fence.shard != keys::domain_shard(id) {
        return Err(Error::Fenced { shard: fence.shard, epoch: fence.epoch });
    }
    check_fence(txn, fence).await
}

async fn alive(txn: &mut Transaction<'_>, id: DomainId) -> Result<DomainRow, Error> {
    codec::get::<DomainRow>(txn, &keys::domain(id)).await?.ok_or(Error::NotFound)
}

pub(crate) async fn load(txn: &mut Transaction<'_>, id: DomainId) -> Result<Option<LocalDomain>, Error> {
    let row = codec::get::<DomainRow>(txn, &keys::domain(id)).await?;
    row.map(|row| read(id, &row)).transpose()
}

/// The keys of a domain are few; a page of them is enough to see whether there is one.
pub async fn has_dkim_key(store: &Store, id: DomainId) -> Result<bool, Error> {
    Ok(!codec::page(&mut store.snapshot(), &keys::dkim_keys(id), 1).await?.rows.is_empty())
}

fn read(id: DomainId, row: &DomainRow) -> Result<LocalDomain, Error> {
    let damaged = |_| Error::Corrupt(format!("domain {id} has an unreadable name"));
    let catch_all =
        if row.catch_all.is_empty() { None } else { Some(Address::parse(&row.catch_all).map_err(damaged)?) };
    Ok(LocalDomain {
        id,
        name: Domain::parse(&row.name).map_err(damaged)?,
        created_at: UnixMillis(row.created_at),
        catch_all,
    })
}

fn read_key(row: DkimKeyRow) -> Result<DkimKey, Error> {
    let algorithm = match row.algorithm {
        1 => DkimAlgorithm::Rsa,
        2 => DkimAlgorithm::Ed25519,
        _ => return Err(Error::Corrupt("a signing key has an unknown algorithm".to_owned())),
    };
    let selector =
        Domain::parse(&row.selector).map_err(|_| Error::Corrupt("a signing key has no selector".to_owned()))?;
    let private_key = Secret::new(row.private_key);
    Ok(DkimKey { selector, algorithm, private_key, created_at: UnixMillis(row.created_at) })
}
