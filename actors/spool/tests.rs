//! Accepted mail and what becomes of it; apart for their length only.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use crate::queue::tests::fixture::{Host, Manner, Site, TestNames, settings};

const TEXT: &str = "From: s@us.test\r\nSubject: hi\r\n\r\nbody\r\n";

#[tokio::test]
async fn each_local_recipient_gets_the_message_once() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.accept("s@x.test", &["alice@us.test", "bob@us.test", "Alice@us.test"], TEXT).await;
    let mut accounts = [site.delivered().await, site.delivered().await];
    accounts.sort();
    assert_eq!((accounts[0].0, accounts[1].0), (1, 2));
    assert_eq!(accounts[0].1, format!("Return-Path: <s@x.test>\r\nReceived: by us.test\r\n{TEXT}"));
    site.settled().await;
}

#[tokio::test]
async fn an_alias_reaches_accounts_and_other_servers() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), TestNames::default().mx("there.test", 10, 2)).await;
    site.accept("s@x.test", &["both@us.test"], TEXT).await;
    let mut accounts = [site.delivered().await.0, site.delivered().await.0];
    accounts.sort_unstable();
    assert_eq!(accounts, [1, 2]);
    assert_eq!(host.next().await.to, ["RCPT TO:<far@there.test>"]);
    site.settled().await;
}

#[tokio::test]
async fn an_unknown_user_is_reported_to_the_sender() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.accept("alice@us.test", &["nobody@us.test", "bob@us.test"], TEXT).await;
    let mut got = [site.delivered().await, site.delivered().await];
    got.sort();
    assert!(got[0].1.contains("Final-Recipient: rfc822; nobody@us.test"), "{got:?}");
    assert_eq!(got[1].0, 2);
    site.settled().await;
}

#[tokio::test]
async fn a_mailbox_that_refuses_for_now_gets_it_later() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.mailboxes.refusals.store(3, Ordering::SeqCst);
    site.accept("s@x.test", &["alice@us.test"], TEXT).await;
    assert_eq!(site.delivered().await.0, 1);
    site.settled().await;
}

#[tokio::test]
async fn a_distributor_that_panics_is_replaced_and_the_mail_delivered() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.mailboxes.panics.store(3, Ordering::SeqCst);
    site.accept("s@x.test", &["alice@us.test"], TEXT).await;
    assert_eq!(site.delivered().await.0, 1);
    site.settled().await;
}

#[tokio::test]
async fn more_mail_than_fits_in_memory_is_found_in_the_store() {
    let mut settings = settings(9);
    settings.queue.spool_waiting_max = 4;
    settings.queue.spool_workers = 2;
    let site = Site::new(settings, TestNames::default()).await;
    for _ in 0..30 {
        site.accept("s@x.test", &["alice@us.test"], TEXT).await;
    }
    for _ in 0..30 {
        site.delivered().await;
    }
    site.settled().await;
}
