//! Domains, addresses and administrators: each names the other, and what nobody else names is counted.

use std::collections::BTreeSet;

use posthouse_mail::{AccountId, Address, Domain, DomainId};

use super::{Reads, Report, Rule, STEP, Source};
use crate::address;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, DkimKeyRow, DomainRow};
use crate::store::Store;
use crate::transaction::Transaction;

pub(super) async fn walk(store: &Store, domains: &BTreeSet<DomainId>, report: &mut Report) -> Result<(), Error> {
    let outcome = names(store, report).await;
    report.absorb("names of domains", outcome)?;
    for id in domains {
        let mut found = Report::default();
        for reads in [Reads::Chunks, Reads::OneTransaction] {
            found = Report::default();
            let outcome = domain(&mut Source::new(store, reads), *id, &mut found).await;
            found.absorb(&format!("domain {id}"), outcome)?;
            if found.is_whole() {
                break;
            }
        }
        report.merge(found);
    }
    let outcome = admins(store, report).await;
    report.absorb("administrators", outcome)
}

/// Every name stands for a domain of that name.
async fn names(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut txn = store.snapshot();
    for (key, row) in codec::scan_all::<IdRow>(&mut txn, &keys::domain_names()).await? {
        let name = KeyParts::of(&key).text_after(keys::OPEN_WIDTH).and_then(|text| String::from_utf8(text).ok());
        let domain = codec::get::<DomainRow>(&mut txn, &keys::domain(DomainId::new(row.id))).await?;
        if domain.map(|domain| domain.name) != name {
            let place = format!("domain {}", name.unwrap_or_default());
            report.add(Rule::Directory, place, "its row is gone or has another name");
        }
    }
    Ok(())
}

async fn domain(source: &mut Source, id: DomainId, report: &mut Report) -> Result<(), Error> {
    let txn = source.step();
    let Some(row) = codec::get::<DomainRow>(txn, &keys::domain(id)).await? else { return Ok(()) };
    let place = format!("domain {}", row.name);
    let named = match Domain::parse(&row.name) {
        Ok(name) => address::domain_of(txn, &name).await?,
        Err(_) => None,
    };
    if named != Some(id) {
        report.add(Rule::Directory, &place, "its name stands for another domain or none");
    }
    if !row.catch_all.is_empty() && Address::parse(&row.catch_all).is_err() {
        report.lost(Rule::Directory, &place, "its catch-all address is none");
    }
    let present: BTreeSet<String> = codec::scan_all::<DkimKeyRow>(txn, &keys::dkim_keys(id))
        .await?
        .into_iter()
        .map(|(_, key)| key.selector)
        .collect();
    let named: BTreeSet<String> = row.selectors.iter().cloned().collect();
    for selector in named.difference(&present) {
        report.lost(Rule::Directory, &place, format!("its signing key {selector} is lost"));
    }
    for selector in present.difference(&named) {
        report.add(Rule::Directory, &place, format!("it does not know of its signing key {selector}"));
    }
    let count = addresses(source, id, report).await?;
    if count != row.address_count {
        let detail = format!("{} addresses counted, {count} present", row.address_count);
        report.lost(Rule::Directory, place, detail);
    }
    Ok(())
}

/// Every address stands for an account that bears it, or for others; how many there are.
async fn addresses(source: &mut Source, domain: DomainId, report: &mut Report) -> Result<u64, Error> {
    let mut range = keys::addresses(domain);
    let mut count = 0;
    loop {
        let txn = source.step();
        let (rows, more) = codec::scan::<AddressRow>(txn, &range, STEP).await?;
        for (_, row) in &rows {
            count += 1;
            if let Some(id) = row.account {
                of_account(txn, AccountId::new(id), &row.address, report).await?;
            }
            if row.targets.iter().chain([&row.address]).any(|text| Address::parse(text).is_err()) {
                report.lost(Rule::Directory, format!("address {}", row.address), "an address in its row is none");
            }
        }
        match rows.last() {
            Some((key, _)) if more => range.begin = keys::after(key),
            _ => return Ok(count),
        }
    }
}

async fn of_account(txn: &mut Transaction<'_>, id: AccountId, address: &str, report: &mut Report) -> Result<(), Error> {
    let row = codec::get::<AccountRow>(txn, &keys::account(id)).await?;
    if row.is_none_or(|row| row.deleted_at.is_some() || row.address != address) {
        report.add(
            Rule::Directory,
            format!("address {address}"),
            format!("account {id} is gone or has another address"),
        );
    }
    Ok(())
}

async fn admins(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut txn = store.snapshot();
    let page = codec::page(&mut txn, &keys::admins(), usize::MAX).await?;
    for (key, _) in &page.rows {
        let id = AccountId::new(KeyParts::of(key).u64().unwrap_or(0));
        let row = codec::get::<AccountRow>(&mut txn, &keys::account(id)).await?;
        if row.is_none_or(|row| !row.admin) {
            report.add(Rule::Directory, format!("account {id}"), "it is listed as an administrator and is none");
        }
    }
    Ok(())
}
