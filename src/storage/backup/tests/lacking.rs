//! What a backup lacks, or what the store could no longer read, keeps nothing else from being taken and from coming back.

use posthouse_mail::secret::Secret;
use posthouse_mail::{AccountId, EmailId, SpecialUse};

use super::{Elsewhere, Rig, seen};
use crate::address::Alias;
use crate::backup::bundle::{self, BundleWriter};
use crate::backup::image::OpenPoint;
use crate::backup::record::{AccountEntry, SiteEntry};
use crate::backup::restore::{Restored, Wish, whole};
use crate::backup::target::rows_path;
use crate::backup::{Phase, Step, Target, point, run};
use crate::check::tests::lay;
use crate::domain::{self, DkimAlgorithm, DkimKey};
use crate::error::Error;
use crate::fixture::{ALICE, DOMAIN, NOW, address, fence};
use crate::message::{self, Target as To};
use crate::{keys, mailbox};

const BOB: AccountId = AccountId::new(0xb0b);

/// A restore elsewhere, which is whole by the checker.
async fn brought(target: &Target) -> (Elsewhere, Restored) {
    let elsewhere = Elsewhere::new().await;
    let restored = elsewhere.restore(target, None).await.unwrap();
    (elsewhere, restored)
}

#[tokio::test]
async fn a_body_that_is_lost_keeps_no_other_message_from_coming_back() {
    let rig = Rig::new().await;
    rig.fill().await;
    let mut expect = seen(&rig.fixture.store, ALICE).await;
    let email = message::email(&rig.fixture.store, ALICE, EmailId::new(1)).await.unwrap().unwrap();
    lay(&rig.fixture, &keys::blob_state(&email.body.blob), None).await;
    let target = rig.target().await;
    let taken = run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap();
    assert!(!taken.is_whole());
    let (elsewhere, restored) = brought(&target).await;
    assert!(restored.left_out.iter().any(|what| what.contains("alice@x.test")), "{:?}", restored.left_out);
    expect.remove(&("INBOX".to_owned(), 1)).unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, expect);
}

#[tokio::test]
async fn a_damaged_pack_hides_no_body_of_another_one() {
    let rig = Rig::new().await;
    rig.fill().await;
    rig.take().await;
    let then = seen(&rig.fixture.store, ALICE).await;
    let packs = async || rig.names().await.into_iter().filter(|name| name.starts_with("packs/"));
    let before: Vec<_> = packs().await.collect();
    for octets in 2000..2012 {
        let item = rig.fixture.message(To::Role(SpecialUse::Inbox), octets).await;
        rig.fixture.append(&item).await.unwrap();
    }
    rig.take().await;
    let new = packs().await.find(|name| !before.contains(name)).unwrap();
    let octets = rig.octets(&new).await;
    rig.lay(&new, &octets[..octets.len() - 20]).await;
    let (elsewhere, restored) = brought(&rig.target().await).await;
    assert_eq!(restored.left_out.len(), 12, "{:?}", restored.left_out);
    assert_eq!(seen(&elsewhere.store, ALICE).await, then);
}

#[tokio::test]
async fn a_damaged_part_of_an_account_keeps_no_other_part_from_coming_back() {
    let rig = Rig::new().await;
    rig.fill().await;
    rig.fixture.fill(1000).await;
    let count = seen(&rig.fixture.store, ALICE).await.len();
    rig.take().await;
    let target = rig.target().await;
    let image = OpenPoint::open(&target, None).await.unwrap();
    let head = image.account(&crate::fixture::address("alice@x.test")).await.unwrap().unwrap().head;
    let parts = &head.runs[0].parts;
    assert!(parts.len() > 2, "{}", parts.len());
    let hurt = rig.dir.path().join("backup").join(crate::backup::target::rows_path(&parts[1].name));
    std::fs::write(&hurt, b"nothing").unwrap();
    let lost = usize::try_from(parts[1].messages).unwrap();
    let (elsewhere, restored) = brought(&target).await;
    assert!(!restored.left_out.is_empty());
    assert_eq!(seen(&elsewhere.store, ALICE).await.len(), count - lost);
}

