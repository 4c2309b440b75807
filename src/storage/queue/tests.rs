//! Spool and queue: what finishes a recipient, what it causes, and that a repeat causes nothing.
#![allow(clippy::unwrap_used)]

use posthouse_mail::{EnhancedStatus, ForwardPath, ReversePath, SpecialUse};

use super::*;
use crate::fixture::{Fixture, NOW, address};
use crate::message::Target;
use crate::shard::Fence;
use crate::spool::{self, Finish, NewSpool, SpoolMessage, SpoolRecipient};

fn recipient(text: &str) -> Recipient {
    Recipient::new(ForwardPath::Address(address(text)))
}

fn later(minutes: u64) -> UnixMillis {
    UnixMillis(NOW.0 + minutes * 60_000)
}

fn domain_of(text: &str) -> Domain {
    text.parse().unwrap()
}

async fn spooled(fixture: &Fixture, recipients: &[&str]) -> NewSpool {
    let item = fixture.message(Target::Role(SpecialUse::Inbox), 300).await;
    let transit = Transit {
        id: item.request,
        reverse_path: ReversePath::Address(address("alice@x.test")),
        body_type: Default::default(),
        smtputf8: true,
        envelope_id: Some("e".to_owned()),
        dsn_return: Some(posthouse_mail::DsnReturn::Headers),
        body: item.body.body(),
        added_headers: b"A: b\r\n".to_vec(),
        received_at: NOW,
        account: Some(crate::fixture::ALICE),
        client_ip: "192.0.2.1".parse().ok(),
        hello: "me.test".to_owned(),
        protocol: "ESMTPSA".to_owned(),
    };
    let recipients =
        recipients.iter().map(|text| SpoolRecipient { recipient: recipient(text), finished: false }).collect();
    NewSpool { message: SpoolMessage { transit, recipients, junk: true, report: false }, body: item.body }
}

fn spool_fence(fixture: &Fixture, id: IngestId) -> Fence {
    fixture.store.fence(keys::spool_shard(id))
}

fn queue_fence(fixture: &Fixture, domain: &Domain) -> Fence {
    fixture.store.fence(keys::queue_shard(domain))
}

fn queued(destination: &str, recipients: &[&str]) -> Queued {
    Queued {
        destination: domain_of(destination),
        recipients: recipients.iter().map(|text| recipient(text)).collect(),
        due: NOW,
        expires_at: later(1000),
    }
}

fn outcome() -> LastOutcome {
    LastOutcome {
        host: Some("mx.y.test".to_owned()),
        status: EnhancedStatus::new(4, 4, 1),
        reason: "no answer".to_owned(),
        reply: None,
    }
}

