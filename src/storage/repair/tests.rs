//! Every row of a populated store lost or made unreadable in turn: what is mended is whole, and no mail goes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use posthouse_mail::Uid;

use super::*;
use crate::check::Remedy;
use crate::check::tests::{lay, populated, rows};
use crate::fixture::{ALICE, Fixture, NOW};
use crate::keys::{self, Subspace};
use crate::{mailbox, message};

fn no_structure(_: &[u8]) -> MessageStructure {
    MessageStructure::default()
}

async fn mend(fixture: &Fixture) -> Outcome {
    run(&fixture.store, NOW, &no_structure, &mut |_| {}).await.unwrap()
}

/// How often each body stands in a mailbox.
async fn mail(fixture: &Fixture) -> BTreeMap<[u8; 32], usize> {
    let mut bodies = BTreeMap::new();
    for mailbox in mailbox::list(&fixture.store, ALICE).await.unwrap() {
        let page = message::memberships(&fixture.store, ALICE, mailbox.id, Uid::FIRST, 1000).await.unwrap();
        for membership in page.messages {
            let email = message::email(&fixture.store, ALICE, membership.email).await.unwrap().unwrap();
            message::body(&fixture.store, &email).await.unwrap();
            *bodies.entry(*email.body.blob.as_bytes()).or_default() += 1;
        }
    }
    bodies
}

/// Puts every row back as it was.
async fn restore(fixture: &Fixture, right: &[(bytes::Bytes, bytes::Bytes)]) {
    let right: BTreeMap<_, _> = right.iter().cloned().collect();
    let present: BTreeMap<_, _> = rows(fixture).await.into_iter().collect();
    for key in present.keys().filter(|key| !right.contains_key(*key)) {
        lay(fixture, key, None).await;
    }
    for (key, octets) in right.iter().filter(|(key, octets)| present.get(*key) != Some(octets)) {
        lay(fixture, key, Some(octets)).await;
    }
}

#[tokio::test]
async fn a_sound_store_is_left_alone() {
    let fixture = populated().await;
    let before = rows(&fixture).await;
    assert_eq!(mend(&fixture).await.mended, []);
    assert_eq!(rows(&fixture).await, before);
}

