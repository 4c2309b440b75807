//! The load of store-kill, in a process of its own that expects to be killed at any instant.
//!
//! It tells its parent what it is about to do and what has been acknowledged, one line each, written before and after the
//! call: `try`, `ack`, `cut`, `gone`. One task stands for each account's mailbox actor; bodies are shared among accounts,
//! removed again and swept while others refer to the same content.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use posthouse_mail::stage::StoredMessage;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{AccountId, Address, DomainId, FlagSet, IngestId, MailboxId, SpecialUse, Uid, UnixMillis};
use posthouse_storage::account::NewAccount;
use posthouse_storage::message::{Append, AppendBody, Expunge, ExpungeWhich, QuotaRule, Target};
use posthouse_storage::{Error, StagedBody, Store, Writer, account, domain, keys, mailbox, message};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::served;
use crate::workload::{self, TRY_FIELD};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    round: u32,
    /// The FoundationDB cluster to write to, instead of a directory
    #[arg(long)]
    cluster_file: Option<PathBuf>,
    /// The data node that serves the store; the directory is then the folder of both nodes
    #[arg(long)]
    server: Option<SocketAddr>,
    /// Tells temporary errors of the store and goes on, as the mail server's clients would
    #[arg(long)]
    patient: bool,
}

pub const ACCOUNTS: u64 = 6;
const DOMAIN: DomainId = DomainId::new(1);
/// Longer than every limit of the store together: then a call hangs.
const STEP_MAX: Duration = Duration::from_secs(90);
/// What a client waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);
/// Bodies that others may send too.
const SHARED_MAX: usize = 24;

pub fn settings() -> posthouse_conf::Storage {
    // Small segments and a small journal, so that every run rolls over, unlinks some and takes much into the index.
    posthouse_conf::Storage {
        segment_max: posthouse_conf::Size::mib(2),
        journal_max: posthouse_conf::Size::kib(256),
        checkpoint_interval: posthouse_conf::Span::ms(300),
        // Segments are emptied as fast as they can be.
        background_rate: posthouse_conf::Size::mib(1 << 10),
        ..posthouse_conf::Storage::default()
    }
}

/// The store in a FoundationDB cluster.
pub fn cluster_settings(cluster_file: &Path) -> anyhow::Result<posthouse_conf::Storage> {
    let foundationdb = posthouse_conf::storage::FoundationDb {
        cluster_file: cluster_file.to_owned(),
        library: crate::foundationdb::client_library()?,
        ..Default::default()
    };
    Ok(posthouse_conf::Storage {
        engine: posthouse_conf::storage::Engine::FoundationDb,
        foundationdb,
        // Bodies are freed under the others' feet, and so are stages of a load that was killed, long after it.
        blob_retention: posthouse_conf::Span::ms(500),
        staged_ttl: posthouse_conf::Span::secs(60),
        // Each load and each judge waits so long for the heart of the load that was killed.
        owner_lease: posthouse_conf::Span::secs(4),
        ..Default::default()
    })
}

pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub fn request_id(random: &mut impl rand::Rng) -> IngestId {
    IngestId::from_parts(now().0, random.random())
}

pub fn writer(store: &Store, account: AccountId) -> Writer {
    Writer { fence: store.fence(keys::account_shard(account)), account, now: now() }
}

/// Makes the accounts `1..=count`, unless they exist, and returns their inboxes.
pub async fn make_accounts(store: &Store, count: u64) -> anyhow::Result<Vec<(AccountId, MailboxId)>> {
    let name = "load.test".parse()?;
    let fence = store.fence(keys::domain_shard(DOMAIN));
    domain::create(store, fence, DOMAIN, &name, now()).await?;
    let mut inboxes = Vec::new();
    for id in (1..=count).map(AccountId::new) {
        let address = Address::parse(&format!("user{}@load.test", id.get()))?;
        let new = NewAccount { address, password_hash: None, quota_max: None, admin: false, disabled: false };
        account::create(store, &writer(store, id), fence, &new).await?;
        let inbox = mailbox::by_role(store, id, SpecialUse::Inbox).await?.context("every account has an inbox")?;
        inboxes.push((id, inbox.id));
    }
    Ok(inboxes)
}

