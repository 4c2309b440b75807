//! Mail under way comes back once: nothing that was answered with 250 is lost, and a delivery that stands in an account is
//! not done again.

use posthouse_mail::envelope::{BodyType, Recipient};
use posthouse_mail::{Domain, ForwardPath, IngestId, ReversePath, SpecialUse, UnixMillis};

use super::{Elsewhere, Rig, seen};
use crate::backup::bundle::{self, BundleWriter};
use crate::backup::record::{AccountEntry, DoneEntry};
use crate::backup::restore::{Wish, whole};
use crate::backup::{account, point};
use crate::fixture::{ALICE, NOW, address, fence, writer};
use crate::message::{self, Append, QuotaRule, Target};
use crate::record::DoneRow;
use crate::spool::{self, Finish, NewSpool, Queued, SpoolMessage, SpoolRecipient};
use crate::transit::Transit;
use crate::{keys, queue};

fn recipient(text: &str) -> Recipient {
    Recipient::new(ForwardPath::Address(address(text)))
}

async fn spooled(rig: &Rig) -> NewSpool {
    let item = rig.fixture.message(Target::Role(SpecialUse::Inbox), 3000).await;
    let transit = Transit {
        id: item.request,
        reverse_path: ReversePath::Null,
        body_type: BodyType::default(),
        smtputf8: false,
        envelope_id: None,
        dsn_return: None,
        body: item.body.body(),
        added_headers: b"A: b\r\n".to_vec(),
        received_at: NOW,
        account: None,
        client_ip: None,
        hello: "h".to_owned(),
        protocol: "ESMTP".to_owned(),
    };
    let recipients = ["alice@x.test", "bob@y.test", "carol@z.test"];
    let recipients = recipients.map(|text| SpoolRecipient { recipient: recipient(text), finished: false });
    let message = SpoolMessage { transit, recipients: recipients.to_vec(), junk: false, report: false };
    let new = NewSpool { message, body: item.body };
    spool::insert(&rig.fixture.store, &new).await.unwrap();
    new
}

fn delivery(new: &NewSpool) -> Append {
    Append {
        request: new.message.transit.id,
        item: 0,
        target: Target::Role(SpecialUse::Inbox),
        flags: posthouse_mail::FlagSet::new(),
        received_at: NOW,
        prefix: bytes::Bytes::new(),
        body: message::AppendBody::Held(new.message.transit.body),
        structure: posthouse_mail::structure::MessageStructure::default(),
        quota: QuotaRule::Tolerate,
    }
}

