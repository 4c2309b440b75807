//! Messages: each operation, its repeat, and random histories against a model.
#![allow(clippy::unwrap_used)]

use posthouse_mail::{Flag, ModSeq, SpecialUse, UnixMillis};
use proptest::prelude::*;

use super::*;
use crate::fixture::{ALICE, Fixture, NOW, fence, flags, uids, writer};
use crate::writer::Writer;
use crate::{account, change_log, done, keys, mailbox};

const INBOX: Target = Target::Role(SpecialUse::Inbox);

#[test]
fn flags_are_read_back_from_their_row() {
    let set = flags(&["\\Seen", "\\Deleted", "$Forwarded"]);
    let (bits, keywords) = flag_bits::write(&set);
    assert_eq!((bits, keywords.len()), (flag_bits::SEEN | flag_bits::DELETED, 1));
    assert_eq!(flag_bits::read(bits, &keywords), set);
}

#[tokio::test]
async fn repeating_an_append_changes_nothing() {
    let fixture = Fixture::new().await;
    let item = fixture.message(INBOX, 500).await;
    let first = fixture.append(&item).await.unwrap();
    let modseq = change_log::highest(&fixture.store, ALICE).await.unwrap();
    assert_eq!(fixture.append(&item).await, Ok(first));
    assert_eq!(change_log::highest(&fixture.store, ALICE).await, Ok(modseq));
    assert_eq!(fixture.mailbox("INBOX").await.messages, 1);
    // Another recipient of the same message is another delivery.
    let other = Append { item: 1, ..item };
    assert_ne!(fixture.append(&other).await.unwrap().uid, uids(&[1])[0]);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_batch_has_ascending_uids_and_one_modseq() {
    let fixture = Fixture::new().await;
    let mut batch = Vec::new();
    for _ in 0..5 {
        batch.push(fixture.message(INBOX, 2000).await);
    }
    batch.push(batch[0].clone());
    let stored = message_results(append(&fixture.store, &writer(ALICE), &batch).await.unwrap());
    let given: Vec<u32> = stored.iter().map(|message| message.uid.get()).collect();
    assert_eq!(given, [1, 2, 3, 4, 5, 1]);
    assert!(stored.iter().all(|message| message.modseq == stored[0].modseq));
    let inbox = fixture.mailbox("INBOX").await;
    assert_eq!((inbox.uid_next.get(), inbox.messages, inbox.unseen, inbox.size), (6, 5, 5, 10_000));
    fixture.assert_whole().await;
}

fn message_results(appended: Appended) -> Vec<StoredMessage> {
    appended.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_message_over_quota_leaves_the_others_alone() {
    let fixture = Fixture::new().await;
    let change = account::AccountChange { quota_max: Some(Some(1000)), ..Default::default() };
    account::change(&fixture.store, &writer(ALICE), &change).await.unwrap();
    let batch =
        [fixture.message(INBOX, 600).await, fixture.message(INBOX, 600).await, fixture.message(INBOX, 400).await];
    let results = append(&fixture.store, &writer(ALICE), &batch).await.unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(results[1], Err(Error::OverQuota));
    // Accepted mail is stored all the same.
    let tolerated = Append { quota: QuotaRule::Tolerate, ..batch[1].clone() };
    assert!(fixture.append(&tolerated).await.is_ok());
    // COPY copies all or nothing.
    let copy = copy_of(&fixture, &[1], "Archive").await;
    assert_eq!(super::copy(&fixture.store, &writer(ALICE), &copy).await, Err(Error::OverQuota));
    assert_eq!(fixture.mailbox("Archive").await.messages, 0);
    fixture.assert_whole().await;
}

async fn copy_of(fixture: &Fixture, numbers: &[u32], target: &str) -> Copy {
    let source = fixture.mailbox("INBOX").await.id;
    let target = fixture.mailbox(target).await.id;
    Copy { request: fixture.request(), source, target, uids: uids(numbers) }
}

#[tokio::test]
async fn what_a_mailbox_is_for_falls_back_to_the_inbox() {
    let fixture = Fixture::new().await;
    let delete = mailbox::Delete { request: fixture.request(), path: "Junk".to_owned() };
    mailbox::delete(&fixture.store, &writer(ALICE), &delete).await.unwrap();
    let item = fixture.message(Target::Role(SpecialUse::Junk), 10).await;
    assert_eq!(fixture.append(&item).await.unwrap().mailbox, fixture.mailbox("INBOX").await.id);
    let nowhere = fixture.message(Target::Mailbox(MailboxId::new(999)), 10).await;
    assert_eq!(fixture.append(&nowhere).await, Err(Error::NotFound));
}

#[tokio::test]
async fn a_writer_with_a_stale_epoch_writes_nothing() {
    let fixture = Fixture::new().await;
    let item = fixture.message(INBOX, 10).await;
    let shard = keys::account_shard(ALICE);
    fixture
        .store
        .transact(|txn| {
            Box::pin(async move {
                txn.set(&keys::fence(shard), &1_u64.to_be_bytes());
                Ok(())
            })
        })
        .await
        .unwrap();
    let stale = Err(Error::Fenced { shard, epoch: crate::Epoch::FIRST });
    assert_eq!(append(&fixture.store, &writer(ALICE), std::slice::from_ref(&item)).await, stale);
    // Nor does one with the fence of another shard.
    let other = Writer { fence: fence(keys::domain_shard(crate::fixture::DOMAIN)), ..writer(ALICE) };
    assert!(append(&fixture.store, &other, &[item]).await.is_err());
    assert_eq!(fixture.mailbox("INBOX").await.messages, 0);
}

#[tokio::test]
async fn two_copies_stand_in_one_mailbox() {
    let fixture = Fixture::new().await;
    fixture.fill(1).await;
    let copy = copy_of(&fixture, &[1], "INBOX").await;
    let copied = super::copy(&fixture.store, &writer(ALICE), &copy).await.unwrap();
    assert_eq!(copied.uids, [(uids(&[1])[0], uids(&[2])[0])]);
    assert_eq!(super::copy(&fixture.store, &writer(ALICE), &copy).await.unwrap(), copied);
    let messages = fixture.messages("INBOX").await;
    assert_eq!(messages.len(), 2);
    assert_ne!(messages[0].email, messages[1].email);
    let both: Vec<Email> = emails(&fixture.store, ALICE, &[messages[0].email, messages[1].email])
        .await
        .unwrap()
        .into_iter()
        .map(Option::unwrap)
        .collect();
    assert_eq!((both[0].body, both[0].thread), (both[1].body, both[1].thread));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn move_keeps_the_email() {
    let fixture = Fixture::new().await;
    fixture.fill(3).await;
    let before = fixture.messages("INBOX").await;
    let request = copy_of(&fixture, &[1, 3, 9], "Archive").await;
    let moved = move_to(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(moved.uids.len(), 2);
    assert_eq!(move_to(&fixture.store, &writer(ALICE), &request).await.unwrap(), moved);
    let archived = fixture.messages("Archive").await;
    assert_eq!([archived[0].email, archived[1].email], [before[0].email, before[2].email]);
    assert_eq!(fixture.messages("INBOX").await, [before[1].clone()]);
    let changes = change_log::since(&fixture.store, ALICE, before[0].modseq, 10).await.unwrap().unwrap();
    let inbox = changes.changes.iter().find(|change| change.mailbox == request.source).unwrap();
    assert_eq!(inbox.expunged, uids(&[1, 3]));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_move_within_a_mailbox_gives_new_uids() {
    let fixture = Fixture::new().await;
    fixture.fill(2).await;
    let request = copy_of(&fixture, &[1], "INBOX").await;
    move_to(&fixture.store, &writer(ALICE), &request).await.unwrap();
    let there: Vec<u32> = fixture.messages("INBOX").await.iter().map(|message| message.uid.get()).collect();
    assert_eq!(there, [2, 3]);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_large_copy_appears_at_once_and_one_cut_short_leaves_nothing() {
    let fixture = Fixture::new().await;
    fixture.fill(2 * CHUNK + 10).await;
    let all: Vec<u32> = (1..=2 * CHUNK as u32 + 10).collect();
    let request = copy_of(&fixture, &all, "Archive").await;
    // The first chunk only, as if the process had died then.
    copy::stage_for_test(&fixture.store, &writer(ALICE), &request, CHUNK).await.unwrap();
    assert_eq!(fixture.mailbox("Archive").await.messages, 0);
    assert_eq!(fixture.messages("Archive").await, []);
    fixture.assert_whole().await;
    // The next writer undoes it.
    let item = fixture.message(Target::Role(SpecialUse::Archive), 10).await;
    assert_eq!(fixture.append(&item).await.unwrap().uid, uids(&[1])[0]);
    fixture.assert_whole().await;
    let copied = super::copy(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(copied.uids.len(), all.len());
    assert_eq!(super::copy(&fixture.store, &writer(ALICE), &request).await.unwrap(), copied);
    assert_eq!(fixture.messages("Archive").await.len(), all.len() + 1);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_large_copy_over_quota_leaves_nothing() {
    let fixture = Fixture::new().await;
    fixture.fill(CHUNK + 50).await;
    let used = 100 * (CHUNK as u64 + 50);
    let change = account::AccountChange { quota_max: Some(Some(2 * used - 100)), ..Default::default() };
    account::change(&fixture.store, &writer(ALICE), &change).await.unwrap();
    let all: Vec<u32> = (1..=CHUNK as u32 + 50).collect();
    let request = copy_of(&fixture, &all, "Archive").await;
    assert_eq!(super::copy(&fixture.store, &writer(ALICE), &request).await, Err(Error::OverQuota));
    assert_eq!(account::by_id(&fixture.store, ALICE).await.unwrap().unwrap().quota_used, used);
    fixture.assert_whole().await;
}

/// Messages whose structures are so large that a few of them fill a transaction.
async fn fill_with_giants(fixture: &Fixture, count: usize) {
    let mut giant = fixture.message(INBOX, 100).await;
    giant.structure.base_subject = "x".repeat(2_500_000);
    for _ in 0..count {
        fixture.append(&Append { request: fixture.request(), ..giant.clone() }).await.unwrap();
    }
}

#[tokio::test]
async fn giant_structures_are_written_one_by_one() {
    let fixture = Fixture::new().await;
    fill_with_giants(&fixture, 5).await;
    let inbox = fixture.mailbox("INBOX").await.id;
    let all = [1, 2, 3, 4, 5];
    let seen = store_flags(&fixture, inbox, &all, FlagChange::Add, &["\\Seen"]);
    for _ in 0..2 {
        let done = set_flags(&fixture.store, &writer(ALICE), &seen).await.unwrap();
        assert!(done.messages.len() == 5 && done.messages.iter().all(|message| message.flags.contains(&Flag::Seen)));
    }
    let request = copy_of(&fixture, &all, "Archive").await;
    let copied = super::copy(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(super::copy(&fixture.store, &writer(ALICE), &request).await.unwrap(), copied);
    let request = copy_of(&fixture, &all, "Sent").await;
    let moved = move_to(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(move_to(&fixture.store, &writer(ALICE), &request).await.unwrap(), moved);
    for (path, count) in [("INBOX", 0), ("Archive", 5), ("Sent", 5)] {
        assert_eq!(fixture.messages(path).await.len(), count, "{path}");
    }
    fixture.assert_whole().await;
}

fn store_flags(fixture: &Fixture, mailbox: MailboxId, numbers: &[u32], change: FlagChange, texts: &[&str]) -> SetFlags {
    SetFlags {
        request: fixture.request(),
        mailbox,
        uids: uids(numbers),
        change,
        flags: flags(texts),
        unchanged_since: None,
        keywords_max: 100,
    }
}

#[tokio::test]
async fn flags_belong_to_the_email_but_deleted_to_the_membership() {
    let fixture = Fixture::new().await;
    fixture.fill(2).await;
    let inbox = fixture.mailbox("INBOX").await.id;
    let request = store_flags(&fixture, inbox, &[1, 7], FlagChange::Add, &["\\Seen", "\\Deleted", "$Work"]);
    let done = set_flags(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(done.messages.len(), 1);
    assert_eq!(done.messages[0].flags, flags(&["\\Seen", "\\Deleted", "$work"]));
    let first = fixture.messages("INBOX").await.remove(0);
    let of_email = email(&fixture.store, ALICE, first.email).await.unwrap().unwrap();
    assert_eq!(of_email.flags, flags(&["\\Seen", "$Work"]));
    let counted = fixture.mailbox("INBOX").await;
    assert_eq!((counted.unseen, counted.deleted, counted.highest_modseq), (1, 1, done.messages[0].modseq));
    // A repeat changes nothing, not even after somebody else's change.
    let other = store_flags(&fixture, inbox, &[1], FlagChange::Remove, &["\\Seen"]);
    set_flags(&fixture.store, &writer(ALICE), &other).await.unwrap();
    let again = set_flags(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert!(!again.messages[0].flags.contains(&Flag::Seen));
    assert_eq!(deleted_uids(&fixture.store, ALICE, inbox).await.unwrap(), uids(&[1]));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn keywords_of_a_message_have_a_limit() {
    let fixture = Fixture::new().await;
    fixture.fill(1).await;
    let inbox = fixture.mailbox("INBOX").await.id;
    let set = async |change, texts: &[&str], keywords_max| {
        let request = SetFlags { keywords_max, ..store_flags(&fixture, inbox, &[1], change, texts) };
        set_flags(&fixture.store, &writer(ALICE), &request).await
    };
    let full = set(FlagChange::Add, &["\\Seen", "\\Flagged", "a", "b"], 2).await.unwrap();
    let over = Err(Error::Limit { what: "keywords on one message" });
    assert_eq!(set(FlagChange::Add, &["c"], 2).await, over);
    assert_eq!(set(FlagChange::Replace, &["a", "b", "c", "d", "e"], 2).await, over);
    assert_eq!(fixture.messages("INBOX").await[0].flags, full.messages[0].flags);
    // The limit was lowered since.
    let fewer = set(FlagChange::Remove, &["a", "\\Seen"], 0).await.unwrap();
    assert_eq!(fewer.messages[0].flags, flags(&["\\Flagged", "b"]));
    assert_eq!(set(FlagChange::Replace, &["c", "d"], 1).await, over);
}

#[tokio::test]
async fn what_changes_nothing_gets_no_modseq() {
    let fixture = Fixture::new().await;
    fixture.fill(1).await;
    let inbox = fixture.mailbox("INBOX").await;
    let request = store_flags(&fixture, inbox.id, &[1], FlagChange::Remove, &["\\Seen"]);
    set_flags(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(fixture.mailbox("INBOX").await.highest_modseq, inbox.highest_modseq);
}

#[tokio::test]
async fn rfc7162_3_1_3_unchangedsince_keeps_later_changes() {
    let fixture = Fixture::new().await;
    fixture.fill(2).await;
    let inbox = fixture.mailbox("INBOX").await;
    let first = store_flags(&fixture, inbox.id, &[1], FlagChange::Add, &["\\Flagged"]);
    set_flags(&fixture.store, &writer(ALICE), &first).await.unwrap();
    let mut second = store_flags(&fixture, inbox.id, &[1, 2], FlagChange::Replace, &["\\Seen"]);
    second.unchanged_since = Some(inbox.highest_modseq);
    let done = set_flags(&fixture.store, &writer(ALICE), &second).await.unwrap();
    assert_eq!(done.modified, uids(&[1]));
    assert_eq!(done.messages.iter().map(|message| message.uid).collect::<Vec<_>>(), uids(&[2]));
    assert_eq!(set_flags(&fixture.store, &writer(ALICE), &second).await.unwrap(), done);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn expunge_takes_what_is_deleted_and_frees_its_room() {
    let fixture = Fixture::new().await;
    fixture.fill(3).await;
    let inbox = fixture.mailbox("INBOX").await.id;
    let mark = store_flags(&fixture, inbox, &[2], FlagChange::Add, &["\\Deleted"]);
    set_flags(&fixture.store, &writer(ALICE), &mark).await.unwrap();
    let request =
        Expunge { request: fixture.request(), mailbox: inbox, uids: uids(&[1, 2]), which: ExpungeWhich::Deleted };
    let gone = expunge(&fixture.store, &writer(ALICE), &request).await.unwrap();
    assert_eq!(gone.uids, uids(&[2]));
    assert_eq!(expunge(&fixture.store, &writer(ALICE), &request).await.unwrap(), gone);
    assert_eq!(account::by_id(&fixture.store, ALICE).await.unwrap().unwrap().quota_used, 200);
    // RFC 9051 §2.3.1.1: the Uid is never given again.
    fixture.fill(1).await;
    assert_eq!(fixture.messages("INBOX").await.last().unwrap().uid, uids(&[4])[0]);
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_reply_joins_its_thread() {
    let fixture = Fixture::new().await;
    let mut threads = Vec::new();
    for (subject, ids) in [("dinner", vec!["1@x"]), ("dinner", vec!["2@x", "1@x"]), ("lunch", vec!["3@x", "1@x"])] {
        let mut item = fixture.message(INBOX, 10).await;
        item.structure.base_subject = subject.to_owned();
        item.structure.thread_ids = ids.into_iter().map(str::to_owned).collect();
        let stored = fixture.append(&item).await.unwrap();
        threads.push(email(&fixture.store, ALICE, stored.email).await.unwrap().unwrap().thread);
    }
    assert_eq!(threads[0], threads[1]);
    assert_ne!(threads[0], threads[2]);
    let inbox = fixture.mailbox("INBOX").await.id;
    let request =
        Expunge { request: fixture.request(), mailbox: inbox, uids: uids(&[1, 2, 3]), which: ExpungeWhich::All };
    expunge(&fixture.store, &writer(ALICE), &request).await.unwrap();
    fixture.assert_whole().await;
}

#[tokio::test]
async fn a_message_reads_as_prefix_and_body() {
    let fixture = Fixture::new().await;
    let mut item = fixture.message(INBOX, 26).await;
    item.prefix = Bytes::from_static(b"A: b\r\n");
    let stored = fixture.append(&item).await.unwrap();
    let email = email(&fixture.store, ALICE, stored.email).await.unwrap().unwrap();
    let whole = body(&fixture.store, &email).await.unwrap();
    assert_eq!((whole.len(), email.size()), (32, 32));
    assert!(whole.starts_with(b"A: b\r\n"));
    for (start, end) in [(0, 3), (3, 9), (6, 32), (20, 99), (50, 60), (6, 6)] {
        let expect = whole.slice(start.min(32)..end.min(32).max(start.min(32)));
        assert_eq!(raw(&fixture.store, &email, start as u64..end as u64).await.unwrap(), expect, "{start}..{end}");
    }
}

#[tokio::test]
async fn swept_logs_say_from_where_they_are_whole() {
    let fixture = Fixture::new().await;
    fixture.fill(1).await;
    let at = change_log::highest(&fixture.store, ALICE).await.unwrap();
    let later = Writer { now: UnixMillis(NOW.0 + 10), ..writer(ALICE) };
    assert!(!change_log::sweep(&fixture.store, &later, UnixMillis(NOW.0 + 5), 100).await.unwrap());
    assert_eq!(change_log::since(&fixture.store, ALICE, ModSeq::FIRST, 10).await, Ok(None));
    fixture.fill(1).await;
    let changes = change_log::since(&fixture.store, ALICE, at, 10).await.unwrap().unwrap();
    assert_eq!((changes.changes[0].added.clone(), changes.more), (uids(&[2]), false));
    fixture.assert_whole().await;
}

#[tokio::test]
async fn done_rows_go_with_their_time() {
    let fixture = Fixture::new().await;
    let item = fixture.message(INBOX, 10).await;
    fixture.append(&item).await.unwrap();
    done::sweep(&fixture.store, &writer(ALICE), NOW).await.unwrap();
    assert_eq!(fixture.append(&item).await.unwrap().uid, uids(&[1])[0]);
    done::sweep(&fixture.store, &writer(ALICE), UnixMillis(NOW.0 + 1)).await.unwrap();
    assert_eq!(fixture.append(&item).await.unwrap().uid, uids(&[2])[0]);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Append { mailbox: usize, octets: usize },
    Flag { mailbox: usize, which: u32, deleted: bool },
    Copy { from: usize, to: usize, which: u32 },
    Move { from: usize, to: usize, which: u32 },
    Expunge { mailbox: usize, which: u32 },
    DeleteMailbox,
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    let mailbox = 0..3_usize;
    prop_oneof![
        3 => (mailbox.clone(), 1..3000_usize).prop_map(|(mailbox, octets)| Step::Append { mailbox, octets }),
        1 => (mailbox.clone(), 1..6_u32, any::<bool>())
            .prop_map(|(mailbox, which, deleted)| Step::Flag { mailbox, which, deleted }),
        2 => (mailbox.clone(), mailbox.clone(), 1..6_u32).prop_map(|(from, to, which)| Step::Copy { from, to, which }),
        2 => (mailbox.clone(), mailbox.clone(), 1..6_u32).prop_map(|(from, to, which)| Step::Move { from, to, which }),
        2 => (mailbox, 1..6_u32).prop_map(|(mailbox, which)| Step::Expunge { mailbox, which }),
        1 => Just(Step::DeleteMailbox),
        1 => Just(Step::Repeat),
    ]
}

/// What a history should have led to: Uids and sizes of each mailbox.
#[derive(Default)]
struct Model {
    mailboxes: [Vec<(u32, u64)>; 3],
    next: [u32; 3],
    last: Option<Append>,
}

const PATHS: [&str; 3] = ["INBOX", "Archive", "Work"];

async fn run_history(steps: Vec<Step>) {
    let fixture = Fixture::new().await;
    fixture.create("Work").await.unwrap();
    let mut model = Model { next: [1; 3], ..Model::default() };
    for step in steps {
        model.step(&fixture, step).await;
    }
    let mut used = 0;
    for (path, expect) in PATHS.iter().zip(&model.mailboxes) {
        let there: Vec<(u32, u64)> =
            fixture.messages(path).await.iter().map(|message| (message.uid.get(), message.size)).collect();
        assert_eq!(&there, expect, "{path}");
        used += expect.iter().map(|(_, size)| size).sum::<u64>();
    }
    while mailbox::sweep(&fixture.store, &writer(ALICE)).await.unwrap() {}
    assert_eq!(account::by_id(&fixture.store, ALICE).await.unwrap().unwrap().quota_used, used);
    fixture.assert_whole().await;
}

impl Model {
    async fn step(&mut self, fixture: &Fixture, step: Step) {
        let (store, alice) = (&fixture.store, writer(ALICE));
        match step {
            Step::Append { mailbox, octets } => {
                let target = Target::Mailbox(fixture.mailbox(PATHS[mailbox]).await.id);
                let item = fixture.message(target, octets).await;
                fixture.append(&item).await.unwrap();
                self.add(mailbox, item.size());
                self.last = Some(item);
            }
            Step::Repeat => {
                if let Some(item) = &self.last {
                    fixture.append(item).await.unwrap();
                }
            }
            Step::Flag { mailbox, which, deleted } => {
                let id = fixture.mailbox(PATHS[mailbox]).await.id;
                let texts: &[&str] = if deleted { &["\\Deleted"] } else { &["\\Seen", "$Work"] };
                let request = store_flags(fixture, id, &self.pick(mailbox, which), FlagChange::Add, texts);
                set_flags(store, &alice, &request).await.unwrap();
            }
            Step::Copy { from, to, which } => {
                let picked = self.pick(from, which);
                let request = self.copy_request(fixture, (from, to), &picked).await;
                copy(store, &alice, &request).await.unwrap();
                for size in self.sizes(from, &picked) {
                    self.add(to, size);
                }
            }
            Step::Move { from, to, which } => {
                let picked = self.pick(from, which);
                let request = self.copy_request(fixture, (from, to), &picked).await;
                let moved = move_to(store, &alice, &request).await;
                assert_eq!(moved.is_ok(), !picked.is_empty());
                for size in self.sizes(from, &picked) {
                    self.add(to, size);
                }
                self.mailboxes[from].retain(|(uid, _)| !picked.contains(uid));
            }
            Step::Expunge { mailbox, which } => {
                let picked = self.pick(mailbox, which);
                let id = fixture.mailbox(PATHS[mailbox]).await.id;
                let request =
                    Expunge { request: fixture.request(), mailbox: id, uids: uids(&picked), which: ExpungeWhich::All };
                assert_eq!(expunge(store, &alice, &request).await.unwrap().uids, uids(&picked));
                self.mailboxes[mailbox].retain(|(uid, _)| !picked.contains(uid));
            }
            Step::DeleteMailbox => {
                let request = mailbox::Delete { request: fixture.request(), path: "Work".to_owned() };
                mailbox::delete(store, &alice, &request).await.unwrap();
                fixture.create("Work").await.unwrap();
                self.mailboxes[2].clear();
                self.next[2] = 1;
            }
        }
    }

    /// Every `which`th message.
    fn pick(&self, mailbox: usize, which: u32) -> Vec<u32> {
        self.mailboxes[mailbox].iter().map(|(uid, _)| *uid).filter(|uid| uid % which == 0).collect()
    }

    fn sizes(&self, mailbox: usize, picked: &[u32]) -> Vec<u64> {
        self.mailboxes[mailbox].iter().filter(|(uid, _)| picked.contains(uid)).map(|(_, size)| *size).collect()
    }

    fn add(&mut self, mailbox: usize, size: u64) {
        self.mailboxes[mailbox].push((self.next[mailbox], size));
        self.next[mailbox] += 1;
    }

    async fn copy_request(&self, fixture: &Fixture, (from, to): (usize, usize), picked: &[u32]) -> Copy {
        let source = fixture.mailbox(PATHS[from]).await.id;
        let target = fixture.mailbox(PATHS[to]).await.id;
        Copy { request: fixture.request(), source, target, uids: uids(picked) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn quota_and_mailboxes_equal_a_model_after_any_history(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run_history(steps));
    }
}
