//! Accounts: making, finding, changing and deleting them.
//!
//! An account is its id; its address is a row of its domain that points to it, so that a rename is a change of that row
//! alone. Making an account therefore writes under two fences: the account's and the domain's.

use posthouse_mail::secret::Secret;
use posthouse_mail::{AccountId, Address, DomainId, ModSeq, SpecialUse, UnixMillis};

use crate::address::{self, Target};
use crate::codec;
use crate::engine::RangeRequest;
use crate::error::Error;
use crate::keys::{self, KeyParts, KeyRange};
use crate::mailbox;
use crate::message;
use crate::record::{AccountRow, AddressRow, CredentialRow, EmailRow};
use crate::shard::{Fence, ShardId};
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};
use crate::writer::{AccountState, Writer, boxed};

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    /// The primary address.
    pub address: Address,
    pub domain: DomainId,
    pub created_at: UnixMillis,
    pub enabled: bool,
    pub admin: bool,
    /// Octets allowed; `None` is no limit.
    pub quota_max: Option<u64>,
    /// Octets of all its emails.
    pub quota_used: u64,
    pub email_count: u64,
    pub highest_modseq: ModSeq,
    /// Raised when a backup takes the account back in time.
    pub generation: u64,
}

impl Account {
    /// Whether so much more fits.
    pub fn has_room(&self, octets: u64) -> bool {
        self.quota_max.is_none_or(|max| self.quota_used.saturating_add(octets) <= max)
    }
}

/// An account to be made. The id is random and never used again.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub address: Address,
    /// PHC string of argon2id; `None`: no password opens it.
    pub password_hash: Option<Secret<String>>,
    pub quota_max: Option<u64>,
    pub admin: bool,
    pub disabled: bool,
}

/// What an administrator may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct AccountChange {
    pub password_hash: Option<Secret<String>>,
    /// `Some(None)`: no limit.
    pub quota_max: Option<Option<u64>>,
    pub enabled: Option<bool>,
    pub admin: Option<bool>,
}

/// Makes an account with its default mailboxes. A repeat with the same id and address changes nothing.
pub async fn create(store: &Store, writer: &Writer, domain_fence: Fence, new: &NewAccount) -> Result<Account, Error> {
    store.transact(|txn| boxed(create_in(txn, writer, domain_fence, new))).await
}

async fn create_in(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    domain_fence: Fence,
    new: &NewAccount,
) -> Result<Account, Error> {
    if let Some(row) = codec::get::<AccountRow>(txn, &keys::account(writer.account)).await? {
        let same = row.deleted_at.is_none() && row.address == new.address.to_string();
        return if same { read(writer.account, &row) } else { Err(Error::Exists) };
    }
    check_fence(txn, writer.fence).await?;
    let domain = address::domain_of(txn, &new.address.domain).await?.ok_or(Error::NotFound)?;
    let row = AddressRow { address: new.address.to_string(), account: Some(writer.account.get()), targets: Vec::new() };
    address::claim(txn, domain_fence, domain, &new.address, &row).await?;
    let row = AccountRow {
        address: new.address.to_string(),
        domain: domain.get(),
        created_at: writer.now.0,
        admin: new.admin,
        disabled: new.disabled,
        quota_max: new.quota_max.unwrap_or(0),
        next_mailbox: 1,
        next_email: 1,
        next_thread: 1,
        // Seconds, so that an account made anew under an old name does not repeat the old UidValidity.
        uid_validity: u32::try_from(writer.now.seconds()).unwrap_or(1),
        ..AccountRow::default()
    };
    let mut account = AccountState::new(writer, row);
    account.touch();
    for (role, name) in SpecialUse::DEFAULTS {
        let row = mailbox::NewRow { parent: None, name, role: Some(role) };
        mailbox::create_row(txn, &mut account, row, None)?;
        txn.set(&keys::subscription(account.id, name), &[]);
        account.touch().subscription_count += 1;
    }
    set_password(txn, writer, new.password_hash.as_ref())?;
    set_admin(txn, writer.account, new.admin);
    account.save(txn)?;
    let row = codec::expect::<AccountRow>(txn, &keys::account(writer.account), "the account").await?;
    read(writer.account, &row)
}