#[tokio::test]
async fn mail_under_way_comes_back_once() {
    let rig = Rig::new().await;
    let store = &rig.fixture.store;
    let new = spooled(&rig).await;
    let id = new.message.transit.id;
    // One recipient went on to the queue, one was delivered without being finished, one is open.
    let destination: Domain = "y.test".parse().unwrap();
    let due = UnixMillis(NOW.0 + 5000);
    let queued = Queued {
        destination: destination.clone(),
        recipients: vec![recipient("bob@y.test")],
        due,
        expires_at: UnixMillis(NOW.0 + 900_000),
    };
    let finish = Finish { recipients: vec![1], queue: vec![queued], report: None };
    spool::finish(store, fence(keys::spool_shard(id)), id, &finish, NOW).await.unwrap();
    let delivered = message::append(store, &writer(ALICE), &[delivery(&new)]).await.unwrap().remove(0).unwrap();
    let taken = rig.take().await;
    assert_eq!((taken.under_way, taken.messages), (1, 1));

    let elsewhere = Elsewhere::new().await;
    let restored = elsewhere.restore(&rig.target().await, None).await.unwrap();
    assert_eq!(restored.under_way, 1);
    let there = &elsewhere.store;
    let spool = spool::get(there, id).await.unwrap().unwrap();
    let finished: Vec<bool> = spool.recipients.iter().map(|entry| entry.finished).collect();
    assert_eq!(finished, [false, true, false]);
    let body = there.body_read(&spool.transit.body, 0..u64::MAX).await.unwrap();
    assert_eq!(body, store.body_read(&new.message.transit.body, 0..u64::MAX).await.unwrap());
    let works = queue::works_of(there, id).await.unwrap();
    assert_eq!(works, queue::works_of(store, id).await.unwrap());
    assert_eq!(queue::counts(there).await.unwrap(), queue::counts(store).await.unwrap());
    let again = Append { body: message::AppendBody::Held(spool.transit.body), ..delivery(&new) };
    let again = message::append(there, &writer(ALICE), &[again]).await.unwrap().remove(0).unwrap();
    assert_eq!((again.uid, again.email), (delivered.uid, delivered.email), "it was not delivered again");
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_after_the_restore() {
    let rig = Rig::new().await;
    rig.fixture.fill(1).await;
    let new = spooled(&rig).await;
    let taken = rig.take().await;
    assert_eq!((taken.under_way, taken.messages), (1, 1));
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&rig.target().await, None).await.unwrap();
    let spool = spool::get(&elsewhere.store, new.message.transit.id).await.unwrap().unwrap();
    let again = Append { body: message::AppendBody::Held(spool.transit.body), ..delivery(&new) };
    let stored = message::append(&elsewhere.store, &writer(ALICE), &[again]).await.unwrap().remove(0).unwrap();
    assert_eq!(stored.uid.get(), 2, "the proof of a delivery came back without the delivery");
}

#[tokio::test]
async fn mail_under_way_can_be_left_behind() {
    let rig = Rig::new().await;
    spooled(&rig).await;
    rig.take().await;
    let elsewhere = Elsewhere::new().await;
    let wish = Wish { without_queue: true, ..Wish::default() };
    let target = rig.target().await;
    let restored = whole(&elsewhere.store, &target, &wish, (&fence, NOW), &mut |_| {}).await.unwrap();
    assert_eq!(restored.under_way, 0);
    assert_eq!(spool::list(&elsewhere.store, None, 10).await, Ok(Vec::new()));
}

#[tokio::test]
async fn proofs_of_many_deliveries_come_back_in_several_transactions() {
    let rig = Rig::new().await;
    rig.fixture.fill(1).await;
    let id = rig.take().await.point;
    // As many as a long standstill of the spool leaves behind: more than any transaction takes.
    let target = rig.target().await;
    let mut row = point::load(&target, &id).await.unwrap();
    let mut accounts = bundle::read_all::<AccountEntry>(&target, &row.accounts).await.unwrap();
    let mut head = account::head(&target, &accounts[0]).await.unwrap();
    let proof = |number: u128| DoneEntry {
        request: IngestId::from_parts(NOW.0, number).get().to_be_bytes().to_vec(),
        item: 0,
        row: Some(DoneRow { modseq: 1, mailbox: 1, email: 1, uids: vec![1], ..DoneRow::default() }),
    };
    head.dones = (0..150_000).map(proof).collect();
    accounts[0].head = target.put_rows(prost::Message::encode_to_vec(&head)).await.unwrap().0.to_vec();
    let mut list = BundleWriter::new(&target);
    list.push(&accounts[0]).await.unwrap();
    row.accounts = list.finish().await.unwrap().names;
    point::save(&target, &id, &row).await.unwrap();
    let elsewhere = Elsewhere::new().await;
    let restored = elsewhere.restore(&target, None).await.unwrap();
    assert_eq!((restored.accounts, restored.left_out), (1, Vec::<String>::new()));
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
    for number in [0, 149_999] {
        let request = IngestId::from_parts(NOW.0, number);
        let proof = elsewhere.store.snapshot().get(&keys::done(ALICE, request, 0)).await.unwrap();
        assert!(proof.is_some(), "{number}");
    }
}