#[tokio::test]
async fn a_damaged_row_of_a_body_keeps_no_other_body_from_being_taken() {
    let rig = Rig::new().await;
    rig.fill().await;
    let email = message::email(&rig.fixture.store, ALICE, EmailId::new(1)).await.unwrap().unwrap();
    lay(&rig.fixture, &keys::blob_state(&email.body.blob), Some(b"not what was written")).await;
    let target = rig.target().await;
    let taken = run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap();
    assert!(taken.damaged.iter().any(|what| what.contains(&email.body.blob.to_string())), "{:?}", taken.damaged);
    assert_eq!((taken.bodies, taken.messages), (6, 9));
}

#[tokio::test]
async fn a_damaged_row_of_an_account_keeps_no_other_row_from_being_taken() {
    let rig = Rig::new().await;
    rig.fill().await;
    let store = &rig.fixture.store;
    let whole = seen(store, ALICE).await;
    let [inbox, work] = [rig.fixture.mailbox("INBOX").await.id, rig.fixture.mailbox("Work/2024").await.id];
    let third = posthouse_mail::Uid::new(3).unwrap();
    let of_inbox = |uid: u32| ("INBOX".to_owned(), uid);
    // An email, a membership, a mailbox with its messages, the password; each hides itself and nothing else.
    let cases = [
        (keys::email(ALICE, EmailId::new(1)), vec![of_inbox(1)]),
        (keys::membership(ALICE, inbox, third), vec![of_inbox(3)]),
        (keys::mailbox(ALICE, work), whole.keys().filter(|(path, _)| path == "Work/2024").cloned().collect()),
        (keys::credential(ALICE), vec![]),
    ];
    for (key, lost) in cases {
        let value = store.snapshot().get(&key).await.unwrap();
        lay(&rig.fixture, &key, Some(b"not what was written")).await;
        let target = rig.target().await;
        let taken = run(store, &target, "h", &mut |_| {}).await.unwrap();
        assert!(!taken.is_whole() && taken.damaged.iter().all(|what| what.contains("alice@x.test")), "{taken:?}");
        // The next one does not count on what is incomplete.
        let again = run(store, &target, "h", &mut |_| {}).await.unwrap();
        assert_eq!(again.damaged, taken.damaged);
        let (elsewhere, restored) = brought(&target).await;
        assert_eq!(restored.left_out, Vec::<String>::new());
        let expect: std::collections::BTreeMap<_, _> = whole
            .iter()
            .filter(|(place, _)| !lost.contains(place))
            .map(|(place, seen)| (place.clone(), seen.clone()))
            .collect();
        assert_eq!(seen(&elsewhere.store, ALICE).await, expect, "{key:?}");
        let mended = store.transact(|txn| {
            txn.set(&key, value.as_deref().unwrap_or_default());
            if value.is_none() {
                txn.clear(&key);
            }
            Box::pin(async { Ok(()) })
        });
        mended.await.unwrap();
    }
    // What was mended is taken, though no ModSeq tells of it.
    rig.take().await;
    let (elsewhere, _) = brought(&rig.target().await).await;
    assert_eq!(seen(&elsewhere.store, ALICE).await, whole);
}

/// bob, an alias, a signing key and a secret beside what `fill` makes.
async fn settle(rig: &Rig) {
    rig.fill().await;
    let store = &rig.fixture.store;
    rig.fixture.account(BOB, "bob@x.test", None).await;
    let of_domain = fence(keys::domain_shard(DOMAIN));
    let alias = Alias { address: address("all@x.test"), targets: vec![address("alice@x.test")] };
    crate::address::set_alias(store, of_domain, &alias).await.unwrap();
    let key = DkimKey {
        selector: "s1".parse().unwrap(),
        algorithm: DkimAlgorithm::Ed25519,
        private_key: Secret::new(vec![1, 2, 3]),
        created_at: NOW,
    };
    domain::add_dkim_key(store, of_domain, DOMAIN, &key).await.unwrap();
    let secret = store.transact(|txn| {
        Box::pin(async move {
            txn.set(&keys::secret("of-tests"), b"secret");
            Ok(())
        })
    });
    secret.await.unwrap();
}

