//! Planted damage, one kind for each rule, and a store that others write to meanwhile.
#![allow(clippy::unwrap_used)]

use posthouse_mail::{Domain, IngestId, MailboxId, ReversePath, SpecialUse, Uid, UnixMillis};

use super::*;
use crate::codec;
use crate::fixture::{ALICE, DOMAIN, Fixture, NOW};
use crate::message::{AppendBody, Target};
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, DoneRow, EmailRow, MailboxRow, MembershipRow, QueueMessageRow, SpoolRow};
use crate::spool::{NewSpool, SpoolMessage, SpoolRecipient};
use crate::transit::Transit;

/// Where the planted rows lie.
#[derive(Clone, Copy)]
struct Place {
    inbox: MailboxId,
    uid: Uid,
    email: posthouse_mail::EmailId,
    blob: posthouse_mail::BlobId,
    spooled: IngestId,
}

async fn furnished() -> (Fixture, Place) {
    let fixture = Fixture::new().await;
    let mut item = fixture.message(Target::Role(SpecialUse::Inbox), 3000).await;
    item.structure.thread_ids = vec!["a@x".to_owned()];
    let stored = fixture.append(&item).await.unwrap();
    let spooled = spooled(&fixture).await;
    let blob = item.body.body().blob;
    (fixture, Place { inbox: stored.mailbox, uid: stored.uid, email: stored.email, blob, spooled })
}

async fn spooled(fixture: &Fixture) -> IngestId {
    let item = fixture.message(Target::Role(SpecialUse::Inbox), 300).await;
    let AppendBody::Staged(staged) = &item.body else { unreachable!("the fixture stages") };
    let transit = Transit {
        id: item.request,
        reverse_path: ReversePath::Null,
        body_type: Default::default(),
        smtputf8: false,
        envelope_id: None,
        dsn_return: None,
        body: staged.body,
        added_headers: Vec::new(),
        received_at: NOW,
        account: None,
        client_ip: None,
        hello: String::new(),
        protocol: String::new(),
    };
    let recipient = posthouse_mail::Recipient::new(posthouse_mail::ForwardPath::Postmaster);
    let recipients = vec![SpoolRecipient { recipient, finished: false }];
    let message = SpoolMessage { transit, recipients, junk: false, report: false };
    crate::spool::insert(&fixture.store, &NewSpool { message, body: item.body.clone() }).await.unwrap();
    item.request
}

/// Changes one record behind the back of everything.
async fn damage<R: codec::Record + Clone + Sync + 'static>(fixture: &Fixture, key: keys::Key, change: fn(&mut R)) {
    let key = &key;
    fixture
        .store
        .transact(|txn| {
            Box::pin(async move {
                let mut row = codec::get::<R>(txn, key).await?.unwrap_or_default();
                change(&mut row);
                codec::put(txn, key, &row)
            })
        })
        .await
        .unwrap();
}

async fn clear(fixture: &Fixture, key: keys::Key) {
    let key = &key;
    let cleared = fixture.store.transact(|txn| {
        Box::pin(async move {
            txn.clear(key);
            Ok(())
        })
    });
    cleared.await.unwrap();
}

async fn expect(fixture: &Fixture, rule: Rule) {
    let report = run(&fixture.store, Options::default(), &mut |_| {}).await.unwrap();
    assert!(report.findings.iter().any(|finding| finding.rule == rule), "{rule:?}: {:?}", report.findings);
}

#[tokio::test]
async fn a_sound_store_is_whole() {
    let (fixture, _) = furnished().await;
    let mut steps = 0;
    let report = run(&fixture.store, Options::default(), &mut |_| steps += 1).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    assert!(steps > 1);
    let walked = report.walked;
    assert_eq!((walked.accounts, walked.mailboxes, walked.emails, walked.bodies, walked.spooled), (1, 6, 1, 2, 1));
    assert_eq!(walked.body_octets, 3300);
}

#[tokio::test]
async fn damage_to_counters_and_ids_is_found() {
    let (fixture, place) = furnished().await;
    damage::<MailboxRow>(&fixture, keys::mailbox(ALICE, place.inbox), |row| row.unseen += 1).await;
    expect(&fixture, Rule::Counters).await;
    damage::<MailboxRow>(&fixture, keys::mailbox(ALICE, place.inbox), |row| row.uid_next = 1).await;
    expect(&fixture, Rule::Ids).await;
    damage::<MailboxRow>(&fixture, keys::mailbox(ALICE, place.inbox), |row| row.highest_modseq = 1 << 40).await;
    expect(&fixture, Rule::ModSeq).await;
    damage::<AccountRow>(&fixture, keys::account(ALICE), |row| row.quota_used -= 1).await;
    expect(&fixture, Rule::Quota).await;
    damage::<AccountRow>(&fixture, keys::account(ALICE), |row| row.roles.clear()).await;
    expect(&fixture, Rule::Tree).await;
}

