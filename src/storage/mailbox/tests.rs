//! Mailboxes: names, trees, the special rules of INBOX, deletion and its sweep.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::account;
use crate::fixture::{ALICE, Fixture, LIMITS, NOW, writer};
use crate::message::{self, Target};
use posthouse_mail::UnixMillis;

fn rename_of(fixture: &Fixture, from: &str, to: &str) -> Rename {
    Rename { request: fixture.request(), from: from.to_owned(), to: to.to_owned(), limits: LIMITS }
}

fn delete_of(fixture: &Fixture, path: &str) -> Delete {
    Delete { request: fixture.request(), path: path.to_owned() }
}

async fn paths(fixture: &Fixture) -> Vec<String> {
    list(&fixture.store, ALICE).await.unwrap().into_iter().map(|mailbox| mailbox.path).collect()
}

#[tokio::test]
async fn an_account_begins_with_its_default_mailboxes() {
    let fixture = Fixture::new().await;
    assert_eq!(paths(&fixture).await, ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]);
    let all = list(&fixture.store, ALICE).await.unwrap();
    assert!(all.iter().all(|mailbox| mailbox.subscribed && mailbox.role.is_some() && !mailbox.has_children));
    let mut validities: Vec<u32> = all.iter().map(|mailbox| mailbox.uid_validity.get()).collect();
    validities.sort_unstable();
    validities.dedup();
    assert_eq!(validities.len(), 6);
    let junk = by_role(&fixture.store, ALICE, SpecialUse::Junk).await.unwrap().unwrap();
    assert_eq!(junk.path, "Junk");
    assert_eq!(by_path(&fixture.store, ALICE, "inBox").await.unwrap().unwrap().path, "INBOX");
}