#[tokio::test]
async fn a_damaged_row_outside_an_account_keeps_nothing_else_from_being_taken() {
    let name = "x.test".parse().unwrap();
    let cases = [
        keys::account(BOB),
        keys::address(DOMAIN, "all"),
        keys::dkim_key(DOMAIN, "s1"),
        keys::subscription(ALICE, "INBOX"),
        keys::secret("of-tests"),
        // Without its domain no account has a place: either of its rows stands in for the other.
        keys::domain(DOMAIN),
        keys::domain_name(&name),
    ];
    for key in cases {
        let rig = Rig::new().await;
        settle(&rig).await;
        let expect = seen(&rig.fixture.store, ALICE).await;
        lay(&rig.fixture, &key, Some(b"not what was written")).await;
        let target = rig.target().await;
        let taken = run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap();
        assert!(!taken.is_whole(), "{key:?}");
        assert_eq!(taken.damaged.len(), 1, "{:?}", taken.damaged);
        let (elsewhere, restored) = brought(&target).await;
        assert_eq!(restored.left_out, Vec::<String>::new(), "{key:?}");
        assert_eq!(seen(&elsewhere.store, ALICE).await, expect, "{key:?}");
        let there = &elsewhere.store;
        let is_hurt = |other: &keys::Key| key == *other;
        assert_eq!(restored.accounts, 2 - u64::from(is_hurt(&keys::account(BOB))));
        let alias = crate::address::alias(there, &address("all@x.test")).await.unwrap();
        assert_eq!(alias.is_none(), is_hurt(&keys::address(DOMAIN, "all")));
        let signs = domain::has_dkim_key(there, DOMAIN).await.unwrap();
        assert_eq!(!signs, is_hurt(&keys::dkim_key(DOMAIN, "s1")));
        let secret = there.snapshot().get(&keys::secret("of-tests")).await.unwrap();
        assert_eq!(secret.is_none(), is_hurt(&keys::secret("of-tests")));
        // What is subscribed is told by the row's key.
        let subscribed = mailbox::subscriptions(there, ALICE).await.unwrap();
        assert!(subscribed.contains(&"INBOX".to_owned()), "{subscribed:?}");
    }
}

#[tokio::test]
async fn a_lost_piece_of_the_sites_facts_keeps_no_other_piece_from_coming_back() {
    // A domain, its key, its alias: each in a piece of its own.
    for lost in 0..3 {
        let rig = Rig::new().await;
        settle(&rig).await;
        let id = rig.take().await.point;
        let target = rig.target().await;
        let mut row = point::load(&target, &id).await.unwrap();
        let facts = bundle::read_all::<SiteEntry>(&target, &row.site).await.unwrap();
        let mut pieces = BundleWriter::<SiteEntry>::new(&target);
        for fact in &facts {
            pieces.push(fact).await.unwrap();
            pieces.cut().await.unwrap();
        }
        row.site = pieces.finish().await.unwrap().names;
        assert!(row.site.len() >= 3, "{facts:?}");
        point::save(&target, &id, &row).await.unwrap();
        rig.place().delete(&rows_path(&row.site[lost])).await.unwrap();
        let (elsewhere, restored) = brought(&target).await;
        assert!(!restored.left_out.is_empty() && restored.left_out.len() <= 2, "{:?}", restored.left_out);
        // The domain's name stands in the addresses below it as well.
        assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
        let alias = crate::address::alias(&elsewhere.store, &address("all@x.test")).await.unwrap();
        assert_eq!(alias.is_some(), lost != 2);
        assert_eq!(domain::has_dkim_key(&elsewhere.store, DOMAIN).await, Ok(lost == 2));
    }
}

