//! A store in a temporary directory with one domain and its accounts: what the tests of this crate begin with.
#![allow(clippy::unwrap_used)]

pub mod objects;

use std::cell::Cell;

use bytes::Bytes;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{AccountId, Address, DomainId, FlagSet, IngestId, SpecialUse, Uid, UnixMillis};

use crate::account::{self, NewAccount};
use crate::mailbox::{self, Mailbox, NameLimits};
use crate::message::{self, Append, AppendBody, Membership, QuotaRule, Target};
use crate::shard::{Epoch, Fence, ShardId};
use crate::store::Store;
use crate::writer::Writer;
use crate::{check, domain, keys};

pub const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
pub const DOMAIN: DomainId = DomainId::new(7);
pub const ALICE: AccountId = AccountId::new(0xa11ce);
pub const LIMITS: NameLimits = NameLimits { mailboxes_max: 50, name_max: 60, depth_max: 5 };

pub struct Fixture {
    pub store: Store,
    next: Cell<u128>,
    dir: tempfile::TempDir,
}

pub fn fence(shard: ShardId) -> Fence {
    Fence { shard, epoch: Epoch::FIRST }
}

pub fn writer(account: AccountId) -> Writer {
    Writer { fence: fence(keys::account_shard(account)), account, now: NOW }
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub fn flags(texts: &[&str]) -> FlagSet {
    texts.iter().map(|text| posthouse_mail::Flag::parse(text).unwrap()).collect()
}

pub fn uids(numbers: &[u32]) -> Vec<Uid> {
    numbers.iter().map(|number| Uid::new(*number).unwrap()).collect()
}

impl Fixture {
    /// With the domain x.test and alice@x.test.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &posthouse_conf::section::storage::Storage::default()).await.unwrap();
        let domain_fence = fence(keys::domain_shard(DOMAIN));
        domain::create(&store, domain_fence, DOMAIN, &"x.test".parse().unwrap(), NOW).await.unwrap();
        let fixture = Self { store, next: Cell::new(1), dir };
        fixture.account(ALICE, "alice@x.test", None).await;
        fixture
    }

    /// The folder of the store.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// As after a restart.
    pub async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        let settings = posthouse_conf::section::storage::Storage::default();
        self.store = Store::open(self.dir.path(), &settings).await.unwrap();
    }

    pub async fn account(&self, id: AccountId, text: &str, quota_max: Option<u64>) {
        let new = NewAccount { address: address(text), password_hash: None, quota_max, admin: false, disabled: false };
        account::create(&self.store, &writer(id), fence(keys::domain_shard(DOMAIN)), &new).await.unwrap();
    }

    /// A request id that was not used before.
    pub fn request(&self) -> IngestId {
        self.next.set(self.next.get() + 1);
        IngestId::from_parts(NOW.0, self.next.get())
    }

    /// A message of so many octets for a mailbox.
    pub async fn message(&self, target: Target, octets: usize) -> Append {
        let request = self.request();
        let mut body = self.store.body_writer();
        let text = format!("{request:>12}");
        let filled = text.bytes().cycle().take(octets).collect::<Vec<u8>>();
        body.write(&filled).await.unwrap();
        Append {
            request,
            item: 0,
            target,
            flags: FlagSet::new(),
            received_at: NOW,
            prefix: Bytes::new(),
            body: AppendBody::Staged(body.finish().await.unwrap()),
            structure: MessageStructure::default(),
            quota: QuotaRule::Enforce,
        }
    }

    pub async fn append(&self, item: &Append) -> Result<posthouse_mail::stage::StoredMessage, crate::Error> {
        message::append(&self.store, &writer(ALICE), std::slice::from_ref(item)).await.unwrap().remove(0)
    }

    /// Fills INBOX with so many small messages.
    pub async fn fill(&self, count: usize) {
        let mut batch = Vec::new();
        let first = self.message(Target::Role(SpecialUse::Inbox), 100).await;
        for _ in 0..count {
            batch.push(Append { request: self.request(), ..first.clone() });
        }
        for part in batch.chunks(100) {
            let stored = message::append(&self.store, &writer(ALICE), part).await.unwrap();
            assert!(stored.iter().all(Result::is_ok));
        }
    }

    pub async fn mailbox(&self, path: &str) -> Mailbox {
        mailbox::by_path(&self.store, ALICE, path).await.unwrap().unwrap()
    }

    pub async fn create(&self, path: &str) -> Result<mailbox::Changed, crate::Error> {
        let request = mailbox::Create { request: self.request(), path: path.to_owned(), role: None, limits: LIMITS };
        mailbox::create(&self.store, &writer(ALICE), &request).await
    }

    pub async fn messages(&self, path: &str) -> Vec<Membership> {
        let id = self.mailbox(path).await.id;
        message::memberships(&self.store, ALICE, id, Uid::FIRST, usize::MAX).await.unwrap().messages
    }

    /// Proves every invariant of the store.
    pub async fn assert_whole(&self) {
        for _ in 0..20 {
            let report = check::run(&self.store, check::Options::default(), &mut |_| {}).await.unwrap();
            if report.findings.is_empty() {
                return;
            }
            // On a slow machine what is written meanwhile may want another look, which is no word against the store.
            let is_slow = report.findings.iter().all(|finding| finding.remedy == check::Remedy::Again);
            assert!(is_slow, "{:?}", report.findings);
        }
        panic!("the checker could not see all of it, however often it looked");
    }
}
