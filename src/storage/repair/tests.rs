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
