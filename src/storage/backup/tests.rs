//! Backups end to end: taken of a store that changes, read back, damaged, pruned, restored elsewhere.
#![allow(clippy::unwrap_used)]

mod bucket;
mod changing;
mod damage;
mod lacking;
mod under_way;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthouse_conf::Backup as Settings;
use posthouse_mail::secret::Secret;
use posthouse_mail::{AccountId, Address, EmailId, SpecialUse, Uid};

use super::image::OpenPoint;
use super::place::{Bucket, Place};
use super::restore::{Wish, whole};
use super::{Access, Target, prune, run, verify};
use crate::error::Error;
use crate::fixture::objects::{Flaky, Moto};
use crate::fixture::{ALICE, DOMAIN, Fixture, NOW, address, fence, flags, uids, writer};
use crate::message::{self, Expunge, ExpungeWhich, FlagChange, SetFlags};
use crate::store::Store;
use crate::{account, check, domain, keys, mailbox};

/// Where the backups of a case lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// A bucket that is held in memory.
    Memory,
    /// A bucket of moto's.
    Moto,
}

/// Runs a case in every kind of place.
macro_rules! in_every_place {
    ($($case:ident)*) => {
        mod folder { $(#[tokio::test] async fn $case() { super::$case(super::Rig::of(super::Kind::Folder).await).await; })* }
        mod memory { $(#[tokio::test] async fn $case() { super::$case(super::Rig::of(super::Kind::Memory).await).await; })* }
        mod moto {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs moto: .ci/run installs it"]
            async fn $case() { super::$case(super::Rig::of(super::Kind::Moto).await).await; })*
        }
    };
}
use Kind::Folder;
pub(super) use in_every_place;

in_every_place! {
    a_site_comes_back_message_by_message
    a_second_backup_writes_only_what_changed
    each_point_is_what_the_site_was_then
    a_restore_that_was_cut_short_goes_on
    a_part_is_read_in_the_order_of_its_uids
}

/// A place for backups beside a store to take them of.
pub(super) struct Rig {
    pub fixture: Fixture,
    pub dir: tempfile::TempDir,
    pub settings: Settings,
    pub memory: Arc<Flaky>,
    pub moto: Option<Moto>,
    kind: Kind,
}

impl Rig {
    pub async fn new() -> Self {
        Self::of(Folder).await
    }

    pub async fn of(kind: Kind) -> Self {
        // Small steps, so that a few messages need several of each.
        let mut settings = Settings { rows_at_once: 3, replay_max: 2, read_ahead: 2, ..Settings::default() };
        let dir = tempfile::tempdir().unwrap();
        let moto = (kind == Kind::Moto).then(Moto::start);
        if let Some(moto) = &moto {
            settings.object_store = service(moto, dir.path());
        }
        Self { fixture: Fixture::new().await, dir, settings, memory: Arc::default(), moto, kind }
    }

    pub fn access(&self) -> Access {
        let location = match self.kind {
            Kind::Folder => self.dir.path().join("backup").to_str().unwrap().to_owned(),
            Kind::Memory | Kind::Moto => "s3://mail/of/site".to_owned(),
        };
        Access { location, secret: None }
    }

    pub fn place(&self) -> Place {
        if self.kind != Kind::Memory {
            return Place::at(&self.access().location, &self.settings).unwrap();
        }
        // So that a few messages need several parts.
        let (timeout, part) = (self.settings.timeout.get(), 64 << 10);
        Place::of_bucket(Bucket::over(self.memory.clone(), ("mail", "of/site"), timeout, part), &self.settings)
    }

    pub async fn target(&self) -> Target {
        self.target_for(&self.access()).await.unwrap()
    }

    pub async fn target_for(&self, access: &Access) -> Result<Target, Error> {
        Target::open_or_create_in(self.place(), access, &self.settings).await
    }

    pub async fn take(&self) -> super::Taken {
        let taken = run(&self.fixture.store, &self.target().await, "mail.x.test", &mut |_| {}).await.unwrap();
        assert!(taken.is_whole(), "{taken:?}");
        taken
    }

    /// Messages of several sizes, flags and places.
    pub async fn fill(&self) {
        let fixture = &self.fixture;
        for (number, octets) in [10, 900, 5000, 70_000, 2_500_000, 300, 40].into_iter().enumerate() {
            let mut item = fixture.message(message::Target::Role(SpecialUse::Inbox), 0).await;
            item.body = message::AppendBody::Staged(self.noise(octets).await);
            item.flags = flags(&["\\Seen", "$Forwarded"][..number % 3]);
            item.prefix = bytes::Bytes::from_static(b"Return-Path: <>\r\n");
            fixture.append(&item).await.unwrap();
        }
        fixture.create("Work/2024").await.unwrap();
        let inbox = fixture.mailbox("INBOX").await.id;
        let copy = message::Copy {
            request: fixture.request(),
            source: inbox,
            target: fixture.mailbox("Work/2024").await.id,
            uids: uids(&[2, 3, 5]),
        };
        message::copy(&fixture.store, &writer(ALICE), &copy).await.unwrap();
        self.flag(&[1, 2], "\\Deleted").await;
        self.expunge(&[2]).await;
    }

    /// So many messages, each with a body of its own.
    pub async fn add(&self, count: usize) {
        for _ in 0..count {
            let item = self.fixture.message(message::Target::Role(SpecialUse::Inbox), 1000).await;
            self.fixture.append(&item).await.unwrap();
        }
    }

    /// A body that no compression makes smaller.
    async fn noise(&self, octets: usize) -> crate::StagedBody {
        let mut noise = vec![0; octets];
        blake3::Hasher::new().update(&octets.to_le_bytes()).finalize_xof().fill(&mut noise);
        let mut body = self.fixture.store.body_writer();
        body.write(&noise).await.unwrap();
        body.finish().await.unwrap()
    }

    pub async fn flag(&self, numbers: &[u32], flag: &str) {
        let change = SetFlags {
            request: self.fixture.request(),
            mailbox: self.fixture.mailbox("INBOX").await.id,
            uids: uids(numbers),
            change: FlagChange::Add,
            flags: flags(&[flag]),
            unchanged_since: None,
            keywords_max: 100,
        };
        message::set_flags(&self.fixture.store, &writer(ALICE), &change).await.unwrap();
    }

    pub async fn expunge(&self, numbers: &[u32]) {
        let request = self.fixture.request();
        let mailbox = self.fixture.mailbox("INBOX").await.id;
        let expunge = Expunge { request, mailbox, uids: uids(numbers), which: ExpungeWhich::All };
        message::expunge(&self.fixture.store, &writer(ALICE), &expunge).await.unwrap();
    }

    /// Every object of the backup.
    pub async fn names(&self) -> Vec<String> {
        let listed = self.place().list("").await.unwrap();
        let mut names: Vec<String> = listed.into_iter().map(|object| object.name).collect();
        names.sort();
        names
    }

    pub async fn octets(&self, name: &str) -> Vec<u8> {
        self.place().get(name, u64::MAX).await.unwrap().unwrap().to_vec()
    }

    pub async fn lay(&self, name: &str, octets: &[u8]) {
        self.place().put(name, Bytes::copy_from_slice(octets)).await.unwrap();
    }
}

/// moto as the configuration names it.
pub(super) fn service(moto: &Moto, dir: &std::path::Path) -> posthouse_conf::backup::ObjectStore {
    let secret_key_file = dir.join("secret");
    std::fs::write(&secret_key_file, "secret\n").unwrap();
    let (endpoint, access_key_id) = (moto.endpoint.clone(), "key".to_owned());
    posthouse_conf::backup::ObjectStore { endpoint, access_key_id, secret_key_file, ..Default::default() }
}

/// An empty store elsewhere.
pub(super) struct Elsewhere {
    pub store: Store,
    _dir: tempfile::TempDir,
}

impl Elsewhere {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &posthouse_conf::section::storage::Storage::default()).await.unwrap();
        Self { store, _dir: dir }
    }

    pub async fn restore(&self, target: &Target, point: Option<&str>) -> Result<super::restore::Restored, Error> {
        let wish = Wish { point: point.map(str::to_owned), ..Wish::default() };
        let restored = whole(&self.store, target, &wish, (&fence, NOW), &mut |_| {}).await?;
        let report = check::run(&self.store, check::Options::default(), &mut |_| {}).await.unwrap();
        assert_eq!(report.findings, []);
        Ok(restored)
    }
}

/// What a client sees of a message.
pub(super) type Seen = (Vec<String>, u64, Vec<u8>);

/// What a client sees of an account: by path and Uid.
pub(super) async fn seen(store: &Store, id: AccountId) -> BTreeMap<(String, u32), Seen> {
    let mut all = BTreeMap::new();
    for mailbox in mailbox::list(store, id).await.unwrap() {
        let page = message::memberships(store, id, mailbox.id, Uid::FIRST, usize::MAX).await.unwrap();
        for one in page.messages {
            let email = message::email(store, id, one.email).await.unwrap().unwrap();
            let flags = one.flags.iter().map(|flag| flag.as_str().to_owned()).collect();
            let octets = message::body(store, &email).await.unwrap().to_vec();
            all.insert((mailbox.path.clone(), one.uid.get()), (flags, one.received_at.0, octets));
        }
    }
    all
}

async fn a_site_comes_back_message_by_message(rig: Rig) {
    rig.fill().await;
    let store = &rig.fixture.store;
    rig.fixture.account(AccountId::new(0xb0b), "bob@x.test", Some(1 << 30)).await;
    let alias = crate::address::Alias { address: address("all@x.test"), targets: vec![address("alice@x.test")] };
    crate::address::set_alias(store, fence(keys::domain_shard(DOMAIN)), &alias).await.unwrap();
    mailbox::set_subscribed(store, &writer(ALICE), "Work/2024", true).await.unwrap();
    let hash = Secret::new("$argon2id$x".to_owned());
    let change = account::AccountChange { password_hash: Some(hash), admin: Some(true), ..Default::default() };
    account::change(store, &writer(ALICE), &change).await.unwrap();
    let taken = rig.take().await;
    assert_eq!((taken.accounts, taken.messages, taken.bodies), (2, 9, 7));

    let elsewhere = Elsewhere::new().await;
    let restored = elsewhere.restore(&rig.target().await, None).await.unwrap();
    assert_eq!((restored.accounts, restored.domains, restored.left_out), (2, 1, Vec::<String>::new()));
    let there = &elsewhere.store;
    assert_eq!(seen(there, ALICE).await, seen(store, ALICE).await);
    let password = account::password_hash(there, ALICE).await.unwrap().unwrap();
    assert_eq!(password.reveal(), "$argon2id$x");
    assert_eq!(crate::address::alias(there, &alias.address).await, Ok(Some(alias)));
    assert_eq!(domain::by_id(there, DOMAIN).await, domain::by_id(store, DOMAIN).await);
    let [before, after] = [account::by_id(store, ALICE).await, account::by_id(there, ALICE).await];
    let [before, after] = [before.unwrap().unwrap(), after.unwrap().unwrap()];
    assert_eq!(after, account::Account { generation: before.generation + 1, ..before });
    for mailbox in mailbox::list(there, ALICE).await.unwrap() {
        let old = rig.fixture.mailbox(&mailbox.path).await;
        assert!(mailbox.uid_validity > old.uid_validity, "{}", mailbox.path);
        let same = (mailbox.uid_next, mailbox.highest_modseq, mailbox.subscribed, mailbox.role, mailbox.id);
        assert_eq!(same, (old.uid_next, old.highest_modseq, old.subscribed, old.role, old.id));
    }
}

async fn a_second_backup_writes_only_what_changed(rig: Rig) {
    rig.fill().await;
    let first = rig.take().await;
    let second = rig.take().await;
    assert_eq!(second.bodies, 0);
    assert!(second.written < 1500, "{} octets for nothing new", second.written);
    rig.flag(&[3], "\\Flagged").await;
    let item = rig.fixture.message(message::Target::Role(SpecialUse::Inbox), 3000).await;
    rig.fixture.append(&item).await.unwrap();
    let third = rig.take().await;
    assert_eq!(third.bodies, 1);
    assert!(third.written < first.written / 100, "{} of {}", third.written, first.written);
    let points = rig.target().await.points().await.unwrap();
    assert_eq!(points.iter().map(|point| &point.id).collect::<Vec<_>>(), [&first.point, &second.point, &third.point]);
}

async fn each_point_is_what_the_site_was_then(rig: Rig) {
    rig.fill().await;
    let mut points = Vec::new();
    for step in 1..=3 {
        points.push((rig.take().await.point, seen(&rig.fixture.store, ALICE).await));
        rig.expunge(&[step * 2]).await;
        rig.flag(&[5], "\\Answered").await;
        rig.fixture.create(&format!("Box{step}")).await.unwrap();
    }
    for (point, then) in &points {
        let elsewhere = Elsewhere::new().await;
        elsewhere.restore(&rig.target().await, Some(point)).await.unwrap();
        assert_eq!(seen(&elsewhere.store, ALICE).await, *then);
    }
    // What is pruned takes nothing from what stays.
    let target = rig.target().await;
    let pruned = prune(&target, 1, &mut |_| {}).await.unwrap();
    assert_eq!((pruned.points, pruned.kept), (2, 1));
    assert!(pruned.objects > 0);
    assert_eq!(verify(&target, &mut |_| {}).await.unwrap().findings, Vec::<String>::new());
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&target, None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, points[2].1);
    let gone = elsewhere.restore(&target, Some(&points[0].0)).await;
    assert!(matches!(gone, Err(Error::Refused(_))), "{gone:?}");
}

