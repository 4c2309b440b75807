//! The mailbox actor's promises: merged, in order, never twice, and gone when idle.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use posthouse_conf::Settings;
use posthouse_conf::unit::Span;
use posthouse_mail::{Flag, Uid};
use posthouse_storage::mailbox::{Create, Delete, NameLimits};
use posthouse_storage::message::{self, Append, Appended, Copy, Expunge, ExpungeWhich, FlagChange, SetFlags};
use posthouse_storage::{Error, Writer};
use tokio::sync::Semaphore;

use super::fixture::{ALICE, Fixture};
use super::*;

/// Holds writes back, notes them, and panics when told to.
#[derive(Clone)]
struct Watched {
    inner: StoreLedger,
    gate: Arc<Semaphore>,
    /// Requests in each write, in order; other writes by name.
    writes: Arc<Mutex<Vec<String>>>,
    /// Writes that panic after their commit.
    panics: Arc<AtomicUsize>,
    /// Writes that fail as a whole when they hold more than one message.
    refuses_batches: bool,
}

impl Watched {
    fn over(inner: StoreLedger) -> Self {
        Self {
            inner,
            gate: Arc::new(Semaphore::new(0)),
            writes: Arc::default(),
            panics: Arc::default(),
            refuses_batches: false,
        }
    }

    async fn pass(&self, what: String) {
        self.writes.lock().unwrap().push(what);
        self.gate.acquire().await.unwrap().forget();
    }

    fn may_panic(&self) {
        let told = self.panics.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        assert!(told.is_err(), "told to panic after the commit");
    }

    fn seen(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }
}

impl Ledger for Watched {
    async fn append(&self, writer: &Writer, batch: &[Arc<Append>]) -> Result<Appended, Error> {
        self.pass(format!("append {}", batch.len())).await;
        if self.refuses_batches && batch.len() > 1 {
            return Err(Error::TooLarge { what: "a transaction", size: 2, max: 1 });
        }
        let appended = self.inner.append(writer, batch).await;
        self.may_panic();
        appended
    }

    async fn perform(&self, writer: &Writer, request: &Request) -> Result<Answer, Error> {
        self.pass(request.name().to_owned()).await;
        let answer = self.inner.perform(writer, request).await;
        self.may_panic();
        answer
    }
}

/// A fixture over a watched store, with the handle on what is watched.
async fn watched(settings: &Settings, change: impl FnOnce(&mut Watched)) -> (Fixture<Watched>, Watched) {
    let mut handle = None;
    let make = |inner| {
        let mut ledger = Watched::over(inner);
        change(&mut ledger);
        handle = Some(ledger.clone());
        ledger
    };
    let fixture = Fixture::with(settings, make).await;
    (fixture, handle.unwrap())
}

/// Waits until the actor has begun so many writes.
async fn begun(ledger: &Watched, count: usize) {
    while ledger.seen().len() < count {
        tokio::task::yield_now().await;
    }
}

async fn messages(fixture: &Fixture<Watched>, count: usize) -> Vec<Append> {
    let mut messages = Vec::new();
    for number in 0..count {
        messages.push(fixture.message(100 + number).await);
    }
    messages
}