#[tokio::test]
async fn whatever_row_is_hurt_the_store_is_whole_after_a_repair_and_no_mail_is_lost() {
    let fixture = populated().await;
    let sound = rows(&fixture).await;
    let right = mail(&fixture).await;
    for (number, (key, octets)) in sound.iter().enumerate() {
        let subspace = keys::place(key).unwrap().subspace;
        let mut bent = octets.to_vec();
        let last = bent.len() - 1;
        bent[number % (last + 1)] ^= 0x41;
        bent[last] ^= 0x18;
        for laid in [None, Some(&bent[..])] {
            // Bodies are not made anew, and without its secret the store is another.
            if matches!(subspace, Subspace::BlobState | Subspace::Secret) {
                continue;
            }
            lay(&fixture, key, laid).await;
            let outcome = mend(&fixture).await;
            let what = format!("{} {}", if laid.is_some() { "bent" } else { "lost" }, keys::describe(key));
            assert!(outcome.report.is_whole(), "{what}: {:?}\nafter {:?}", outcome.report.findings, outcome.mended);
            assert!(!outcome.mended.is_empty(), "{what}");
            let now = mail(&fixture).await;
            let kept = right.iter().all(|(body, count)| now.get(body).is_some_and(|present| present >= count));
            assert!(kept, "{what}: mail is lost; {:?}", outcome.mended);
            restore(&fixture, &sound).await;
        }
    }
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_flipped_bit_is_turned_back() {
    let fixture = populated().await;
    let sound = rows(&fixture).await;
    for (key, octets) in sound.iter().filter(|(key, _)| keys::is_sealed(key)) {
        let mut bent = octets.to_vec();
        let place = bent.len() / 2;
        bent[place] ^= 4;
        lay(&fixture, key, Some(&bent)).await;
    }
    let outcome = mend(&fixture).await;
    assert!(outcome.report.is_whole(), "{:?}", outcome.report.findings);
    assert_eq!(rows(&fixture).await, sound);
}

#[tokio::test]
async fn what_only_a_backup_has_is_said_and_left() {
    let fixture = populated().await;
    let blob = message::email(&fixture.store, ALICE, posthouse_mail::EmailId::new(1)).await.unwrap().unwrap().body.blob;
    lay(&fixture, &keys::blob_state(&blob), None).await;
    let outcome = mend(&fixture).await;
    assert!(outcome.report.findings.iter().all(|finding| finding.remedy == Remedy::Restore));
    assert!(!outcome.report.is_whole());
}

async fn clear(store: &Store, key: &keys::Key) {
    let cleared = store.transact(|txn| {
        txn.clear(key);
        Box::pin(async { Ok(()) })
    });
    cleared.await.unwrap();
}

async fn is_mended(store: &Store) -> Outcome {
    let check = async || check::run(store, Options::default(), &mut |_| {}).await.unwrap();
    let before = check().await;
    assert!(!before.is_whole());
    let outcome = run(store, NOW, &no_structure, &mut |_| {}).await.unwrap();
    let after = check().await;
    assert!(after.is_whole(), "{:?}", after.findings);
    outcome
}

#[tokio::test]
async fn a_store_that_others_may_take_gets_its_fences_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = posthouse_conf::Storage::default();
    settings.serve.listen = vec!["127.0.0.1:1".parse().unwrap()];
    let store = Store::open(dir.path(), &settings).await.unwrap();
    assert!(check::run(&store, Options::default(), &mut |_| {}).await.unwrap().is_whole());
    let shard = crate::shard::ShardId::new(7).unwrap();
    let epoch = store.fence(shard).epoch;
    for key in [keys::fence(shard), keys::meta("owner")] {
        clear(&store, &key).await;
        is_mended(&store).await;
        let fence = crate::shard::Fence { shard, epoch };
        store.transact(|txn| Box::pin(crate::check_fence(txn, fence))).await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn frames_that_nobody_knows_are_left_to_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let settings = posthouse_conf::Storage::default();
    let engine = crate::engine::Embedded::open(dir.path(), &settings).await.unwrap();
    let engine = crate::engine::Engine::Embedded(engine);
    let store = Store::on(engine, crate::blob::place::Place::Rows, (dir.path(), &settings)).await.unwrap();
    let mut writer = store.body_writer();
    writer.write(&vec![7; 500_000]).await.unwrap();
    let noise: Vec<u8> = (0..400_000_u32).map(|number| blake3::hash(&number.to_le_bytes()).as_bytes()[0]).collect();
    writer.write(&noise).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let request = crate::RangeRequest::new(&[0x46], &[0x47]);
    let begun = store.snapshot().range(request).await.unwrap().rows;
    assert!(!begun.is_empty(), "a long body is written before it is attached");
    assert!(check::run(&store, Options::default(), &mut |_| {}).await.unwrap().is_whole());
    for (key, _) in &begun {
        let cleared = store.transact(|txn| {
            txn.clear(key);
            Box::pin(async { Ok(()) })
        });
        cleared.await.unwrap();
    }
    is_mended(&store).await;
    drop(staged);
    let later = posthouse_mail::UnixMillis(NOW.0 + 30 * 86_400_000);
    store.sweep(later).await.unwrap();
    let left = store.snapshot().range(crate::RangeRequest::new(&[0x45], &[0x47])).await.unwrap().rows;
    assert!(left.is_empty());
}

/// Messages whose row is lost, in a store whose bodies cannot be read at the moment.
#[tokio::test]
async fn what_cannot_be_read_now_is_not_taken_for_lost() {
    let mut fixture = Fixture::new().await;
    let item = fixture.message(message::Target::Role(posthouse_mail::SpecialUse::Inbox), 30_000).await;
    let stored = fixture.append(&item).await.unwrap();
    let right = mail(&fixture).await;
    drop(item);
    fixture.store.rotate_key(NOW).await.unwrap();
    lay(&fixture, &keys::email(ALICE, stored.email), None).await;
    let path = fixture.dir().join("storage.keys");
    let both = std::fs::read_to_string(&path).unwrap();
    let first = both.lines().find(|line| !line.starts_with('#')).unwrap();
    std::fs::write(&path, both.replace(&format!("{first}\n"), "")).unwrap();
    fixture.reopen().await;
    let refused = run(&fixture.store, NOW, &no_structure, &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Key(_))), "{refused:?}");
    std::fs::write(&path, both).unwrap();
    fixture.reopen().await;
    let outcome = mend(&fixture).await;
    assert!(outcome.report.is_whole(), "{:?}", outcome.report.findings);
    assert_eq!(mail(&fixture).await, right, "{:?}", outcome.mended);
    assert_eq!(fixture.messages("INBOX").await.len(), 1);
}

