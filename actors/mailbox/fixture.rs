//! A store with one account and the mailbox actors over it: what tests of this crate that need mail begin with.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use posthouse_cluster::Placement;
use posthouse_conf::Settings;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{AccountId, Address, DomainId, FlagSet, IngestId, MailboxId, SpecialUse, UnixMillis};
use posthouse_storage::account::{self, AccountChange, NewAccount};
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_storage::{Store, Writer, check, domain, keys, mailbox};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use super::{Ledger, Mailboxes, StoreLedger};
use crate::clock;
use crate::notice::Notices;

pub(crate) const ALICE: AccountId = AccountId::new(0xa11ce);
const DOMAIN: DomainId = DomainId::new(7);

pub(crate) struct Fixture<L: Ledger = StoreLedger> {
    pub(crate) store: Store,
    pub(crate) mailboxes: Mailboxes<L>,
    _dir: tempfile::TempDir,
}

/// What stands above the supervisors in a test.
struct Root;

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub(crate) async fn root() -> ActorCell {
    Actor::spawn(None, Root, ()).await.unwrap().0.get_cell()
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(&Settings::default(), |ledger| ledger).await
    }
}

impl<L: Ledger> Fixture<L> {
    /// Over a ledger made of the store's own.
    pub(crate) async fn with(settings: &Settings, make: impl FnOnce(StoreLedger) -> L) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &settings.storage).await.unwrap();
        let domain_fence = store.fence(keys::domain_shard(DOMAIN));
        domain::create(&store, domain_fence, DOMAIN, &"x.test".parse().unwrap(), clock::now()).await.unwrap();
        let new = NewAccount {
            address: Address::parse("alice@x.test").unwrap(),
            password_hash: None,
            quota_max: None,
            admin: false,
            disabled: false,
        };
        account::create(&store, &writer(&store), domain_fence, &new).await.unwrap();
        let keep = posthouse_storage::sweep::Keep {
            done: settings.storage.done_ttl.get(),
            changes: settings.storage.change_log_ttl.get(),
        };
        let ledger = make(StoreLedger { store: store.clone(), keep });
        let placement = Placement::local(store.clone());
        let mailboxes = Mailboxes::over(ledger, placement, Notices::new(), settings, root().await).await.unwrap();
        Self { store, mailboxes, _dir: dir }
    }

    pub(crate) async fn change(&self, change: AccountChange) {
        account::change(&self.store, &writer(&self.store), &change).await.unwrap();
    }

    pub(crate) async fn set_quota(&self, quota_max: Option<u64>) {
        self.change(AccountChange { quota_max: Some(quota_max), ..AccountChange::default() }).await;
    }

    pub(crate) async fn disable(&self) {
        self.change(AccountChange { enabled: Some(false), ..AccountChange::default() }).await;
    }

    pub(crate) fn request(&self) -> IngestId {
        clock::ingest_id(clock::now())
    }

    /// A message of so many octets for INBOX.
    pub(crate) async fn message(&self, octets: usize) -> Append {
        let mut body = self.store.body_writer();
        body.write(&vec![b'x'; octets]).await.unwrap();
        Append {
            request: self.request(),
            item: 0,
            target: Target::Role(SpecialUse::Inbox),
            flags: FlagSet::new(),
            received_at: UnixMillis(1_700_000_000_000),
            prefix: Bytes::new(),
            body: AppendBody::Staged(body.finish().await.unwrap()),
            structure: MessageStructure::default(),
            quota: QuotaRule::Enforce,
        }
    }

    pub(crate) async fn inbox(&self) -> mailbox::Mailbox {
        mailbox::by_path(&self.store, ALICE, "INBOX").await.unwrap().unwrap()
    }

    pub(crate) async fn mailbox(&self, path: &str) -> MailboxId {
        mailbox::by_path(&self.store, ALICE, path).await.unwrap().unwrap().id
    }

    pub(crate) async fn assert_whole(&self) {
        let report = check::run(&self.store, check::Options::default(), &mut |_| {}).await.unwrap();
        assert_eq!(report.findings, []);
    }
}

fn writer(store: &Store) -> Writer {
    Writer { fence: store.fence(keys::account_shard(ALICE)), account: ALICE, now: clock::now() }
}