#[tokio::test]
async fn deliveries_that_wait_share_a_transaction_and_keep_their_order() {
    let (fixture, ledger) = watched(&Settings::default(), |_| {}).await;
    let appends = messages(&fixture, 10).await;
    let deliver = join_all(appends.into_iter().map(|append| fixture.mailboxes.append(ALICE, append)));
    let open = async {
        begun(&ledger, 1).await;
        ledger.gate.add_permits(100);
    };
    let (stored, ()) = tokio::join!(deliver, open);
    let uids: Vec<u32> = stored.into_iter().map(|stored| stored.unwrap().uid.get()).collect();
    assert_eq!(uids, (1..=10).collect::<Vec<u32>>());
    assert_eq!(ledger.seen(), ["append 1", "append 9"]);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_batch_is_no_longer_than_merge_max() {
    let mut settings = Settings::default();
    settings.mailbox.merge_max = 4;
    let (fixture, ledger) = watched(&settings, |_| {}).await;
    let appends = messages(&fixture, 10).await;
    let deliver = join_all(appends.into_iter().map(|append| fixture.mailboxes.append(ALICE, append)));
    let open = async {
        begun(&ledger, 1).await;
        ledger.gate.add_permits(100);
    };
    tokio::join!(deliver, open);
    assert_eq!(ledger.seen(), ["append 1", "append 4", "append 4", "append 1"]);
}

#[tokio::test]
async fn a_change_between_deliveries_keeps_its_place() {
    let (fixture, ledger) = watched(&Settings::default(), |_| {}).await;
    let mut appends = messages(&fixture, 4).await.into_iter();
    let create = Create {
        request: fixture.request(),
        path: "Work".to_owned(),
        role: None,
        limits: NameLimits { mailboxes_max: 10, name_max: 10, depth_max: 2 },
    };
    let mut deliver = || {
        let delivered = fixture.mailboxes.append(ALICE, appends.next().unwrap());
        async { delivered.await.is_ok() }.boxed()
    };
    // Once the actor lives, a request is in its inbox at its first poll.
    ledger.gate.add_permits(1);
    assert!(deliver().await);
    let (one, two, three) = (deliver(), deliver(), deliver());
    let create = async { fixture.mailboxes.create(ALICE, create).await.is_ok() }.boxed();
    let open = async {
        begun(&ledger, 2).await;
        ledger.gate.add_permits(100);
    };
    let (done, ()) = tokio::join!(join_all([one, two, create, three]), open);
    assert_eq!(done, [true; 4]);
    assert_eq!(ledger.seen(), ["append 1", "append 1", "append 1", "create", "append 1"]);
}

#[tokio::test]
async fn a_message_that_cannot_be_stored_takes_no_other_with_it() {
    let (fixture, ledger) = watched(&Settings::default(), |ledger| ledger.refuses_batches = true).await;
    ledger.gate.add_permits(100);
    let appends = messages(&fixture, 4).await;
    let stored = join_all(appends.into_iter().map(|append| fixture.mailboxes.append(ALICE, append))).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    assert_eq!(fixture.inbox().await.messages, 4);
}

#[tokio::test]
async fn a_write_that_panics_is_asked_again_and_nothing_is_stored_twice() {
    let (fixture, ledger) = watched(&Settings::default(), |_| {}).await;
    ledger.panics.store(1, Ordering::Release);
    ledger.gate.add_permits(100);
    let appends = messages(&fixture, 5).await;
    let stored = join_all(appends.into_iter().map(|append| fixture.mailboxes.append(ALICE, append))).await;
    let mut uids: Vec<u32> = stored.into_iter().map(|stored| stored.unwrap().uid.get()).collect();
    uids.sort_unstable();
    assert_eq!(uids, [1, 2, 3, 4, 5]);
    let inbox = fixture.inbox().await;
    assert_eq!((inbox.messages, inbox.uid_next.get()), (5, 6));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_not_made_twice() {
    let (fixture, ledger) = watched(&Settings::default(), |_| {}).await;
    ledger.gate.add_permits(100);
    fixture.mailboxes.append(ALICE, fixture.message(10).await).await.unwrap();
    ledger.panics.store(1, Ordering::Release);
    let inbox = fixture.inbox().await.id;
    let copy = Copy { request: fixture.request(), source: inbox, target: inbox, uids: vec![Uid::FIRST] };
    let copied = fixture.mailboxes.copy(ALICE, copy).await.unwrap();
    assert_eq!(copied.uids.len(), 1);
    assert_eq!(fixture.inbox().await.messages, 2);
    assert_eq!(ledger.seen(), ["append 1", "copy", "copy"]);
}

#[tokio::test]
async fn a_full_inbox_refuses_and_does_not_wait() {
    let mut settings = Settings::default();
    settings.mailbox.inbox_max = 2;
    let (fixture, ledger) = watched(&settings, |_| {}).await;
    let appends = messages(&fixture, 3).await;
    let deliver = join_all(appends.into_iter().map(|append| fixture.mailboxes.append(ALICE, append)));
    let open = async {
        begun(&ledger, 1).await;
        ledger.gate.add_permits(100);
    };
    let (stored, ()) = tokio::join!(deliver, open);
    assert_eq!(stored.iter().filter(|stored| **stored == Err(MailboxError::Busy)).count(), 1);
    assert_eq!(MailboxError::Busy.failure(), posthouse_mail::Failure::OURS);
}

#[tokio::test]
async fn listeners_hear_of_every_commit() {
    let fixture = Fixture::new().await;
    let mut notice = fixture.mailboxes.subscribe(ALICE);
    let stored = fixture.mailboxes.append(ALICE, fixture.message(10).await).await.unwrap();
    notice.changed().await.unwrap();
    assert_eq!(*notice.borrow_and_update(), Some(stored.modseq));
    let change = SetFlags {
        request: fixture.request(),
        mailbox: stored.mailbox,
        uids: vec![stored.uid],
        change: FlagChange::Add,
        flags: [Flag::Deleted].into(),
        unchanged_since: None,
        keywords_max: 100,
    };
    let set = fixture.mailboxes.set_flags(ALICE, change).await.unwrap();
    notice.changed().await.unwrap();
    assert_eq!(*notice.borrow_and_update(), Some(set.messages[0].modseq));
    let expunge = Expunge {
        request: fixture.request(),
        mailbox: stored.mailbox,
        uids: vec![stored.uid],
        which: ExpungeWhich::Deleted,
    };
    let gone = fixture.mailboxes.expunge(ALICE, expunge).await.unwrap();
    notice.changed().await.unwrap();
    assert_eq!(*notice.borrow_and_update(), gone.modseq);
}

#[tokio::test]
async fn a_deleted_mailbox_is_swept_without_being_asked() {
    let fixture = Fixture::new().await;
    let target = message::Target::Mailbox(fixture.mailbox("Archive").await);
    for _ in 0..3 {
        let append = Append { target, ..fixture.message(100).await };
        fixture.mailboxes.append(ALICE, append).await.unwrap();
    }
    let delete = Delete { request: fixture.request(), path: "Archive".to_owned() };
    fixture.mailboxes.delete(ALICE, delete).await.unwrap();
    // Requests are carried out in order: this one comes after the sweep of the deletion.
    while posthouse_storage::quota::usage(&fixture.store, ALICE).await.unwrap().used > 0 {
        fixture.mailboxes.set_subscribed(ALICE, "Archive", false).await.unwrap();
    }
    fixture.assert_whole().await;
}

#[tokio::test]
async fn an_idle_actor_leaves_memory_and_comes_back() {
    let mut settings = Settings::default();
    settings.mailbox.passivate_after = Span::ms(5);
    let fixture = Fixture::with(&settings, |ledger| ledger).await;
    fixture.mailboxes.append(ALICE, fixture.message(10).await).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while fixture.mailboxes.active() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it leaves memory");
    let stored = fixture.mailboxes.append(ALICE, fixture.message(20).await).await.unwrap();
    assert_eq!(stored.uid.get(), 2);
}

#[tokio::test]
async fn refusals_keep_their_reason() {
    let fixture = Fixture::new().await;
    fixture.set_quota(Some(50)).await;
    let over = fixture.mailboxes.append(ALICE, fixture.message(51).await).await;
    assert_eq!(over, Err(MailboxError::OverQuota));
    let nobody = AccountId::new(99);
    let unknown = fixture.mailboxes.append(nobody, fixture.message(1).await).await;
    assert_eq!(unknown, Err(MailboxError::NoSuchMailbox));
    let until = posthouse_mail::UnixMillis(u64::MAX);
    fixture.mailboxes.lock_maildrop(ALICE, [1; 16], until).await.unwrap();
    let held = fixture.mailboxes.lock_maildrop(ALICE, [2; 16], until).await.unwrap_err();
    assert!(held.is_in_use());
    fixture.mailboxes.unlock_maildrop(ALICE, [1; 16]).await.unwrap();
    fixture.mailboxes.lock_maildrop(ALICE, [2; 16], until).await.unwrap();
}