pub async fn stage(store: &Store, body: &[u8]) -> Result<StagedBody, Error> {
    let mut writer = store.body_writer();
    for chunk in body.chunks(16 << 10) {
        writer.write(chunk).await?;
    }
    writer.finish().await
}

/// Runs until it is killed.
pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let is_cluster = arguments.cluster_file.is_some();
        let faults = if arguments.is_patient() { Faults::Pass } else { Faults::Fail };
        let (store, inboxes) = open(arguments, faults).await?;
        say("ready");
        let shared = Arc::new(Mutex::new(Vec::new()));
        for (account, inbox) in inboxes {
            let seed = arguments.seed ^ (u64::from(arguments.round) << 32) ^ (account.get() << 56);
            let owner = Owner {
                store: store.clone(),
                account,
                inbox,
                round: arguments.round,
                shared: shared.clone(),
                random: StdRng::seed_from_u64(seed),
                tries: 0,
                kept: Vec::new(),
                // A cluster is judged message by message over its connections.
                kept_max: if is_cluster { 100 } else { usize::MAX },
                faults,
            };
            tokio::spawn(owner.work());
        }
        loop {
            // As if days had passed, so that released bodies are freed under the others' feet. In a cluster that would take
            // the stages of bodies that are just being written.
            let later = UnixMillis(now().0 + if is_cluster { 0 } else { 3 * 24 * 3_600_000 });
            let swept = async {
                store.sweep(later).await?;
                store.rewrite_segments().await
            };
            match swept.await {
                Err(error) if faults == Faults::Pass && error.failure().try_again => {}
                outcome => drop(outcome?),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

impl Args {
    /// A cluster that loses a server may be away for some seconds, and so may a data node; a local store may not.
    fn is_patient(&self) -> bool {
        self.patient || self.cluster_file.is_some() || self.server.is_some()
    }
}

/// Opens the store, as often as that takes: a patient load is its own supervisor.
async fn open(arguments: &Args, faults: Faults) -> anyhow::Result<(Store, Vec<(AccountId, MailboxId)>)> {
    loop {
        let opened = async {
            let store = match (&arguments.server, &arguments.cluster_file) {
                (Some(server), _) => served::connect_store(&arguments.dir, *server).await?,
                (None, Some(cluster)) => Store::open(&arguments.dir, &cluster_settings(cluster)?).await?,
                (None, None) => Store::open(&arguments.dir, &settings()).await?,
            };
            let made = make_accounts(&store, ACCOUNTS).await;
            if made.is_err() {
                // The directory is free for the next try.
                store.close().await?;
            }
            Ok((store, made?))
        };
        match opened.await {
            Err(error) if faults.pass(&error) => say(&format!("fault {error:#}")),
            opened => return opened,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One line in one write: the parent reads whole lines or none.
fn say(line: &str) {
    let line = format!("{line}\n");
    let said = std::io::stdout().lock().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush());
    if said.is_err() {
        // A parent that is gone has no use for us either.
        std::process::exit(1);
    }
}

/// The one writer of an account.
struct Owner {
    store: Store,
    account: AccountId,
    inbox: MailboxId,
    round: u32,
    shared: Arc<Mutex<Vec<StagedBody>>>,
    random: StdRng,
    tries: u32,
    kept: Vec<(Uid, String)>,
    /// Above this more is removed than delivered.
    kept_max: usize,
    faults: Faults,
}

/// What temporary errors of the store mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// The step has no answer, the load goes on.
    Pass,
    Fail,
}

impl Faults {
    fn pass(self, error: &anyhow::Error) -> bool {
        let cause = error.downcast_ref::<Error>();
        self == Self::Pass && cause.is_some_and(|error| error.failure().try_again)
    }
}

impl Owner {
    async fn work(mut self) {
        loop {
            let is_removal = match self.random.random_range(0..6) {
                0 => true,
                1 | 2 => self.kept.len() > self.kept_max,
                _ => false,
            };
            let step = async {
                match is_removal {
                    true => self.remove_some().await,
                    false => self.deliver_some().await,
                }
            };
            let step = tokio::time::timeout(STEP_MAX, step).await;
            match step.unwrap_or_else(|_| Err(anyhow::anyhow!("a call had no answer after {STEP_MAX:?}"))) {
                Err(error) if self.faults.pass(&error) => {
                    say(&format!("fault {error:#}"));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    say(&format!("fail {error:#}"));
                    return;
                }
                Ok(()) => {}
            }
        }
    }

    async fn deliver_some(&mut self) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut names = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let name = format!("r{}-{}-{}", self.round, self.account, self.tries);
            self.tries += 1;
            batch.push(self.append(&name).await?);
            say(&format!("try {name}"));
            names.push(name);
        }
        let writer = writer(&self.store, self.account);
        let stored = message::append(&self.store, &writer, &batch).await;
        // A shared body may have been swept since: the whole transaction is refused, nothing is promised.
        let stored: Vec<Result<StoredMessage, Error>> = match stored {
            Err(Error::NotFound) => return Ok(()),
            stored => stored?,
        };
        for (name, stored) in names.into_iter().zip(stored) {
            match stored {
                Ok(stored) => {
                    say(&format!("ack {name}"));
                    self.kept.push((stored.uid, name));
                }
                Err(Error::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn append(&mut self, name: &str) -> anyhow::Result<Append> {
        let body = match self.shared_body() {
            // A body that somebody staged, or that is only known by its name.
            Some(staged) if self.random.random_ratio(1, 2) => AppendBody::Held(staged.body),
            Some(staged) => AppendBody::Staged(staged),
            None => {
                let size = workload::size(&mut self.random);
                let staged = stage(&self.store, &workload::body(&mut self.random, size, "load@example.org")).await?;
                self.share(staged.clone());
                AppendBody::Staged(staged)
            }
        };
        Ok(Append {
            request: request_id(&mut self.random),
            item: 0,
            target: Target::Mailbox(self.inbox),
            flags: FlagSet::new(),
            received_at: now(),
            prefix: format!("{TRY_FIELD}{name}\r\n").into_bytes().into(),
            body,
            structure: MessageStructure::default(),
            quota: QuotaRule::Enforce,
        })
    }

    fn shared_body(&mut self) -> Option<StagedBody> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.random.random_range(0..SHARED_MAX * 4);
        shared.get(wanted).cloned()
    }

    fn share(&mut self, staged: StagedBody) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.random.random_range(0..SHARED_MAX);
        match shared.get_mut(place) {
            Some(old) => *old = staged,
            None => shared.push(staged),
        }
    }

    async fn remove_some(&mut self) -> anyhow::Result<()> {
        let mut leaving = Vec::new();
        let most = if self.kept.len() > self.kept_max { 20 } else { 4 };
        for _ in 0..self.random.random_range(1..most) {
            if !self.kept.is_empty() {
                leaving.push(self.kept.swap_remove(self.random.random_range(0..self.kept.len())));
            }
        }
        leaving.iter().for_each(|(_, name)| say(&format!("cut {name}")));
        let request = Expunge {
            request: request_id(&mut self.random),
            mailbox: self.inbox,
            uids: leaving.iter().map(|(uid, _)| *uid).collect(),
            which: ExpungeWhich::All,
        };
        message::expunge(&self.store, &writer(&self.store, self.account), &request).await?;
        leaving.iter().for_each(|(_, name)| say(&format!("gone {name}")));
        Ok(())
    }
}
