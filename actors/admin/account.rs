//! Commands about accounts.

use posthouse_mail::{AccountId, Address, Domain, Secret};
use posthouse_storage::account::{self, Account, NewAccount};
use posthouse_storage::{Error, Fence, Writer, domain, keys, mailbox};

use super::{AccountChange, AccountView, AdminRequest, AdminResult, MailboxView, view, words};
use crate::clock;
use crate::node::Services;

/// Accounts shown in one answer.
const LIST_MAX: usize = 100_000;

pub(super) async fn run(services: &Services, request: AdminRequest) -> AdminResult {
    match request {
        AdminRequest::AccountCreate { address, password, quota, admin } => {
            let new = (parse(&address)?, password, quota, admin);
            view(&create(services, new).await?)
        }
        AdminRequest::AccountList { domain } => view(&list(services, domain).await?),
        AdminRequest::AccountShow { address } => view(&show(services, &find(services, &address).await?).await?),
        AdminRequest::AccountSet { address, change } => {
            let account = find(services, &address).await?;
            view(&set(services, &account, change).await?)
        }
        AdminRequest::AccountDelete { address } => {
            let account = find(services, &address).await?;
            let domain_fence = services.placement.fence(keys::domain_shard(account.domain));
            account::delete(&services.store, &writer(services, account.id), domain_fence).await.map_err(words)?;
            services.auth.forget(account.id);
            // The account is gone already; its mail goes now, or with the next sweep if this is cut short.
            services.mailboxes.tidy(account.id).await.map_err(words)?;
            view(&())
        }
        _ => Err("not a command about accounts".to_owned()),
    }
}

pub(super) fn parse(address: &str) -> Result<Address, String> {
    Address::parse(address).map_err(|error| format!("{address}: {error}"))
}

/// The right to write an account's rows now.
fn writer(services: &Services, account: AccountId) -> Writer {
    let fence: Fence = services.placement.fence(keys::account_shard(account));
    Writer { fence, account, now: clock::now() }
}

async fn find(services: &Services, address: &str) -> Result<Account, String> {
    let found = account::by_address(&services.store, &parse(address)?).await.map_err(words)?;
    found.ok_or_else(|| format!("there is no account {address}"))
}

async fn create(
    services: &Services,
    (address, password, quota, admin): (Address, String, Option<u64>, bool),
) -> Result<AccountView, String> {
    let home = domain::by_name(&services.store, &address.domain).await.map_err(words)?;
    let home = home.ok_or_else(|| format!("{} is not a domain of this site: create it first", address.domain))?;
    let hash = services.auth.hash_password(Secret::new(password)).await.map_err(words)?;
    let quota = quota.unwrap_or(services.settings.mailbox.quota_default.get());
    let new = NewAccount {
        address: address.clone(),
        password_hash: Some(hash),
        quota_max: (quota > 0).then_some(quota),
        admin,
        disabled: false,
    };
    let writer = writer(services, AccountId::new(rand::random()));
    let domain_fence = services.placement.fence(keys::domain_shard(home.id));
    match account::create(&services.store, &writer, domain_fence, &new).await {
        Ok(account) => show(services, &account).await,
        Err(Error::Exists) => Err(format!("{address} is taken by an account or an alias")),
        Err(error) => Err(words(error)),
    }
}

async fn list(services: &Services, name: Option<String>) -> Result<Vec<AccountView>, String> {
    let domains = match name {
        None => domain::list(&services.store).await.map_err(words)?,
        Some(name) => {
            let parsed = Domain::parse(&name).map_err(|error| format!("{name}: {error}"))?;
            let found = domain::by_name(&services.store, &parsed).await.map_err(words)?;
            vec![found.ok_or_else(|| format!("{name} is not a domain of this site"))?]
        }
    };
    let mut views = Vec::new();
    for domain in domains {
        let accounts = account::list(&services.store, domain.id, None, LIST_MAX).await.map_err(words)?;
        views.extend(accounts.iter().map(summary));
    }
    Ok(views)
}

async fn set(services: &Services, account: &Account, change: AccountChange) -> Result<AccountView, String> {
    let password_hash = match change.password {
        Some(password) => Some(services.auth.hash_password(Secret::new(password)).await.map_err(words)?),
        None => None,
    };
    let change = account::AccountChange {
        password_hash,
        quota_max: change.quota.map(|quota| (quota > 0).then_some(quota)),
        enabled: change.enabled,
        admin: change.admin,
    };
    let changed = account::change(&services.store, &writer(services, account.id), &change).await.map_err(words)?;
    // A login that was right before may be wrong now.
    services.auth.forget(account.id);
    show(services, &changed).await
}

fn summary(account: &Account) -> AccountView {
    AccountView {
        address: account.address.to_string(),
        id: account.id.to_string(),
        enabled: account.enabled,
        admin: account.admin,
        quota: account.quota_max.unwrap_or(0),
        used: account.quota_used,
        messages: account.email_count,
        mailboxes: Vec::new(),
    }
}

async fn show(services: &Services, account: &Account) -> Result<AccountView, String> {
    let mailboxes = mailbox::list(&services.store, account.id).await.map_err(words)?;
    let mailboxes = mailboxes
        .into_iter()
        .map(|m| MailboxView { name: m.path, messages: u64::from(m.messages), unseen: u64::from(m.unseen) })
        .collect();
    Ok(AccountView { mailboxes, ..summary(account) })
}
