//! Addresses: what each kind of row resolves to, and the bounds of following them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{ALICE, DOMAIN, Fixture, NOW, address, fence, writer};

const BOB: AccountId = AccountId::new(0xb0b);

fn settings() -> ResolveSettings {
    ResolveSettings { detail_separator: '+', alias_depth_max: 3, alias_targets_max: 5, postmaster: None }
}

fn domain_fence() -> Fence {
    fence(keys::domain_shard(DOMAIN))
}

async fn alias_to(fixture: &Fixture, from: &str, targets: &[&str]) {
    let alias = Alias { address: address(from), targets: targets.iter().map(|text| address(text)).collect() };
    set_alias(&fixture.store, domain_fence(), &alias).await.unwrap();
}

async fn check(fixture: &Fixture, path: &str, expect: Result<Resolution, Error>) {
    let path = ForwardPath::parse(path).unwrap();
    assert_eq!(resolve(&fixture.store, &path, &settings()).await, expect, "{path}");
}

fn targets(targets: &[Target]) -> Result<Resolution, Error> {
    Ok(Resolution::Targets(targets.to_vec()))
}

fn remote(text: &str) -> Target {
    Target::Remote(address(text))
}

#[tokio::test]
async fn addresses_resolve_exactly_then_by_detail_then_by_catch_all() {
    let fixture = Fixture::new().await;
    fixture.account(BOB, "bob@x.test", None).await;
    check(&fixture, "Alice@X.test", targets(&[Target::Account(ALICE)])).await;
    check(&fixture, "alice+lists@x.test", targets(&[Target::Account(ALICE)])).await;
    check(&fixture, "carol@x.test", Ok(Resolution::NoSuchUser)).await;
    check(&fixture, "alice@elsewhere.test", Ok(Resolution::NotLocal)).await;
    alias_to(&fixture, "alice+work@x.test", &["bob@x.test"]).await;
    check(&fixture, "alice+work@x.test", targets(&[Target::Account(BOB)])).await;
    domain::set_catch_all(&fixture.store, domain_fence(), DOMAIN, Some(&address("bob@x.test"))).await.unwrap();
    check(&fixture, "carol@x.test", targets(&[Target::Account(BOB)])).await;
    fixture.assert_whole().await;
}

#[tokio::test]
async fn an_alias_reaches_accounts_and_other_servers() {
    let fixture = Fixture::new().await;
    alias_to(&fixture, "team@x.test", &["alice@x.test", "dora@elsewhere.test", "gone@x.test"]).await;
    check(&fixture, "team@x.test", targets(&[Target::Account(ALICE), remote("dora@elsewhere.test")])).await;
    assert!(is_identity(&fixture.store, ALICE, &address("team@x.test"), &settings()).await.unwrap());
    assert!(!is_identity(&fixture.store, BOB, &address("team@x.test"), &settings()).await.unwrap());
    let same = Alias { address: address("alice@x.test"), targets: vec![address("a@b.test")] };
    assert_eq!(set_alias(&fixture.store, domain_fence(), &same).await, Err(Error::Exists));
}