/// Changes what an administrator may change.
pub async fn change(store: &Store, writer: &Writer, change: &AccountChange) -> Result<Account, Error> {
    writer.run(store, |txn| boxed(change_in(txn, writer, change))).await
}

async fn change_in(txn: &mut Transaction<'_>, writer: &Writer, change: &AccountChange) -> Result<Account, Error> {
    let mut account = AccountState::open(txn, writer).await?;
    let row = account.touch();
    if let Some(quota_max) = change.quota_max {
        row.quota_max = quota_max.unwrap_or(0);
    }
    if let Some(enabled) = change.enabled {
        row.disabled = !enabled;
    }
    if let Some(admin) = change.admin {
        row.admin = admin;
        set_admin(txn, writer.account, admin);
    }
    let shown = read(writer.account, row)?;
    if change.password_hash.is_some() {
        set_password(txn, writer, change.password_hash.as_ref())?;
    }
    account.save(txn)?;
    Ok(shown)
}

fn set_password(txn: &mut Transaction<'_>, writer: &Writer, hash: Option<&Secret<String>>) -> Result<(), Error> {
    let password_hash = hash.map(|hash| hash.reveal().clone()).unwrap_or_default();
    let row = CredentialRow { password_hash, changed_at: writer.now.0 };
    codec::put(txn, &keys::credential(writer.account), &row)
}

fn set_admin(txn: &mut Transaction<'_>, account: AccountId, admin: bool) {
    if admin {
        txn.set(&keys::admin(account), &[]);
    } else {
        txn.clear(&keys::admin(account));
    }
}

/// Deletes an account: its address is free and it cannot be found at once; its mail goes with the sweep.
pub async fn delete(store: &Store, writer: &Writer, domain_fence: Fence) -> Result<(), Error> {
    writer.run(store, |txn| boxed(delete_in(txn, writer, domain_fence))).await
}

async fn delete_in(txn: &mut Transaction<'_>, writer: &Writer, domain_fence: Fence) -> Result<(), Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    if account.row.deleted_at.is_some() {
        return Ok(());
    }
    if account.row.pending_copy.is_some() {
        return Err(Error::CopyUnfinished);
    }
    let address = parse(&account.row.address)?;
    address::release(txn, domain_fence, DomainId::new(account.row.domain), &address).await?;
    txn.clear(&keys::credential(account.id));
    set_admin(txn, account.id, false);
    let now = account.now.0;
    account.touch().deleted_at = Some(now);
    account.save(txn)?;
    Ok(())
}

/// Removes a chunk of what a deleted account still holds; whether there is more to do. The account row goes last.
pub async fn sweep(store: &Store, writer: &Writer) -> Result<bool, Error> {
    store.transact(|txn| boxed(sweep_in(txn, writer))).await
}

async fn sweep_in(txn: &mut Transaction<'_>, writer: &Writer) -> Result<bool, Error> {
    let account = match AccountState::open_any(txn, writer).await {
        Err(Error::NotFound) => return Ok(false),
        account => account?,
    };
    if account.row.deleted_at.is_none() {
        return Ok(false);
    }
    let (emails, more) = codec::scan::<EmailRow>(txn, &keys::emails(account.id), message::CHUNK).await?;
    for (key, row) in emails {
        let email = posthouse_mail::EmailId::new(KeyParts::of(&key).u64().unwrap_or(0));
        let owner = keys::BlobOwner::Email { account: account.id, email };
        crate::blob::release(txn, row.body()?.blob, owner, writer.now);
        codec::remove::<EmailRow>(txn, &keys::email(account.id, email));
    }
    if !more {
        for range in keys::account_rows(account.id) {
            for range in [keys::chunks_within(&range), range] {
                txn.clear_range(&range.begin, &range.end);
            }
        }
    }
    Ok(more)
}

/// An account by its id; deleted ones are not found, disabled ones are.
pub async fn by_id(store: &Store, id: AccountId) -> Result<Option<Account>, Error> {
    by_id_in(&mut store.snapshot(), id).await
}

