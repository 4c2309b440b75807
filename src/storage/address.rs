//! Addresses: which account or alias targets each one stands for, and how a forward-path is resolved.
//!
//! An address row is a row of its domain. Resolution follows aliases within bounds: at most so deep, at most so many
//! targets, and an address that was met before is not followed again, so that a cycle ends.

use std::collections::{BTreeSet, VecDeque};

use posthouse_mail::{AccountId, Address, Domain, DomainId, ForwardPath};

use crate::account;
use crate::codec;
use crate::domain::{self, Counted};
use crate::error::Error;
use crate::keys;
use crate::record::account::IdRow;
use crate::record::{AddressRow, DomainRow};
use crate::shard::Fence;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// Where mail for an address goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Account(AccountId),
    /// At another server; as a target of an alias also one of our own addresses, which resolution follows.
    Remote(Address),
}

/// What a forward-path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Targets(Vec<Target>),
    /// The domain is ours, the user is not.
    NoSuchUser,
    NotLocal,
}

/// Bounds and settings of `conf.mailbox`.
#[derive(Debug, Clone)]
pub struct ResolveSettings {
    /// Separates user and detail (RFC 5233 §1).
    pub detail_separator: char,
    pub alias_depth_max: usize,
    pub alias_targets_max: usize,
    /// Who reads postmaster's mail where no row says so; `None`: the first administrator.
    pub postmaster: Option<Address>,
}

/// An alias and its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub address: Address,
    pub targets: Vec<Address>,
}

/// Finds out where mail for a forward-path goes.
pub async fn resolve(store: &Store, path: &ForwardPath, settings: &ResolveSettings) -> Result<Resolution, Error> {
    let mut txn = store.snapshot();
    let Some(address) = path.address() else {
        // RFC 5321 §4.5.1: `Postmaster` without a domain is always taken.
        return postmaster(&mut txn, settings).await;
    };
    let Some(domain) = domain_of(&mut txn, &address.domain).await? else { return Ok(Resolution::NotLocal) };
    match look_up(&mut txn, domain, address, settings).await? {
        Some(row) => expand(&mut txn, row, settings).await,
        // RFC 5321 §4.5.1: every domain that we take mail for has a postmaster.
        None if path.is_postmaster() => postmaster(&mut txn, settings).await,
        None => Ok(Resolution::NoSuchUser),
    }
}

/// Whether an account may send as an address: mail for it comes to the account.
pub async fn is_identity(
    store: &Store,
    account: AccountId,
    address: &Address,
    settings: &ResolveSettings,
) -> Result<bool, Error> {
    let resolution = resolve(store, &ForwardPath::Address(address.clone()), settings).await?;
    Ok(matches!(resolution, Resolution::Targets(targets) if targets.contains(&Target::Account(account))))
}

async fn postmaster(txn: &mut Transaction<'_>, settings: &ResolveSettings) -> Result<Resolution, Error> {
    if let Some(address) = &settings.postmaster {
        let Some(domain) = domain_of(txn, &address.domain).await? else {
            return Ok(Resolution::Targets(vec![Target::Remote(address.clone())]));
        };
        if let Some(row) = look_up(txn, domain, address, settings).await? {
            return expand(txn, row, settings).await;
        }
    }
    let admin = account::first_admin_in(txn).await?;
    Ok(admin.map_or(Resolution::NoSuchUser, |admin| Resolution::Targets(vec![Target::Account(admin.id)])))
}

