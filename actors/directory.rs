//! Who an address belongs to, as sessions ask it: reads of rows, in words that need no further look-up.
//!
//! Nothing is kept in memory: a look-up is a few reads on cached pages, and so a change of an address or a quota holds for
//! the next command of every session on every node.

use posthouse_conf::Settings;
use posthouse_mail::{AccountId, Address, Domain, ForwardPath};
use posthouse_storage::account::{self, Account};
use posthouse_storage::address::{self, ResolveSettings};
use posthouse_storage::domain::{self, LocalDomain};
use posthouse_storage::{Error, Store};

/// What a forward-path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Local {
        targets: Vec<Target>,
    },
    /// The domain is ours, the user is not.
    NoSuchUser,
    NotLocal,
}

/// One place where mail for an address goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Account { id: AccountId, address: Address, over_quota: bool },
    Remote(Address),
}

/// The node's address book.
#[derive(Clone)]
pub struct Directory {
    store: Store,
    settings: ResolveSettings,
}

impl Directory {
    pub fn new(store: Store, settings: &Settings) -> Self {
        let settings = ResolveSettings {
            detail_separator: settings.mailbox.detail_separator,
            alias_depth_max: settings.mailbox.alias_depth_max,
            alias_targets_max: settings.mailbox.alias_targets_max,
            postmaster: Address::parse(&settings.mailbox.postmaster).ok(),
        };
        Self { store, settings }
    }

    /// Finds out where mail for a forward-path goes. A deleted account takes none.
    pub async fn resolve(&self, path: &ForwardPath) -> Result<Resolution, Error> {
        let found = match address::resolve(&self.store, path, &self.settings).await? {
            address::Resolution::NotLocal => return Ok(Resolution::NotLocal),
            address::Resolution::NoSuchUser => return Ok(Resolution::NoSuchUser),
            address::Resolution::Targets(found) => found,
        };
        let mut targets = Vec::with_capacity(found.len());
        for target in found {
            targets.extend(self.target(target).await?);
        }
        if targets.is_empty() { Ok(Resolution::NoSuchUser) } else { Ok(Resolution::Local { targets }) }
    }

    async fn target(&self, target: address::Target) -> Result<Option<Target>, Error> {
        match target {
            address::Target::Remote(address) => Ok(Some(Target::Remote(address))),
            address::Target::Account(id) => Ok(account::by_id(&self.store, id).await?.map(|account| Target::Account {
                id,
                // Without room for a single octet more.
                over_quota: !account.has_room(1),
                address: account.address,
            })),
        }
    }

    /// The account that logs in under a name; a disabled or deleted one is none.
    pub async fn account_by_login(&self, login: &str) -> Result<Option<Account>, Error> {
        let Ok(address) = Address::parse(login) else { return Ok(None) };
        Ok(account::by_address(&self.store, &address).await?.filter(|account| account.enabled))
    }

    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        account::by_id(&self.store, id).await
    }

    /// Whether an account may send as an address: its own, an alias that reaches it, either with a detail.
    pub async fn owns(&self, id: AccountId, address: &Address) -> Result<bool, Error> {
        address::is_identity(&self.store, id, address, &self.settings).await
    }

    /// A local domain by its name.
    pub async fn domain(&self, name: &Domain) -> Result<Option<LocalDomain>, Error> {
        domain::by_name(&self.store, name).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::mailbox::fixture::{ALICE, Fixture};

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_full_account_says_so() {
        let fixture = Fixture::new().await;
        let directory = Directory::new(fixture.store.clone(), &Settings::default());
        let path = ForwardPath::parse("alice+detail@x.test").unwrap();
        let target = |over_quota| Target::Account { id: ALICE, address: address("alice@x.test"), over_quota };
        let local = |over_quota| Resolution::Local { targets: vec![target(over_quota)] };
        assert_eq!(directory.resolve(&path).await, Ok(local(false)));
        fixture.set_quota(Some(100)).await;
        assert_eq!(directory.resolve(&path).await, Ok(local(false)));
        fixture.mailboxes.append(ALICE, fixture.message(100).await).await.unwrap();
        assert_eq!(directory.resolve(&path).await, Ok(local(true)));
        let unknown = ForwardPath::parse("zoe@x.test").unwrap();
        assert_eq!(directory.resolve(&unknown).await, Ok(Resolution::NoSuchUser));
        let elsewhere = ForwardPath::parse("zoe@elsewhere.test").unwrap();
        assert_eq!(directory.resolve(&elsewhere).await, Ok(Resolution::NotLocal));
    }

    #[tokio::test]
    async fn a_login_is_an_address_of_an_enabled_account() {
        let fixture = Fixture::new().await;
        let directory = Directory::new(fixture.store.clone(), &Settings::default());
        let found = |login: &'static str| {
            let directory = directory.clone();
            async move { directory.account_by_login(login).await.unwrap().map(|account| account.id) }
        };
        assert_eq!(found("Alice@X.test").await, Some(ALICE));
        assert_eq!(found("alice").await, None);
        assert_eq!(found("bob@x.test").await, None);
        assert!(directory.owns(ALICE, &address("alice+x@x.test")).await.unwrap());
        assert!(!directory.owns(ALICE, &address("bob@x.test")).await.unwrap());
        assert!(directory.domain(&Domain::parse("x.test").unwrap()).await.unwrap().is_some());
        fixture.disable().await;
        assert_eq!(found("alice@x.test").await, None);
    }
}
