//! Domains, addresses and administrators: each names the other.

use posthouse_mail::{AccountId, Address, Domain, DomainId};

use super::{Report, Rule, STEP};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, DkimKeyRow, DomainRow};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::{address, domain};

pub(super) async fn walk(store: &Store, report: &mut Report) -> Result<(), Error> {
    for (key, row) in codec::scan_all::<IdRow>(&mut store.snapshot(), &keys::domain_names()).await? {
        let name = KeyParts::of(&key).text_after(keys::OPEN_WIDTH).and_then(|text| String::from_utf8(text).ok());
        let name = name.unwrap_or_default();
        let id = DomainId::new(row.id);
        let mut txn = store.snapshot();
        let row = codec::get::<DomainRow>(&mut txn, &keys::domain(id)).await?;
        if row.is_none_or(|row| row.name != name) {
            // Gone in between, maybe: only what the name row still says counts.
            let still = Domain::parse(&name).ok();
            let still = match still {
                Some(name) => address::domain_of(&mut txn, &name).await?,
                None => Some(id),
            };
            if still == Some(id) && domain::load(&mut txn, id).await?.is_none_or(|domain| domain.name.as_str() != name)
            {
                report.add(Rule::Directory, format!("domain {name}"), "its row is gone or has another name");
            }
            continue;
        }
        codec::scan_all::<DkimKeyRow>(&mut txn, &keys::dkim_keys(id)).await?;
        addresses(store, id, report).await?;
    }
    admins(store, report).await
}

async fn addresses(store: &Store, domain: DomainId, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::addresses(domain);
    loop {
        let mut txn = store.snapshot();
        let (rows, more) = codec::scan::<AddressRow>(&mut txn, &range, STEP).await?;
        for (_, row) in &rows {
            if let Some(id) = row.account {
                of_account(&mut txn, AccountId::new(id), &row.address, report).await?;
            }
            if row.targets.iter().chain([&row.address]).any(|text| Address::parse(text).is_err()) {
                report.add(Rule::Directory, format!("address {}", row.address), "an address in its row is none");
            }
        }
        match rows.last() {
            Some((key, _)) if more => range.begin = keys::after(key),
            _ => return Ok(()),
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