/// The row that takes mail for an address: its own, that of the user without detail, the catch-all's.
async fn look_up(
    txn: &mut Transaction<'_>,
    domain: DomainId,
    address: &Address,
    settings: &ResolveSettings,
) -> Result<Option<AddressRow>, Error> {
    if let Some(row) = codec::get::<AddressRow>(txn, &keys::address(domain, &folded(address))).await? {
        return Ok(Some(row));
    }
    let (base, detail) = address.local.split_detail(settings.detail_separator);
    if detail.is_some() {
        let base = Address { local: base, domain: address.domain.clone() };
        if let Some(row) = codec::get::<AddressRow>(txn, &keys::address(domain, &folded(&base))).await? {
            return Ok(Some(row));
        }
    }
    let of_domain = codec::get::<DomainRow>(txn, &keys::domain(domain)).await?;
    let catch_all = of_domain.map(|row| row.catch_all).filter(|text| !text.is_empty());
    let is_postmaster = address.local.as_str().eq_ignore_ascii_case("postmaster");
    Ok(catch_all.filter(|_| !is_postmaster).map(|target| AddressRow {
        address: address.to_string(),
        targets: vec![target],
        ..AddressRow::default()
    }))
}

/// Follows aliases, breadth first.
async fn expand(txn: &mut Transaction<'_>, row: AddressRow, settings: &ResolveSettings) -> Result<Resolution, Error> {
    let mut found = BTreeSet::new();
    let mut met: BTreeSet<String> = BTreeSet::new();
    let mut open = VecDeque::from([(row, 0)]);
    while let Some((row, depth)) = open.pop_front() {
        if let Some(id) = row.account {
            found.insert(Target::Account(AccountId::new(id)));
        }
        for text in &row.targets {
            let Ok(target) = Address::parse(text) else { continue };
            if !met.insert(target.key()) {
                continue;
            }
            if found.len() + open.len() >= settings.alias_targets_max {
                return Err(Error::Limit { what: "targets of an alias" });
            }
            let Some(domain) = domain_of(txn, &target.domain).await? else {
                found.insert(Target::Remote(target));
                continue;
            };
            // A local target that nobody takes is dropped: the others still get their mail.
            let Some(next) = look_up(txn, domain, &target, settings).await? else { continue };
            if depth >= settings.alias_depth_max {
                return Err(Error::Limit { what: "aliases one after another" });
            }
            open.push_back((next, depth + 1));
        }
    }
    if found.is_empty() { Ok(Resolution::NoSuchUser) } else { Ok(Resolution::Targets(found.into_iter().collect())) }
}

/// Makes an alias, or gives an existing one other targets. An address of an account cannot become an alias.
pub async fn set_alias(store: &Store, fence: Fence, alias: &Alias) -> Result<(), Error> {
    store.transact(|txn| boxed(set_alias_in(txn, fence, alias))).await
}

async fn set_alias_in(txn: &mut Transaction<'_>, fence: Fence, alias: &Alias) -> Result<(), Error> {
    let domain = domain_of(txn, &alias.address.domain).await?.ok_or(Error::NotFound)?;
    domain::own(txn, fence, domain).await?;
    if alias.targets.is_empty() {
        return Err(Error::Invalid("an alias needs a target"));
    }
    let key = keys::address(domain, &folded(&alias.address));
    let existing = codec::get::<AddressRow>(txn, &key).await?;
    if existing.as_ref().is_some_and(|row| row.account.is_some()) {
        return Err(Error::Exists);
    }
    if existing.is_none() {
        domain::count_address(txn, fence, domain, Counted::Added).await?;
    }
    let row = AddressRow {
        address: alias.address.to_string(),
        account: None,
        targets: alias.targets.iter().map(Address::to_string).collect(),
    };
    codec::put(txn, &key, &row)
}

/// Deletes an alias.
pub async fn delete_alias(store: &Store, fence: Fence, address: &Address) -> Result<(), Error> {
    store.transact(|txn| boxed(delete_alias_in(txn, fence, address))).await
}

async fn delete_alias_in(txn: &mut Transaction<'_>, fence: Fence, address: &Address) -> Result<(), Error> {
    let domain = domain_of(txn, &address.domain).await?.ok_or(Error::NotFound)?;
    domain::own(txn, fence, domain).await?;
    let key = keys::address(domain, &folded(address));
    let row = codec::get::<AddressRow>(txn, &key).await?.filter(|row| row.account.is_none());
    row.ok_or(Error::NotFound)?;
    codec::remove::<AddressRow>(txn, &key);
    domain::count_address(txn, fence, domain, Counted::Removed).await
}