#[tokio::test]
async fn a_site_goes_into_an_empty_store_only() {
    let rig = Rig::new().await;
    rig.take().await;
    let here = whole(&rig.fixture.store, &rig.target().await, &Wish::default(), (&fence, NOW), &mut |_| {}).await;
    assert!(matches!(here, Err(Error::Refused(_))), "{here:?}");
    rig.fixture.assert_whole().await;
}

async fn a_restore_that_was_cut_short_goes_on(rig: Rig) {
    rig.fill().await;
    for number in 0..4 {
        rig.fixture.account(AccountId::new(100 + number), &format!("u{number}@x.test"), None).await;
    }
    rig.take().await;
    let (target, elsewhere) = (rig.target().await, Elsewhere::new().await);
    let mut steps = 0;
    let (cut, mut is_cut) = tokio::sync::mpsc::channel(8);
    let mut progress = |_: &super::Step| {
        steps += 1;
        if steps == 4 {
            cut.try_send(()).unwrap();
        }
    };
    let wish = Wish::default();
    tokio::select! {
        biased;
        _ = is_cut.recv() => {}
        done = whole(&elsewhere.store, &target, &wish, (&fence, NOW), &mut progress) => panic!("not cut: {done:?}"),
    }
    let point = target.points().await.unwrap().remove(0).id;
    assert_eq!(super::restore::unfinished(&elsewhere.store).await, Ok(Some(point.clone())));
    // Half a site is not taken for a whole one.
    let half = run(&elsewhere.store, &target, "h", &mut |_| {}).await;
    assert!(matches!(&half, Err(Error::Refused(reason)) if reason.contains(&point)), "{half:?}");
    assert_eq!(target.points().await.unwrap().len(), 1);
    // Nor is a newer point begun in the middle of this one.
    rig.take().await;
    let restored = elsewhere.restore(&target, None).await.unwrap();
    assert_eq!(super::restore::unfinished(&elsewhere.store).await, Ok(None));
    assert_eq!((restored.point, restored.accounts), (point, 5));
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
}