#[tokio::test]
async fn a_message_with_very_many_destinations_is_mended() {
    let fixture = Fixture::new().await;
    let item = fixture.message(message::Target::Role(posthouse_mail::SpecialUse::Inbox), 300).await;
    let id = fixture.request();
    let transit = crate::transit::Transit {
        id,
        reverse_path: posthouse_mail::ReversePath::Null,
        body_type: Default::default(),
        smtputf8: false,
        envelope_id: None,
        dsn_return: None,
        body: item.body.body(),
        added_headers: Vec::new(),
        received_at: NOW,
        account: None,
        client_ip: None,
        hello: String::new(),
        protocol: String::new(),
    };
    let queued = |number: u32| {
        let destination = format!("{}.{number}.test", ["a-rather-long-label-of-a-domain-name"; 4].join("."));
        let to = crate::fixture::address(&format!("bob@{destination}"));
        crate::spool::Queued {
            destination: destination.parse().unwrap(),
            recipients: vec![posthouse_mail::envelope::Recipient::new(posthouse_mail::ForwardPath::Address(to))],
            due: NOW,
            expires_at: posthouse_mail::UnixMillis(NOW.0 + 1000),
        }
    };
    let all: Vec<_> = (0..700).map(queued).collect();
    crate::queue::insert(&fixture.store, &transit, &item.body, &all, NOW).await.unwrap();
    fixture.assert_whole().await;
    lay(&fixture, &keys::queue_work(&all[3].destination, NOW, id), None).await;
    let outcome = mend(&fixture).await;
    assert!(outcome.report.is_whole(), "{:?}", outcome.report.findings);
    assert_eq!(crate::queue::works_of(&fixture.store, id).await.unwrap().len(), 699);
    let laid_aside = outcome.mended.iter().filter(|mended| mended.what.contains("laid aside")).count();
    assert_eq!(laid_aside, 0, "{:?}", outcome.mended);
}

#[tokio::test]
async fn a_mailbox_made_after_a_repair_has_a_uid_validity_of_its_own() {
    let fixture = Fixture::new().await;
    let gone = async || {
        fixture.create("Gone").await.unwrap();
        let row = fixture.mailbox("Gone").await;
        let request = mailbox::Delete { request: fixture.request(), path: "Gone".to_owned() };
        mailbox::delete(&fixture.store, &crate::fixture::writer(ALICE), &request).await.unwrap();
        while mailbox::sweep(&fixture.store, &crate::fixture::writer(ALICE)).await.unwrap() {}
        row.uid_validity
    };
    let before = gone().await;
    lay(&fixture, &keys::account(ALICE), None).await;
    let later = posthouse_mail::UnixMillis(NOW.0 + 86_400_000);
    let outcome = run(&fixture.store, later, &no_structure, &mut |_| {}).await.unwrap();
    assert!(outcome.report.is_whole());
    let after = gone().await;
    assert!(after > before, "{after} may stand for the messages of {before} in a client's memory");
}