#[tokio::test]
async fn a_damaged_point_hides_no_other_one() {
    let rig = Rig::new().await;
    rig.fill().await;
    let mut points = Vec::new();
    for _ in 0..3 {
        points.push(rig.take().await.point);
    }
    let target = rig.target().await;
    for id in &points[1..] {
        rig.lay(&point::path(id), b"nothing").await;
    }
    let shown = target.points().await.unwrap();
    assert_eq!(shown.iter().map(|point| point.id.clone()).collect::<Vec<_>>(), points);
    assert_eq!(shown.iter().map(|point| point.damaged.is_some()).collect::<Vec<_>>(), [false, true, true]);
    assert!(shown[1].started_at.0 > shown[0].started_at.0);
    let (elsewhere, restored) = brought(&target).await;
    assert_eq!((&restored.point, restored.left_out.len()), (&points[0], 2), "{:?}", restored.left_out);
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
    let named = Elsewhere::new().await.restore(&target, Some(&points[2])).await;
    assert!(matches!(named, Err(Error::BackupDamaged(_))), "{named:?}");
}

#[tokio::test]
async fn a_damaged_part_of_the_list_hides_no_account_of_another_part() {
    let rig = Rig::new().await;
    settle(&rig).await;
    let id = rig.take().await.point;
    let target = rig.target().await;
    let mut row = point::load(&target, &id).await.unwrap();
    let accounts = bundle::read_all::<AccountEntry>(&target, &row.accounts).await.unwrap();
    let mut parts = BundleWriter::new(&target);
    for account in &accounts {
        parts.push(account).await.unwrap();
        parts.cut().await.unwrap();
    }
    row.accounts = parts.finish().await.unwrap().names;
    point::save(&target, &id, &row).await.unwrap();
    rig.place().delete(&rows_path(&row.accounts[0])).await.unwrap();
    let [lost, left] = [0, 1].map(|place: usize| address(&accounts[place].address));
    let open = OpenPoint::open(&target, None).await.unwrap();
    assert_eq!(open.account(&left).await.unwrap().map(|image| image.address), Some(left));
    // It may be in what is lost: that is another answer than that it is not there.
    let told = open.account(&lost).await.err();
    assert!(matches!(told, Some(Error::BackupDamaged(_))), "{told:?}");
}

#[tokio::test]
async fn an_account_that_finds_no_place_leaves_no_rows() {
    let rig = Rig::new().await;
    rig.fill().await;
    let id = rig.take().await.point;
    // As if its domain had been deleted after the account was taken.
    let target = rig.target().await;
    let mut row = point::load(&target, &id).await.unwrap();
    row.site = BundleWriter::<SiteEntry>::new(&target).finish().await.unwrap().names;
    point::save(&target, &id, &row).await.unwrap();
    let (elsewhere, restored) = brought(&target).await;
    assert_eq!(restored.left_out.len(), 1);
    assert!(mailbox::list(&elsewhere.store, ALICE).await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn a_backup_that_is_away_is_not_taken_for_one_that_lost_everything() {
    let rig = Rig::new().await;
    rig.fill().await;
    let [folder, away] = ["backup", "away"].map(|name| rig.dir.path().join(name));
    let (target, elsewhere) = (rig.target().await, Elsewhere::new().await);
    // As a disk that is unplugged: before the site's facts are read, and before the messages are.
    for number in [1, 2] {
        rig.fixture.account(AccountId::new(number), &format!("u{number}@x.test"), None).await;
    }
    rig.take().await;
    for phase in [Phase::Site, Phase::Restore] {
        let mut unplug = |step: &Step| {
            if step.phase == phase && folder.exists() {
                std::fs::rename(&folder, &away).unwrap();
            }
        };
        let cut = whole(&elsewhere.store, &target, &Wish::default(), (&fence, NOW), &mut unplug).await;
        assert!(matches!(cut, Err(Error::Unavailable(_))), "{cut:?}");
        std::fs::rename(&away, &folder).unwrap();
    }
    let restored = elsewhere.restore(&target, None).await.unwrap();
    assert_eq!((restored.accounts, restored.left_out), (3, Vec::new()));
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
}