async fn a_part_is_read_in_the_order_of_its_uids(rig: Rig) {
    rig.fill().await;
    rig.take().await;
    let mut point = OpenPoint::open(&rig.target().await, None).await.unwrap();
    assert!(point.account(&address("nobody@x.test")).await.unwrap().is_none());
    let mut image = point.account(&Address::parse("ALICE@x.test").unwrap()).await.unwrap().unwrap();
    let all = seen(&rig.fixture.store, ALICE).await;
    for mailbox in image.mailboxes().to_vec() {
        let expect: Vec<&Seen> = all.iter().filter(|((path, _), _)| *path == mailbox.path).map(|(_, s)| s).collect();
        assert_eq!(mailbox.messages, expect.len(), "{}", mailbox.path);
        for (place, expect) in expect.into_iter().enumerate() {
            let found = image.message(mailbox.id, place).await.unwrap().unwrap();
            let body = point.stage(&rig.fixture.store, &found.blob).await.unwrap().body;
            let body = rig.fixture.store.body_read(&body, 0..u64::MAX).await.unwrap();
            let flags = found.flags.iter().map(|flag| flag.as_str().to_owned()).collect();
            assert_eq!((flags, found.received_at.0, [found.prefix.to_vec(), body.to_vec()].concat()), *expect);
        }
        assert_eq!(image.message(mailbox.id, mailbox.messages).await, Ok(None));
    }
}