#[tokio::test]
async fn rfc9051_6_3_4_create_makes_the_levels_above() {
    let fixture = Fixture::new().await;
    let made = fixture.create("a/b/c").await.unwrap();
    let all = list(&fixture.store, ALICE).await.unwrap();
    let children = |path: &str| all.iter().find(|mailbox| mailbox.path == path).map(|mailbox| mailbox.has_children);
    assert_eq!((children("a"), children("a/b"), children("a/b/c")), (Some(true), Some(true), Some(false)));
    assert_eq!(by_id(&fixture.store, ALICE, made.mailbox).await.unwrap().unwrap().path, "a/b/c");
    assert_eq!(fixture.create("a/b").await, Err(Error::Exists));
    assert_eq!(fixture.create("inbox").await, Err(Error::Exists));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn names_and_counts_are_bounded() {
    let fixture = Fixture::new().await;
    assert!(matches!(fixture.create("a//b").await, Err(Error::Invalid(_))));
    assert!(matches!(fixture.create(&"x".repeat(61)).await, Err(Error::Limit { .. })));
    assert!(matches!(fixture.create("1/2/3/4/5/6").await, Err(Error::Limit { .. })));
    for number in 0..44 {
        fixture.create(&format!("m{number}")).await.unwrap();
    }
    assert!(matches!(fixture.create("one more").await, Err(Error::Limit { .. })));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_repeated_create_is_the_same_one() {
    let fixture = Fixture::new().await;
    let request = Create { request: fixture.request(), path: "Work".to_owned(), role: None, limits: LIMITS };
    let made = create(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(create(&fixture.store, &writer(ALICE), &request).await.unwrap(), made);
}

#[tokio::test]
async fn a_rename_takes_everything_below_along() {
    let fixture = Fixture::new().await;
    fixture.create("a/b").await.unwrap();
    let before = fixture.mailbox("a/b").await;
    rename(&fixture.store, &writer(ALICE), &rename_of(&fixture, "a", "x/y")).await.unwrap();
    let after = fixture.mailbox("x/y/b").await;
    assert_eq!((after.id, after.uid_validity), (before.id, before.uid_validity));
    assert!(by_path(&fixture.store, ALICE, "a").await.unwrap().is_none());
    let below = rename(&fixture.store, &writer(ALICE), &rename_of(&fixture, "x", "x/z")).await;
    assert!(matches!(below, Err(Error::Invalid(_))));
    let taken = rename(&fixture.store, &writer(ALICE), &rename_of(&fixture, "x", "Sent")).await;
    assert_eq!(taken, Err(Error::Exists));
    let missing = rename(&fixture.store, &writer(ALICE), &rename_of(&fixture, "nowhere", "q")).await;
    assert_eq!(missing, Err(Error::NotFound));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn rfc9051_6_3_6_renaming_inbox_moves_its_messages() {
    let fixture = Fixture::new().await;
    fixture.create("INBOX/Work").await.unwrap();
    fixture.fill(message::CHUNK + 20).await;
    let before = fixture.mailbox("INBOX").await;
    let request = rename_of(&fixture, "INBOX", "old/mail");
    rename(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(fixture.messages("old/mail").await.len(), message::CHUNK + 20);
    let after = fixture.mailbox("INBOX").await;
    assert_eq!((after.id, after.uid_validity, after.messages), (before.id, before.uid_validity, 0));
    assert!(paths(&fixture).await.contains(&"INBOX/Work".to_owned()));
    // A repeat finds nothing left to move.
    rename(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(fixture.messages("old/mail").await.len(), message::CHUNK + 20);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_deleted_mailbox_is_gone_at_once_and_its_room_after_the_sweep() {
    let fixture = Fixture::new().await;
    fixture.create("a/b").await.unwrap();
    let target = Target::Mailbox(fixture.mailbox("a/b").await.id);
    let item = fixture.message(target, 700).await;
    fixture.append(&item).await.unwrap();
    assert_eq!(delete(&fixture.store, &writer(ALICE), &delete_of(&fixture, "a")).await, Err(Error::HasChildren));
    let inbox = delete(&fixture.store, &writer(ALICE), &delete_of(&fixture, "inbox")).await;
    assert!(matches!(inbox, Err(Error::Invalid(_))));
    let request = delete_of(&fixture, "a/b");
    let gone = delete(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(delete(&fixture.store, &writer(ALICE), &request).await.unwrap(), gone);
    assert!(by_path(&fixture.store, ALICE, "a/b").await.unwrap().is_none());
    let again = fixture.message(target, 10).await;
    assert_eq!(fixture.append(&again).await, Err(Error::NotFound));
    fixture.assert_whole().await;
    while sweep(&fixture.store, &writer(ALICE)).await.unwrap() {}
    assert_eq!(account::by_id(&fixture.store, ALICE).await.unwrap().unwrap().quota_used, 0);
    fixture.assert_whole().await;
    // RFC 9051 §2.3.1.1: the same name begins with a greater UidValidity.
    fixture.create("a/b").await.unwrap();
    let anew = fixture.mailbox("a/b").await;
    assert!(anew.uid_validity > fixture.mailbox("a").await.uid_validity);
}

#[tokio::test]
async fn rfc9051_6_3_7_subscriptions_outlive_their_mailbox() {
    let fixture = Fixture::new().await;
    fixture.create("Lists").await.unwrap();
    assert!(!fixture.mailbox("Lists").await.subscribed);
    set_subscribed(&fixture.store, &writer(ALICE), "Lists", true).await.unwrap();
    assert!(fixture.mailbox("Lists").await.subscribed);
    delete(&fixture.store, &writer(ALICE), &delete_of(&fixture, "Lists")).await.unwrap();
    assert!(subscriptions(&fixture.store, ALICE).await.unwrap().contains(&"Lists".to_owned()));
    set_subscribed(&fixture.store, &writer(ALICE), "Lists", false).await.unwrap();
    assert!(!subscriptions(&fixture.store, ALICE).await.unwrap().contains(&"Lists".to_owned()));
}

#[tokio::test]
async fn a_deleted_account_leaves_nothing() {
    let fixture = Fixture::new().await;
    fixture.fill(message::CHUNK + 5).await;
    let domain_fence = fixture.store.fence(keys::domain_shard(crate::fixture::DOMAIN));
    account::delete(&fixture.store, &writer(ALICE), domain_fence).await.unwrap();
    account::delete(&fixture.store, &writer(ALICE), domain_fence).await.unwrap();
    assert!(account::by_id(&fixture.store, ALICE).await.unwrap().is_none());
    let address = crate::fixture::address("alice@x.test");
    assert!(account::by_address(&fixture.store, &address).await.unwrap().is_none());
    fixture.assert_whole().await;
    let keep =
        crate::sweep::Keep { done: std::time::Duration::from_secs(60), changes: std::time::Duration::from_secs(60) };
    let later = crate::Writer { now: UnixMillis(NOW.0 + 1), ..writer(ALICE) };
    while crate::sweep::account_step(&fixture.store, &later, keep).await.unwrap() {}
    for range in keys::account_rows(ALICE) {
        assert!(!codec::any(&mut fixture.store.snapshot(), &range).await.unwrap());
    }
    fixture.assert_whole().await;
}