#[tokio::test]
async fn cycles_are_cut_and_depth_and_width_are_bounded() {
    let fixture = Fixture::new().await;
    alias_to(&fixture, "a@x.test", &["b@x.test", "alice@x.test"]).await;
    alias_to(&fixture, "b@x.test", &["a@x.test"]).await;
    check(&fixture, "a@x.test", targets(&[Target::Account(ALICE)])).await;
    alias_to(&fixture, "self@x.test", &["self@x.test"]).await;
    check(&fixture, "self@x.test", Ok(Resolution::NoSuchUser)).await;
    for number in 0..6 {
        alias_to(&fixture, &format!("c{number}@x.test"), &[&format!("c{}@x.test", number + 1)]).await;
    }
    check(&fixture, "c0@x.test", Err(Error::Limit { what: "aliases one after another" })).await;
    let many: Vec<String> = (0..9).map(|number| format!("n{number}@elsewhere.test")).collect();
    alias_to(&fixture, "many@x.test", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    check(&fixture, "many@x.test", Err(Error::Limit { what: "targets of an alias" })).await;
}

#[tokio::test]
async fn rfc5321_4_5_1_postmaster_is_always_taken() {
    let fixture = Fixture::new().await;
    check(&fixture, "Postmaster", Ok(Resolution::NoSuchUser)).await;
    let change = account::AccountChange { admin: Some(true), ..Default::default() };
    account::change(&fixture.store, &writer(ALICE), &change).await.unwrap();
    check(&fixture, "Postmaster", targets(&[Target::Account(ALICE)])).await;
    check(&fixture, "postmaster@x.test", targets(&[Target::Account(ALICE)])).await;
    alias_to(&fixture, "postmaster@x.test", &["ops@elsewhere.test"]).await;
    check(&fixture, "PostMaster@x.test", targets(&[remote("ops@elsewhere.test")])).await;
    check(&fixture, "Postmaster", targets(&[Target::Account(ALICE)])).await;
    fixture.assert_whole().await;
}

#[tokio::test]
async fn aliases_are_listed_shown_and_deleted() {
    let fixture = Fixture::new().await;
    alias_to(&fixture, "one@x.test", &["alice@x.test"]).await;
    alias_to(&fixture, "two@x.test", &["alice@x.test"]).await;
    let listed = aliases(&fixture.store, DOMAIN, Some(&address("one@x.test")), 10).await.unwrap();
    assert_eq!(listed.iter().map(|alias| alias.address.clone()).collect::<Vec<_>>(), [address("two@x.test")]);
    assert!(alias(&fixture.store, &address("alice@x.test")).await.unwrap().is_none());
    delete_alias(&fixture.store, domain_fence(), &address("one@x.test")).await.unwrap();
    assert_eq!(delete_alias(&fixture.store, domain_fence(), &address("one@x.test")).await, Err(Error::NotFound));
    assert_eq!(delete_alias(&fixture.store, domain_fence(), &address("alice@x.test")).await, Err(Error::NotFound));
}

#[tokio::test]
async fn accounts_are_found_by_login_and_listed() {
    let fixture = Fixture::new().await;
    fixture.account(BOB, "Bob@x.test", Some(1000)).await;
    alias_to(&fixture, "robert@x.test", &["bob@x.test"]).await;
    for login in ["bob@x.test", "BOB@x.test", "robert@x.test"] {
        let found = account::by_address(&fixture.store, &address(login)).await.unwrap().unwrap();
        assert_eq!((found.id, found.quota_max), (BOB, Some(1000)));
    }
    let listed = account::list(&fixture.store, DOMAIN, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|account| account.id).collect::<Vec<_>>(), [ALICE, BOB]);
    let after = account::list(&fixture.store, DOMAIN, Some(&address("alice@x.test")), 10).await.unwrap();
    assert_eq!(after.len(), 1);
    // An address is taken once; the same account made twice is one.
    let new = account::NewAccount {
        address: address("bob@x.test"),
        password_hash: None,
        quota_max: None,
        admin: false,
        disabled: false,
    };
    let third = writer(AccountId::new(3));
    assert_eq!(account::create(&fixture.store, &third, domain_fence(), &new).await, Err(Error::Exists));
    let taken = domain::delete(&fixture.store, domain_fence(), DOMAIN).await;
    assert_eq!(taken, Err(Error::Exists));
}

#[tokio::test]
async fn domains_have_names_and_keys_of_their_own() {
    let fixture = Fixture::new().await;
    let other = DomainId::new(8);
    let other_fence = fence(keys::domain_shard(other));
    let name: Domain = "y.test".parse().unwrap();
    domain::create(&fixture.store, other_fence, other, &name, NOW).await.unwrap();
    domain::create(&fixture.store, other_fence, other, &name, NOW).await.unwrap();
    let again = domain::create(&fixture.store, other_fence, other, &"x.test".parse().unwrap(), NOW).await;
    assert_eq!(again, Err(Error::Exists));
    assert_eq!(domain::list(&fixture.store).await.unwrap().len(), 2);
    let key = domain::DkimKey {
        selector: "s1".parse().unwrap(),
        algorithm: domain::DkimAlgorithm::Ed25519,
        private_key: posthouse_mail::Secret::new(vec![1, 2, 3]),
        created_at: NOW,
    };
    domain::add_dkim_key(&fixture.store, other_fence, other, &key).await.unwrap();
    assert_eq!(domain::dkim_keys(&fixture.store, other).await.unwrap().len(), 1);
    assert!(domain::remove_dkim_key(&fixture.store, domain_fence(), other, &key.selector).await.is_err());
    domain::remove_dkim_key(&fixture.store, other_fence, other, &key.selector).await.unwrap();
    assert!(!domain::has_dkim_key(&fixture.store, other).await.unwrap());
    domain::delete(&fixture.store, other_fence, other).await.unwrap();
    assert_eq!(domain::by_name(&fixture.store, &name).await, Ok(None));
    fixture.assert_whole().await;
}