pub(crate) async fn by_id_in(txn: &mut Transaction<'_>, id: AccountId) -> Result<Option<Account>, Error> {
    let row = codec::get::<AccountRow>(txn, &keys::account(id)).await?;
    row.filter(|row| row.deleted_at.is_none()).map(|row| read(id, &row)).transpose()
}

/// The account that logs in under an address: its own, or an alias that stands for it alone.
pub async fn by_address(store: &Store, address: &Address) -> Result<Option<Account>, Error> {
    let mut txn = store.snapshot();
    match address::targets_of(&mut txn, address).await?.as_deref() {
        Some([Target::Account(id)]) => by_id_in(&mut txn, *id).await,
        Some([Target::Remote(target)]) => match address::targets_of(&mut txn, target).await?.as_deref() {
            Some([Target::Account(id)]) => by_id_in(&mut txn, *id).await,
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The account's password hash (a PHC string); `None`: no password opens it.
pub async fn password_hash(store: &Store, id: AccountId) -> Result<Option<Secret<String>>, Error> {
    let row = codec::get::<CredentialRow>(&mut store.snapshot(), &keys::credential(id)).await?;
    Ok(row.filter(|row| !row.password_hash.is_empty()).map(|row| Secret::new(row.password_hash)))
}

/// Accounts of a domain by their address, a page after `after`, at most `limit` of them.
pub async fn list(
    store: &Store,
    domain: DomainId,
    after: Option<&Address>,
    limit: usize,
) -> Result<Vec<Account>, Error> {
    let mut txn = store.snapshot();
    let mut range: KeyRange = keys::addresses(domain);
    if let Some(after) = after {
        range.begin = keys::after(&keys::address(domain, &address::folded(after)));
    }
    let mut accounts = Vec::new();
    loop {
        let (rows, more) = codec::scan::<AddressRow>(&mut txn, &range, 500).await?;
        for (_, row) in &rows {
            if let Some(id) = row.account {
                accounts.extend(by_id_in(&mut txn, AccountId::new(id)).await?);
            }
            if accounts.len() >= limit {
                return Ok(accounts);
            }
        }
        match rows.last() {
            Some((key, _)) if more => range.begin = keys::after(key),
            _ => return Ok(accounts),
        }
    }
}

/// Every account of a shard, deleted ones that are not yet swept included; what a sweep walks.
pub async fn in_shard(store: &Store, shard: ShardId) -> Result<Vec<AccountId>, Error> {
    let mut range = keys::accounts_in(shard);
    let mut accounts = Vec::new();
    loop {
        // A snapshot for each page: no snapshot lives long. By their keys alone: who cannot be read hides nobody else.
        let request = RangeRequest::new(&range.begin, &range.end).limit(500);
        let page = store.snapshot().range_sealed(request).await?;
        accounts.extend(page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).u64()).map(AccountId::new));
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(accounts),
        }
    }
}

/// The administrator who was there first: who reads postmaster's mail if nobody else is named.
pub(crate) async fn first_admin_in(txn: &mut Transaction<'_>) -> Result<Option<Account>, Error> {
    let admins = codec::page(txn, &keys::admins(), usize::MAX).await?;
    let mut first: Option<Account> = None;
    for (key, _) in &admins.rows {
        let id = AccountId::new(KeyParts::of(key).u64().unwrap_or(0));
        let found = by_id_in(txn, id).await?.filter(|account| account.enabled);
        first = match (first, found) {
            (Some(first), Some(found)) if found.created_at < first.created_at => Some(found),
            (first, found) => first.or(found),
        };
    }
    Ok(first)
}

pub(crate) fn read(id: AccountId, row: &AccountRow) -> Result<Account, Error> {
    Ok(Account {
        id,
        address: parse(&row.address)?,
        domain: DomainId::new(row.domain),
        created_at: UnixMillis(row.created_at),
        enabled: !row.disabled,
        admin: row.admin,
        quota_max: (row.quota_max != 0).then_some(row.quota_max),
        quota_used: row.quota_used,
        email_count: row.email_count,
        highest_modseq: message::modseq(row.modseq)?,
        generation: row.generation,
    })
}

fn parse(text: &str) -> Result<Address, Error> {
    Address::parse(text).map_err(|_| Error::Corrupt(format!("a row has the address {text:?}")))
}