#[tokio::test]
async fn damage_to_messages_is_found() {
    let (fixture, place) = furnished().await;
    damage::<MembershipRow>(&fixture, keys::membership(ALICE, place.inbox, place.uid), |row| row.flags = 4).await;
    expect(&fixture, Rule::Membership).await;
    let (fixture, place) = furnished().await;
    clear(&fixture, keys::membership(ALICE, place.inbox, place.uid)).await;
    expect(&fixture, Rule::Membership).await;
    let (fixture, place) = furnished().await;
    clear(&fixture, keys::email(ALICE, place.email)).await;
    expect(&fixture, Rule::Reference).await;
    expect(&fixture, Rule::Thread).await;
    expect(&fixture, Rule::Membership).await;
    let (fixture, place) = furnished().await;
    damage::<EmailRow>(&fixture, keys::email(ALICE, place.email), |row| row.thread += 1).await;
    expect(&fixture, Rule::Thread).await;
}

#[tokio::test]
async fn damage_to_logs_and_proofs_is_found() {
    let (fixture, _) = furnished().await;
    let modseq = crate::change_log::highest(&fixture.store, ALICE).await.unwrap();
    clear(&fixture, keys::change(ALICE, modseq)).await;
    expect(&fixture, Rule::ChangeLog).await;
    damage::<DoneRow>(&fixture, keys::done(ALICE, IngestId::new(5), 0), |row| row.modseq = 1 << 40).await;
    expect(&fixture, Rule::Done).await;
}

#[tokio::test]
async fn damage_to_bodies_is_found() {
    let (fixture, place) = furnished().await;
    let owner = keys::BlobOwner::Email { account: ALICE, email: place.email };
    clear(&fixture, keys::blob_ref(&place.blob, owner)).await;
    expect(&fixture, Rule::Reference).await;
    clear(&fixture, keys::blob_state(&place.blob)).await;
    expect(&fixture, Rule::Body).await;
}

#[tokio::test]
async fn damage_to_mail_under_way_is_found() {
    let (fixture, place) = furnished().await;
    damage::<SpoolRow>(&fixture, keys::spool(place.spooled), |row| row.recipients.clear()).await;
    expect(&fixture, Rule::Spool).await;
    clear(&fixture, keys::spool(place.spooled)).await;
    expect(&fixture, Rule::Reference).await;
    expect(&fixture, Rule::Queue).await;
    let (fixture, place) = furnished().await;
    let destination = "y.test".parse::<Domain>().unwrap();
    let finish = crate::spool::Finish {
        recipients: vec![0],
        queue: vec![crate::spool::Queued {
            destination: destination.clone(),
            recipients: vec![posthouse_mail::Recipient::new(posthouse_mail::ForwardPath::Postmaster)],
            due: NOW,
            expires_at: UnixMillis(NOW.0 + 1),
        }],
        report: None,
    };
    let fence = fixture.store.fence(keys::spool_shard(place.spooled));
    crate::spool::finish(&fixture.store, fence, place.spooled, &finish, NOW).await.unwrap();
    fixture.assert_whole().await;
    damage::<QueueMessageRow>(&fixture, keys::queue_message(place.spooled), |row| row.destinations.clear()).await;
    expect(&fixture, Rule::Queue).await;
}

#[tokio::test]
async fn damage_to_addresses_is_found() {
    let (fixture, _) = furnished().await;
    damage::<AddressRow>(&fixture, keys::address(DOMAIN, "bob"), |row| row.account = Some(99)).await;
    expect(&fixture, Rule::Directory).await;
    let (fixture, _) = furnished().await;
    damage::<IdRow>(&fixture, keys::domain_name(&"z.test".parse().unwrap()), |row| row.id = 98).await;
    expect(&fixture, Rule::Directory).await;
}

/// A store with a row of every kind that a site has.
pub(crate) async fn populated() -> Fixture {
    let (fixture, place) = furnished().await;
    let store = &fixture.store;
    let writer = crate::fixture::writer(ALICE);
    fixture.fill(3).await;
    let moved = crate::message::Copy {
        request: fixture.request(),
        source: place.inbox,
        target: fixture.mailbox("Archive").await.id,
        uids: crate::fixture::uids(&[1, 2]),
    };
    crate::message::copy(store, &writer, &moved).await.unwrap();
    let expunge = crate::message::Expunge {
        request: fixture.request(),
        mailbox: place.inbox,
        uids: crate::fixture::uids(&[3]),
        which: crate::message::ExpungeWhich::All,
    };
    crate::message::expunge(store, &writer, &expunge).await.unwrap();
    fixture.create("Work/2026").await.unwrap();
    crate::lock::take(store, &writer, [7; 16], NOW).await.unwrap();
    let fence = crate::fixture::fence(keys::domain_shard(DOMAIN));
    let targets = (0..2000).map(|number| crate::fixture::address(&format!("{number:060}@y.test"))).collect();
    let alias = crate::address::Alias { address: crate::fixture::address("team@x.test"), targets };
    crate::address::set_alias(store, fence, &alias).await.unwrap();
    let key = crate::domain::DkimKey {
        selector: "s1".parse().unwrap(),
        algorithm: crate::domain::DkimAlgorithm::Ed25519,
        private_key: posthouse_mail::secret::Secret::new(vec![1, 2, 3]),
        created_at: NOW,
    };
    crate::domain::add_dkim_key(store, fence, DOMAIN, &key).await.unwrap();
    let admin = crate::account::AccountChange { admin: Some(true), ..Default::default() };
    crate::account::change(store, &writer, &admin).await.unwrap();
    let body = fixture.message(Target::Role(SpecialUse::Inbox), 200_000).await;
    fixture.append(&body).await.unwrap();
    spooled(&fixture).await;
    let queued = queued_to("z.test");
    let finish = crate::spool::Finish { recipients: vec![0], queue: vec![queued], report: None };
    let fence = store.fence(keys::spool_shard(place.spooled));
    crate::spool::finish(store, fence, place.spooled, &finish, NOW).await.unwrap();
    fixture
}

