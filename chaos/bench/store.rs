//! Deliveries per second of the store alone, through the same append that a mailbox actor calls, beside what the disk can do
//! at best and what plain Maildir files reach in the same run.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{AccountId, FlagSet, MailboxId};
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_storage::{Store, message};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::options::Folder;
use crate::scenario::store_load::{make_accounts, now, request_id, stage, writer};
use crate::workload;

#[derive(clap::Args)]
pub struct Args {
    /// Octets of a body.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Callers at once, one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    callers: Vec<usize>,
    /// Milliseconds of one run.
    #[arg(long, default_value_t = 3000)]
    millis: u64,
    #[command(flatten)]
    folder: Folder,
}

/// Accounts that deliveries spread over.
const ACCOUNTS: u64 = 256;
/// Bodies made beforehand, so that making them costs nothing while the clock runs.
const BODIES: usize = 4000;
const AUTHOR: &str = "load@example.org";
/// Deliveries that wait for a hot account.
const INBOX: usize = 1024;

struct Bench {
    store: Store,
    inboxes: Vec<(AccountId, MailboxId)>,
    bodies: Vec<Vec<u8>>,
    taken: AtomicUsize,
    millis: u64,
    merge_max: usize,
}

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let lab = arguments.folder.temporary("posthouse-store-bench")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "bodies of {} octets, {} ms a run; per second, and milliseconds at the median and the 99th percentile",
        arguments.size, arguments.millis
    );
    println!("{:<28} {:>8} {:>10} {:>8} {:>8}", "what", "callers", "per second", "p50", "p99");
    let life = Duration::from_millis(arguments.millis);
    report("append + fdatasync, one file", 1, &raw_syncs(lab.path(), arguments.size, life)?, life);
    for callers in &arguments.callers {
        report(
            "maildir files",
            *callers,
            &maildir(&lab.path().join(format!("maildir{callers}")), *callers, arguments)?,
            life,
        );
    }
    let bench = runtime.block_on(Bench::open(lab.path(), arguments))?;
    let bench: &'static Bench = Box::leak(Box::new(bench));
    for callers in &arguments.callers {
        report("store, distinct accounts", *callers, &runtime.block_on(bench.distinct(*callers)), life);
    }
    for callers in &arguments.callers {
        report("store, one hot account", *callers, &runtime.block_on(bench.hot(*callers)), life);
    }
    runtime.block_on(bench.store.close())?;
    Ok(())
}

fn report(what: &str, callers: usize, times: &[Duration], life: Duration) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let rate = times.len() as f64 / life.as_secs_f64();
    println!("{what:<28} {callers:>8} {rate:>10.0} {:>8.2} {:>8.2}", at(50), at(99));
}

/// The limit that one file sets.
fn raw_syncs(dir: &Path, size: usize, life: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::create(dir.join("raw"))?;
    let octets = vec![b'x'; size];
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < life {
        let began = Instant::now();
        file.write_all(&octets)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Write, sync, rename, sync the directory: what a delivery into plain files costs.
fn maildir(dir: &Path, callers: usize, arguments: &Args) -> anyhow::Result<Vec<Duration>> {
    let life = Duration::from_millis(arguments.millis);
    let body = workload::body(&mut StdRng::seed_from_u64(1), arguments.size, AUTHOR);
    let stop = AtomicBool::new(false);
    let work = |caller: usize| -> anyhow::Result<Vec<Duration>> {
        let [temporary, new] = ["tmp", "new"].map(|name| dir.join(caller.to_string()).join(name));
        fs::create_dir_all(&temporary)?;
        fs::create_dir_all(&new)?;
        let new_dir = File::open(&new)?;
        let mut times = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            let name = number.to_string();
            let mut file = File::create(temporary.join(&name))?;
            file.write_all(&body)?;
            file.sync_all()?;
            fs::rename(temporary.join(&name), new.join(&name))?;
            new_dir.sync_all()?;
            times.push(began.elapsed());
        }
        Ok(times)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || work(caller))).collect();
        std::thread::sleep(life);
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a writer ended early"))??);
        }
        Ok(all)
    })
}

/// A delivery, and whom to tell that it is durable.
type Delivery = (Append, oneshot::Sender<()>);

