//! An account that changes while it is taken is what it was at its closing ModSeq: as recorded beside each change.

use std::collections::BTreeMap;

use posthouse_mail::{IngestId, MailboxId, SpecialUse, Uid};

use super::{Rig, uids};
use crate::backup::account::{self, Taking};
use crate::backup::image::AccountImage;
use crate::backup::lock::Lock;
use crate::fixture::{ALICE, flags, writer};
use crate::message::{self, Expunge, ExpungeWhich, FlagChange, SetFlags};
use crate::{change_log, mailbox};

/// Mailbox, Uid, flags.
type State = BTreeMap<(u64, u32), Vec<String>>;

/// A small generator: the same changes at every run of a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn state(rig: &Rig) -> (u64, State) {
    let store = &rig.fixture.store;
    let mut state = State::new();
    for mailbox in mailbox::list(store, ALICE).await.unwrap() {
        let page = message::memberships(store, ALICE, mailbox.id, Uid::FIRST, usize::MAX).await.unwrap();
        for one in page.messages {
            let flags = one.flags.iter().map(|flag| flag.as_str().to_owned()).collect();
            state.insert((mailbox.id.get(), one.uid.get()), flags);
        }
    }
    (change_log::highest(store, ALICE).await.unwrap().get(), state)
}

/// One change of some kind, and what was seen after each of its transactions.
async fn change(rig: &Rig, dice: &mut Dice, step: u64, history: &mut BTreeMap<u64, State>) {
    let (fixture, store, writer) = (&rig.fixture, &rig.fixture.store, &writer(ALICE));
    let (_, now) = state(rig).await;
    let places: Vec<(u64, u32)> = now.keys().copied().collect();
    let mut some = || {
        let place = places[usize::try_from(dice.roll(places.len() as u64)).unwrap()];
        (MailboxId::new(place.0), uids(&[place.1]))
    };
    let ((one, of_one), (other, _)) = (some(), some());
    let request = fixture.request();
    match dice.roll(9) {
        0..=2 => {
            let item = fixture.message(message::Target::Role(SpecialUse::Inbox), 200).await;
            fixture.append(&item).await.unwrap();
        }
        3 | 4 => {
            let flags = flags(&[["\\Seen", "\\Flagged", "$Label1"][usize::try_from(dice.roll(3)).unwrap()]]);
            let change = SetFlags {
                request,
                mailbox: one,
                uids: of_one,
                change: [FlagChange::Add, FlagChange::Remove][usize::try_from(dice.roll(2)).unwrap()],
                flags,
                unchanged_since: None,
                keywords_max: 100,
            };
            message::set_flags(store, writer, &change).await.unwrap();
        }
        5 if places.len() > 5 => {
            let expunge = Expunge { request, mailbox: one, uids: of_one, which: ExpungeWhich::All };
            message::expunge(store, writer, &expunge).await.unwrap();
        }
        6 => {
            let copy = message::Copy { request, source: one, target: other, uids: of_one };
            message::copy(store, writer, &copy).await.unwrap();
        }
        7 => {
            let copy = message::Copy { request, source: one, target: other, uids: of_one };
            message::move_to(store, writer, &copy).await.unwrap();
        }
        8 if step.is_multiple_of(3) => {
            let path = format!("Box{request}");
            fixture.create(&path).await.unwrap();
            history.extend([state(rig).await]);
            let target = fixture.mailbox(&path).await.id;
            let copy = message::Copy { request, source: one, target, uids: of_one };
            message::copy(store, writer, &copy).await.unwrap();
            history.extend([state(rig).await]);
            if dice.roll(2) == 0 {
                let delete = mailbox::Delete { request: fixture.request(), path };
                mailbox::delete(store, writer, &delete).await.unwrap();
                history.extend([state(rig).await]);
                mailbox::sweep(store, writer).await.unwrap();
            }
        }
        _ => {}
    }
    history.extend([state(rig).await]);
}

#[tokio::test]
async fn an_account_is_what_it_was_at_its_closing_modseq() {
    let mut rounds = 0;
    for seed in 1..=12 {
        let rig = Rig::new().await;
        rig.fixture.fill(30).await;
        let (target, mut dice) = (rig.target().await, Dice(seed));
        let lock = Lock::take(&target).await.unwrap();
        let mut history: BTreeMap<u64, State> = BTreeMap::new();
        history.extend([state(&rig).await]);
        let mut before = None;
        for _ in 0..2 {
            let (store, oldest_spooled) = (&rig.fixture.store, IngestId::new(u128::MAX));
            let taking = Taking { store, target: &target, lock: &lock, oldest_spooled };
            let earlier = before.clone();
            let mut take = Box::pin(account::take(&taking, ALICE, earlier.as_ref()));
            let changes = async {
                for step in 0..40 {
                    change(&rig, &mut dice, step, &mut history).await;
                }
            };
            let (taken, ()) = tokio::join!(&mut take, changes);
            let taken = taken.unwrap().unwrap();
            let mut image = AccountImage::load(&target, &taken.entry).await.unwrap();
            rounds += image.head.runs.len() - 1;
            let mut found = State::new();
            for live in image.live().to_vec() {
                let (part, at) = image.entry(live.email).await.unwrap();
                let place = part[at].places.iter().find(|p| (p.mailbox, p.uid) == (live.mailbox, live.uid)).unwrap();
                let row = place.row.clone().unwrap();
                let flags = message::flag_bits::read(row.flags, &row.keywords);
                let flags = flags.iter().map(|flag| flag.as_str().to_owned()).collect();
                found.insert((live.mailbox, live.uid), flags);
            }
            let then = history.get(&taken.entry.modseq);
            assert_eq!(Some(&found), then, "seed {seed}, ModSeq {}", taken.entry.modseq);
            drop(take);
            before = Some(taken.entry);
        }
        rig.fixture.assert_whole().await;
    }
    assert!(rounds > 12, "the changes came too late to matter: {rounds} rounds");
}