#[tokio::test]
async fn a_spooled_message_is_read_back_and_goes_with_its_last_recipient() {
    let fixture = Fixture::new().await;
    let new = spooled(&fixture, &["alice@x.test", "bob@y.test", "carol@y.test"]).await;
    let id = new.message.transit.id;
    spool::insert(&fixture.store, &new).await.unwrap();
    spool::insert(&fixture.store, &new).await.unwrap();
    assert_eq!(spool::get(&fixture.store, id).await.unwrap().unwrap(), new.message);
    assert_eq!(spool::list(&fixture.store, None, 10).await.unwrap(), [id]);
    assert_eq!(counts(&fixture.store).await.unwrap().spool_messages, 1);
    let first = Finish { recipients: vec![0], ..Finish::default() };
    let fence = spool_fence(&fixture, id);
    assert!(!spool::finish(&fixture.store, fence, id, &first, NOW).await.unwrap());
    assert!(!spool::finish(&fixture.store, fence, id, &first, NOW).await.unwrap());
    let rest = Finish {
        recipients: vec![1, 2],
        queue: vec![queued("y.test", &["bob@y.test", "carol@y.test"])],
        report: Some(spooled(&fixture, &["alice@x.test"]).await),
    };
    assert!(spool::finish(&fixture.store, fence, id, &rest, NOW).await.unwrap());
    // A repeat finds nothing to do.
    assert!(spool::finish(&fixture.store, fence, id, &rest, NOW).await.unwrap());
    let waiting = counts(&fixture.store).await.unwrap();
    assert_eq!((waiting.spool_messages, waiting.queue_messages, waiting.fresh), (1, 1, 1));
    assert_eq!(waiting.oldest_queued_at, Some(NOW));
    let work = &due(&fixture.store, &domain_of("y.test"), NOW, 10).await.unwrap()[0];
    assert_eq!(work.recipients, [recipient("bob@y.test"), recipient("carol@y.test")]);
    let message = message(&fixture.store, id).await.unwrap().unwrap();
    assert_eq!(message.transit, new.message.transit);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn work_that_was_settled_is_not_settled_again() {
    let fixture = Fixture::new().await;
    let new = spooled(&fixture, &[]).await;
    let transit = &new.message.transit;
    let entries = [queued("y.test", &["bob@y.test", "carol@y.test"]), queued("z.test", &["dora@z.test"])];
    for _ in 0..2 {
        insert(&fixture.store, transit, &new.body, &entries, NOW).await.unwrap();
    }
    let places = destinations(&fixture.store).await.unwrap();
    assert_eq!(places, [(domain_of("y.test"), NOW), (domain_of("z.test"), NOW)]);
    let destination = domain_of("y.test");
    let fence = queue_fence(&fixture, &destination);
    let work = due(&fixture.store, &destination, NOW, 10).await.unwrap().remove(0);
    let first = Settlement {
        finished: vec![ForwardPath::Address(address("bob@y.test"))],
        later: Some(Later { due: later(1), outcome: outcome(), delay_reported: true }),
        reports: vec![spooled(&fixture, &["alice@x.test"]).await],
    };
    assert!(settle(&fixture.store, fence, &work.id, &first, NOW).await.unwrap());
    assert!(!settle(&fixture.store, fence, &work.id, &first, NOW).await.unwrap());
    assert_eq!(due(&fixture.store, &destination, NOW, 10).await.unwrap(), []);
    assert_eq!(next_due(&fixture.store, &destination).await.unwrap(), Some(later(1)));
    let work = due(&fixture.store, &destination, later(1), 10).await.unwrap().remove(0);
    assert_eq!((work.attempt_count, work.last_attempt_at, work.delay_reported), (1, Some(NOW), true));
    assert_eq!(
        (work.last_outcome.clone(), work.recipients.clone()),
        (Some(outcome()), vec![recipient("carol@y.test")])
    );
    let waiting = counts(&fixture.store).await.unwrap();
    assert_eq!((waiting.fresh, waiting.deferred, waiting.spool_messages), (1, 1, 1));
    fixture.assert_whole().await;
    // Its owner alone may settle it.
    let foreign = queue_fence(&fixture, &domain_of("z.test"));
    assert!(settle(&fixture.store, foreign, &work.id, &first, NOW).await.is_err());
    let last = Settlement { finished: vec![work.recipients[0].path.clone()], later: None, reports: Vec::new() };
    assert!(!settle(&fixture.store, fence, &work.id, &last, NOW).await.unwrap());
    assert_eq!(destinations(&fixture.store).await.unwrap(), [(domain_of("z.test"), NOW)]);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn an_administrator_makes_work_due_now() {
    let fixture = Fixture::new().await;
    let new = spooled(&fixture, &[]).await;
    let transit = &new.message.transit;
    insert(&fixture.store, transit, &new.body, &[queued("y.test", &["bob@y.test"])], NOW).await.unwrap();
    let work = works_of(&fixture.store, transit.id).await.unwrap().remove(0);
    let fence = queue_fence(&fixture, &work.id.destination);
    assert!(reschedule(&fixture.store, fence, &work.id, later(9), NOW).await.unwrap());
    assert!(!reschedule(&fixture.store, fence, &work.id, later(5), NOW).await.unwrap());
    assert_eq!(works_of(&fixture.store, transit.id).await.unwrap()[0].id.due, later(9));
    assert_eq!(list(&fixture.store, None, 9).await.unwrap(), [transit.id]);
    fixture.assert_whole().await;
    // The last recipient takes the message along, and its body's reference.
    let work = works_of(&fixture.store, transit.id).await.unwrap().remove(0);
    let gone = Settlement { finished: vec![work.recipients[0].path.clone()], later: None, reports: Vec::new() };
    settle(&fixture.store, fence, &work.id, &gone, NOW).await.unwrap();
    assert_eq!(message(&fixture.store, transit.id).await, Ok(None));
    assert_eq!(counts(&fixture.store).await.unwrap(), Counts::default());
    fixture.assert_whole().await;
}