/// One alias.
pub async fn alias(store: &Store, address: &Address) -> Result<Option<Alias>, Error> {
    let mut txn = store.snapshot();
    let Some(domain) = domain_of(&mut txn, &address.domain).await? else { return Ok(None) };
    let row = codec::get::<AddressRow>(&mut txn, &keys::address(domain, &folded(address))).await?;
    row.filter(|row| row.account.is_none()).map(read).transpose()
}

/// Aliases of a domain by their address, a page after `after`.
pub async fn aliases(
    store: &Store,
    domain: DomainId,
    after: Option<&Address>,
    limit: usize,
) -> Result<Vec<Alias>, Error> {
    let mut txn = store.snapshot();
    let mut range = keys::addresses(domain);
    if let Some(after) = after {
        range.begin = keys::after(&keys::address(domain, &folded(after)));
    }
    let mut aliases = Vec::new();
    loop {
        let (rows, more) = codec::scan::<AddressRow>(&mut txn, &range, 500).await?;
        let last = rows.last().map(|(key, _)| keys::after(key));
        for (_, row) in rows.into_iter().filter(|(_, row)| row.account.is_none()) {
            aliases.push(read(row)?);
            if aliases.len() >= limit {
                return Ok(aliases);
            }
        }
        match last {
            Some(next) if more => range.begin = next,
            _ => return Ok(aliases),
        }
    }
}

/// What an address row names, without following anything.
pub(crate) async fn targets_of(txn: &mut Transaction<'_>, address: &Address) -> Result<Option<Vec<Target>>, Error> {
    let Some(domain) = domain_of(txn, &address.domain).await? else { return Ok(None) };
    let row = codec::get::<AddressRow>(txn, &keys::address(domain, &folded(address))).await?;
    Ok(row.map(|row| {
        let account = row.account.map(|id| Target::Account(AccountId::new(id)));
        let targets = row.targets.iter().filter_map(|text| Address::parse(text).ok()).map(Target::Remote);
        account.into_iter().chain(targets).collect()
    }))
}

/// Writes an account's address, which must be free.
pub(crate) async fn claim(
    txn: &mut Transaction<'_>,
    fence: Fence,
    domain: DomainId,
    address: &Address,
    row: &AddressRow,
) -> Result<(), Error> {
    domain::own(txn, fence, domain).await?;
    let key = keys::address(domain, &folded(address));
    if codec::get::<AddressRow>(txn, &key).await?.is_some() {
        return Err(Error::Exists);
    }
    domain::count_address(txn, fence, domain, Counted::Added).await?;
    codec::insert(txn, &key, row)
}

/// Frees an account's address.
pub(crate) async fn release(
    txn: &mut Transaction<'_>,
    fence: Fence,
    domain: DomainId,
    address: &Address,
) -> Result<(), Error> {
    domain::own(txn, fence, domain).await?;
    let key = keys::address(domain, &folded(address));
    if txn.get(&key).await?.is_none() {
        return Ok(());
    }
    codec::remove::<AddressRow>(txn, &key);
    domain::count_address(txn, fence, domain, Counted::Removed).await
}

/// The id of a local domain.
pub(crate) async fn domain_of(txn: &mut Transaction<'_>, name: &Domain) -> Result<Option<DomainId>, Error> {
    let row = codec::get::<IdRow>(txn, &keys::domain_name(name)).await?;
    Ok(row.map(|row| DomainId::new(row.id)))
}

/// The local part as rows know it.
pub(crate) fn folded(address: &Address) -> String {
    address.local.as_str().to_lowercase()
}

fn read(row: AddressRow) -> Result<Alias, Error> {
    let parse =
        |text: &String| Address::parse(text).map_err(|_| Error::Corrupt(format!("a row has the address {text:?}")));
    Ok(Alias { address: parse(&row.address)?, targets: row.targets.iter().map(parse).collect::<Result<_, Error>>()? })
}

#[cfg(test)]
mod tests;
