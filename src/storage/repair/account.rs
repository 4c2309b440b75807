//! One account: what its rows tell of each other is put together, and what differs from that is written.
//!
//! The whole account is held in memory without the structures of its messages, about half a kilobyte a message.

mod mail;
mod model;
mod profile;

use std::collections::{BTreeMap, HashMap};

use posthouse_mail::{AccountId, Address, BlobId, DomainId, EmailId};

use super::Parse;
use super::pen::Pen;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::message::copy;
use crate::record::AddressRow;
use crate::store::Store;
use crate::writer::Writer;
use model::Model;

/// What the rest of the store knows of accounts.
#[derive(Default)]
pub(super) struct Known {
    addresses: HashMap<u64, (DomainId, String)>,
    /// Where an account without an address finds one.
    domain: Option<(DomainId, String)>,
    bodies: HashMap<u64, BTreeMap<u64, BlobId>>,
}

impl Known {
    pub(super) async fn load(store: &Store) -> Result<Self, Error> {
        let mut known = Self::default();
        let pen = Pen::new(store, posthouse_mail::UnixMillis(0));
        for domain in crate::domain::list(store).await? {
            known.domain.get_or_insert((domain.id, domain.name.to_string()));
            for (_, row) in pen.records::<AddressRow>(keys::addresses(domain.id)).await? {
                if let Some(account) = row.account {
                    known.addresses.insert(account, (domain.id, row.address));
                }
            }
        }
        for (key, value) in pen.rows(keys::all_blob_refs()).await? {
            let mut parts = KeyParts::of(&key);
            let (owner, blob) = (parts.owner(), parts.blob());
            if let (Some(BlobOwner::Email { account, email }), Some(blob), true) = (owner, blob, value.is_empty()) {
                known.bodies.entry(account.get()).or_default().insert(email.get(), blob);
            }
        }
        Ok(known)
    }

    fn bodies_of(&self, account: AccountId) -> BTreeMap<u64, BlobId> {
        self.bodies.get(&account.get()).cloned().unwrap_or_default()
    }

    /// The address of an account, or one that it can be found under.
    fn address_of(&self, account: AccountId) -> Option<(DomainId, Address)> {
        let (domain, text) = match self.addresses.get(&account.get()) {
            Some((domain, text)) => (*domain, text.clone()),
            None => self.domain.as_ref().map(|(id, name)| (*id, format!("recovered-{account}@{name}")))?,
        };
        Address::parse(&text).ok().map(|address| (domain, address))
    }
}

pub(super) async fn mend(pen: &mut Pen<'_>, id: AccountId, known: &Known, parse: Parse<'_>) -> Result<(), Error> {
    let row = codec::get::<crate::record::AccountRow>(&mut pen.store.snapshot(), &keys::account(id)).await?;
    if row.as_ref().is_some_and(|row| row.deleted_at.is_some()) {
        // The sweep takes what is left of it.
        return Ok(());
    }
    if row.is_some_and(|row| row.pending_copy.is_some()) {
        let fence = pen.store.fence(keys::account_shard(id));
        let writer = Writer { fence, account: id, now: pen.now };
        if let Err(error) = copy::undo(pen.store, &writer).await {
            pen.say(format!("account {id}"), format!("an unfinished copy cannot be undone and is finished: {error}"));
        }
    }
    let mut model = Model::load(pen, id).await?;
    if model.is_empty() && !known.addresses.contains_key(&id.get()) {
        return strays(pen, id).await;
    }
    model.profile(known)?;
    if model.was.is_none() {
        // A state that a client remembers of the lost row must not be taken for one of the new.
        model.row.generation = pen.now.seconds();
        // Above whatever mailboxes that are gone had: a name that comes again must not have the UidValidity it had.
        model.row.uid_validity = u32::try_from(pen.now.seconds()).unwrap_or(u32::MAX / 2);
    }
    model.mailboxes();
    model.mail(pen, &known.bodies_of(id), parse).await?;
    model.sums();
    model.finish(pen).await
}

/// Rows of an account of which nothing else is left.
async fn strays(pen: &mut Pen<'_>, id: AccountId) -> Result<(), Error> {
    for range in keys::account_rows(id) {
        for (key, value) in pen.rows(range).await? {
            pen.lay_aside(&key, &value, "its account is gone").await?;
        }
    }
    Ok(())
}

/// An id from a row.
fn email_id(id: u64) -> EmailId {
    EmailId::new(id)
}
