//! Domains, addresses, administrators, the gate: names lead to rows and back, counts are those of what is there.

use std::collections::BTreeSet;

use posthouse_mail::{AccountId, Address, Domain, DomainId};

use super::pen::{Edit, Pen};
use crate::address::folded;
use crate::check::rows::Entities;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, DkimKeyRow, DomainRow};

/// Every domain has its row and its name; what is made of addresses and keys comes later.
pub(super) async fn mend_domains(pen: &mut Pen<'_>, ids: &BTreeSet<DomainId>) -> Result<(), Error> {
    for (key, row) in pen.records::<IdRow>(keys::domain_names()).await? {
        let name = KeyParts::of(&key).text_after(keys::OPEN_WIDTH).and_then(|name| String::from_utf8(name).ok());
        let id = DomainId::new(row.id);
        let present = codec::get::<DomainRow>(&mut pen.store.snapshot(), &keys::domain(id)).await?;
        match (present, name) {
            (None, Some(name)) => {
                let row = DomainRow { name: name.clone(), created_at: pen.now.0, ..DomainRow::default() };
                let what = "its row is lost: made anew without a catch-all";
                pen.mend(Edit::record(&keys::domain(id), &row), format!("domain {name}"), what).await?;
            }
            (Some(row), name) if Some(&row.name) != name.as_ref() => {
                let what = format!("no longer stands for {}", row.name);
                pen.mend(Edit::Clear(key.to_vec()), format!("domain {}", name.unwrap_or_default()), what).await?;
            }
            _ => {}
        }
    }
    for id in ids {
        let row = codec::get::<DomainRow>(&mut pen.store.snapshot(), &keys::domain(*id)).await?;
        let Some(name) = row.and_then(|row| Domain::parse(&row.name).ok()) else { continue };
        let key = keys::domain_name(&name);
        if pen.store.snapshot().get(&key).await?.is_none() {
            let edit = Edit::record(&key, &IdRow { id: id.get() });
            pen.mend(edit, format!("domain {name}"), "it is found under its name again").await?;
        }
    }
    Ok(())
}

pub(super) async fn mend(pen: &mut Pen<'_>, entities: &Entities) -> Result<(), Error> {
    own_addresses(pen, &entities.accounts).await?;
    for id in &entities.domains {
        one(pen, *id).await?;
    }
    for (key, _) in pen.rows(keys::admins()).await? {
        let id = AccountId::new(KeyParts::of(&key).u64().unwrap_or(0));
        let row = codec::get::<AccountRow>(&mut pen.store.snapshot(), &keys::account(id)).await?;
        if row.is_none_or(|row| !row.admin) {
            let what = "it is no administrator and no longer listed as one";
            pen.mend(Edit::Clear(key.to_vec()), format!("account {id}"), what).await?;
        }
    }
    Ok(())
}

/// The address of each account leads to it.
async fn own_addresses(pen: &mut Pen<'_>, ids: &BTreeSet<AccountId>) -> Result<(), Error> {
    for id in ids {
        let row = codec::get::<AccountRow>(&mut pen.store.snapshot(), &keys::account(*id)).await?;
        let Some(row) = row.filter(|row| row.deleted_at.is_none()) else { continue };
        let Ok(address) = Address::parse(&row.address) else { continue };
        let key = keys::address(DomainId::new(row.domain), &folded(&address));
        if codec::get::<AddressRow>(&mut pen.store.snapshot(), &key).await?.is_none() {
            let row = AddressRow { address: row.address, account: Some(id.get()), targets: Vec::new() };
            let what = format!("{address} leads to it again");
            pen.mend(Edit::record(&key, &row), format!("account {id}"), what).await?;
        }
    }
    Ok(())
}

async fn one(pen: &mut Pen<'_>, id: DomainId) -> Result<(), Error> {
    let Some(was) = codec::get::<DomainRow>(&mut pen.store.snapshot(), &keys::domain(id)).await? else {
        for range in [keys::addresses(id), keys::dkim_keys(id)] {
            for (key, value) in pen.rows(range).await? {
                pen.lay_aside(&key, &value, "its domain is gone").await?;
            }
        }
        return Ok(());
    };
    let place = format!("domain {}", was.name);
    let mut row = was.clone();
    let mut count = 0_u64;
    for (key, address) in pen.records::<AddressRow>(keys::addresses(id)).await? {
        let account = match address.account {
            Some(account) => {
                let key = keys::account(AccountId::new(account));
                codec::get::<AccountRow>(&mut pen.store.snapshot(), &key).await?.filter(|row| row.deleted_at.is_none())
            }
            None => None,
        };
        if address.account.is_some() && account.is_none_or(|account| account.address != address.address) {
            let value = pen.store.snapshot().get(&key).await?.unwrap_or_default();
            pen.lay_aside(&key, &value, "its account is gone or has another address").await?;
        } else {
            count += 1;
        }
    }
    let keys = pen.records::<DkimKeyRow>(keys::dkim_keys(id)).await?;
    let present: BTreeSet<String> = keys.into_iter().map(|(_, key)| key.selector).collect();
    for selector in row.selectors.iter().filter(|selector| !present.contains(*selector)) {
        pen.say(&place, format!("its signing key {selector} is lost: make a new one and publish it"));
    }
    if row.selectors.iter().cloned().collect::<BTreeSet<_>>() != present {
        row.selectors = present.into_iter().collect();
    }
    if row.address_count > count {
        pen.say(&place, format!("{} aliases are lost: make them again", row.address_count - count));
    }
    row.address_count = count;
    if !row.catch_all.is_empty() && Address::parse(&row.catch_all).is_err() {
        row.catch_all.clear();
    }
    if row != was {
        pen.mend(Edit::record(&keys::domain(id), &row), place, "its row is what its addresses and keys tell").await?;
    }
    Ok(())
}