/// Each body was looked for in the packs of every run.
#[tokio::test]
async fn many_runs_make_no_restore_read_every_pack_for_every_body() {
    let mut rig = Rig::of(Kind::Memory).await;
    // Room for the places of one pack only.
    rig.settings.index_max = 8;
    let (runs, bodies) = (10_usize, 8_usize);
    for _ in 0..runs {
        rig.add(bodies).await;
        rig.take().await;
    }
    let mut point = OpenPoint::open(&rig.target().await, None).await.unwrap();
    rig.memory.asked_for();
    let elsewhere = Elsewhere::new().await;
    // As accounts come back one after the other: from one run's pack to another's.
    for email in (0..bodies).flat_map(|body| (0..runs).map(move |run| run * bodies + body + 1)) {
        let email = EmailId::new(u64::try_from(email).unwrap());
        let email = message::email(&rig.fixture.store, ALICE, email).await.unwrap().unwrap();
        point.stage(&elsewhere.store, &email.body.blob).await.unwrap();
    }
    let of_packs = rig.memory.asked_for().into_iter().filter(|name| name.contains("/packs/")).count();
    // The index of each pack once, in three reads; then for a body an index at most, and a piece.
    assert!(of_packs <= 3 * runs + (3 + 1) * runs * bodies, "{of_packs} reads of packs");
}

#[tokio::test]
async fn a_site_that_came_back_goes_on_with_the_same_backup() {
    let rig = Rig::new().await;
    rig.fill().await;
    let first = rig.take().await.point;
    // Nothing changes after a restore, but each store has other ids for the same bodies.
    for _ in 0..2 {
        let elsewhere = Elsewhere::new().await;
        elsewhere.restore(&rig.target().await, Some(&first)).await.unwrap();
        let taken = run(&elsewhere.store, &rig.target().await, "h", &mut |_| {}).await.unwrap();
        assert!(taken.is_whole(), "{taken:?}");
        let again = Elsewhere::new().await;
        again.restore(&rig.target().await, None).await.unwrap();
        assert_eq!(seen(&again.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
    }
}