fn queued_to(destination: &str) -> crate::spool::Queued {
    crate::spool::Queued {
        destination: destination.parse().unwrap(),
        recipients: vec![posthouse_mail::Recipient::new(posthouse_mail::ForwardPath::Postmaster)],
        due: NOW,
        expires_at: UnixMillis(NOW.0 + 1),
    }
}

/// Every row as it lies.
pub(crate) async fn rows(fixture: &Fixture) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    let request = crate::RangeRequest::new(&[], crate::engine::KEYS_END).bytes(usize::MAX);
    fixture.store.snapshot().range_sealed(request).await.unwrap().rows
}

/// Writes octets past every seal; `None` clears the row.
pub(crate) async fn lay(fixture: &Fixture, key: &[u8], octets: Option<&[u8]>) {
    let laid = fixture.store.transact(|txn| {
        Box::pin(async move {
            match octets {
                Some(octets) => txn.set_sealed(key, octets),
                None => txn.clear(key),
            }
            Ok(())
        })
    });
    laid.await.unwrap();
}

async fn is_whole(fixture: &Fixture) -> bool {
    run(&fixture.store, Options { bodies: false }, &mut |_| {}).await.unwrap().is_whole()
}

#[tokio::test]
async fn every_row_that_is_lost_or_changed_is_found() {
    let fixture = populated().await;
    fixture.assert_whole().await;
    let rows = rows(&fixture).await;
    let kinds: std::collections::BTreeSet<_> =
        rows.iter().map(|(key, _)| format!("{:?}", keys::place(key).unwrap().subspace)).collect();
    assert!(kinds.len() >= 27, "{kinds:?}");
    let mut missed = Vec::new();
    for (number, (key, octets)) in rows.iter().enumerate() {
        let secret = matches!(keys::place(key).unwrap().subspace, keys::Subspace::Secret);
        let mut bent = octets.to_vec();
        let place = number % bent.len();
        bent[place] ^= 1 << (number % 8);
        for (what, laid) in [("lost", None), ("bent", Some(&bent[..]))] {
            // The names of bodies tell of a lost secret, where they are read.
            if what == "lost" && secret {
                continue;
            }
            lay(&fixture, key, laid).await;
            if is_whole(&fixture).await {
                missed.push(format!("{what} {}", keys::describe(key)));
            }
            lay(&fixture, key, Some(octets)).await;
        }
    }
    assert_eq!(missed, Vec::<String>::new());
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_row_in_another_place_is_found() {
    let fixture = populated().await;
    let rows = rows(&fixture).await;
    for pair in rows.windows(2) {
        let [(one, of_one), (two, of_two)] = pair else { unreachable!("windows of two") };
        if of_one == of_two || !keys::is_sealed(one) {
            continue;
        }
        lay(&fixture, two, Some(of_one)).await;
        assert!(!is_whole(&fixture).await, "{} under {}", keys::describe(one), keys::describe(two));
        lay(&fixture, two, Some(of_two)).await;
    }
}

#[tokio::test]
async fn an_unreadable_row_is_a_finding_and_not_the_end() {
    let (fixture, place) = furnished().await;
    let key = &keys::email(ALICE, place.email);
    let torn = fixture.store.transact(|txn| {
        Box::pin(async move {
            txn.set(key, b"\x01\x00\xff\xff");
            Ok(())
        })
    });
    torn.await.unwrap();
    expect(&fixture, Rule::Row).await;
}

#[tokio::test]
async fn what_others_write_meanwhile_is_no_damage() {
    let (fixture, _) = furnished().await;
    let deliver = async {
        for _ in 0..30 {
            fixture.fill(3).await;
            let all = fixture.messages("INBOX").await;
            let request = crate::message::Expunge {
                request: fixture.request(),
                mailbox: fixture.mailbox("INBOX").await.id,
                uids: all.iter().map(|message| message.uid).take(2).collect(),
                which: crate::message::ExpungeWhich::All,
            };
            crate::message::expunge(&fixture.store, &crate::fixture::writer(ALICE), &request).await.unwrap();
        }
    };
    let check = async {
        for _ in 0..5 {
            fixture.assert_whole().await;
        }
    };
    tokio::join!(deliver, check);
}