/// The one writer of an account, as a mailbox actor is it: one transaction at a time, into which goes what waits. It ends with
/// the last sender.
pub(super) fn one_writer(
    store: &Store,
    account: AccountId,
    merge_max: usize,
) -> (mpsc::Sender<Delivery>, JoinHandle<anyhow::Result<()>>) {
    let (sender, mut inbox_queue) = mpsc::channel::<Delivery>(INBOX);
    let store = store.clone();
    let owner = tokio::spawn(async move {
        let mut waiting = Vec::new();
        while inbox_queue.recv_many(&mut waiting, merge_max).await > 0 {
            let (batch, answers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
            for stored in message::append(&store, &writer(&store, account), &batch).await? {
                stored?;
            }
            for answer in answers {
                let _ = answer.send(());
            }
        }
        Ok(())
    });
    (sender, owner)
}

/// Hands a delivery to the writer and waits until it is durable.
pub(super) async fn deliver(writer: &mpsc::Sender<Delivery>, append: Append) -> anyhow::Result<()> {
    let (answer, done) = oneshot::channel();
    writer.send((append, answer)).await.ok().context("the writer is gone")?;
    done.await.context("the writer is gone")
}

impl Bench {
    async fn open(dir: &Path, arguments: &Args) -> anyhow::Result<Self> {
        let settings = posthouse_conf::Storage::default();
        let store = Store::open(&dir.join("store"), &settings).await?;
        let inboxes = make_accounts(&store, ACCOUNTS).await?;
        let mut random = StdRng::seed_from_u64(1);
        let bodies = (0..BODIES).map(|_| workload::body(&mut random, arguments.size, AUTHOR)).collect();
        let merge_max = posthouse_conf::Mailbox::default().merge_max;
        Ok(Self { store, inboxes, bodies, taken: AtomicUsize::new(0), millis: arguments.millis, merge_max })
    }

    /// A body that is not in the store yet, staged.
    async fn next(&self, inbox: MailboxId, random: &mut StdRng) -> Append {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let mut body = self.bodies[number % self.bodies.len()].clone();
        body.extend_from_slice(number.to_string().as_bytes());
        let staged = stage(&self.store, &body).await.expect("a bench has room");
        Append {
            request: request_id(random),
            item: 0,
            target: Target::Mailbox(inbox),
            flags: FlagSet::new(),
            received_at: now(),
            prefix: b"Received: from load by bench; Thu, 1 Jan 1970 00:00:00 +0000\r\n".as_slice().into(),
            body: AppendBody::Staged(staged),
            structure: MessageStructure::default(),
            quota: QuotaRule::Enforce,
        }
    }

    /// Every caller delivers into accounts that nobody else uses meanwhile.
    async fn distinct(&'static self, callers: usize) -> Vec<Duration> {
        self.drive(callers, move |caller, random| {
            let mine = self.inboxes.len() / callers;
            let place = caller * mine + random.random_range(0..mine);
            let (account, inbox) = self.inboxes[place];
            let mut random = StdRng::from_rng(random);
            async move {
                let append = self.next(inbox, &mut random).await;
                let stored = message::append(&self.store, &writer(&self.store, account), &[append]).await;
                stored.expect("a bench has room");
            }
        })
        .await
    }

    /// Every caller delivers into one account, whose one writer merges what waits.
    async fn hot(&'static self, callers: usize) -> Vec<Duration> {
        let (account, inbox) = self.inboxes[0];
        let (sender, owner) = one_writer(&self.store, account, self.merge_max);
        let times = self
            .drive(callers, move |_, random| {
                let mut random = StdRng::from_rng(random);
                let sender = sender.clone();
                async move {
                    let append = self.next(inbox, &mut random).await;
                    deliver(&sender, append).await.expect("the owner lives");
                }
            })
            .await;
        owner.await.expect("the owner lives").expect("a bench has room");
        times
    }

    /// Runs callers for the time of a run and returns how long each delivery took.
    async fn drive<F, W>(&'static self, callers: usize, work: F) -> Vec<Duration>
    where
        F: Fn(usize, &mut StdRng) -> W + Send + Clone + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let end = Instant::now() + Duration::from_millis(self.millis);
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let work = work.clone();
                tokio::spawn(async move {
                    let mut random = StdRng::seed_from_u64(rand::random());
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        let began = Instant::now();
                        work(caller, &mut random).await;
                        times.push(began.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a caller lives"));
        }
        all
    }
}
