//! Mail of real sizes into the store, on a device of its own: rates beside Maildir files and the bare device, octets written
//! for each octet of mail, memory and time to open after a kill with gigabytes in it, and a long scan.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{AccountId, FlagSet, MailboxId, Uid};
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_storage::{Store, message};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::disk::Disk;
use crate::options::Folder;
use crate::scenario::store_load::{make_accounts, now, request_id, writer};
use crate::workload;

#[derive(clap::Args)]
pub struct Args {
    /// Callers at once, one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    callers: Vec<usize>,
    /// Milliseconds of one run.
    #[arg(long, default_value_t = 4000)]
    millis: u64,
    /// Runs of each, Maildir and store in turn.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Gigabytes of mail in the store that is killed.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=8))]
    gigabytes: u64,
    #[command(flatten)]
    folder: Folder,
}

#[derive(clap::Args)]
pub struct FillArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    octets: u64,
}

const ACCOUNTS: u64 = 256;
const BODIES: usize = 600;
const AUTHOR: &str = "load@example.org";
const FILL_CALLERS: usize = 16;
const SCAN_ROWS: usize = 10_000;
/// Octets handed over at once, as a session does.
const CHUNK: usize = 16 << 10;
/// Octets of the device: for the gigabytes of mail and the runs before.
const ROOM: u64 = 24 << 30;

/// Made beforehand, so that making them costs nothing while the clock runs.
type Bodies = Arc<Vec<Vec<u8>>>;

/// What callers of one run did.
#[derive(Default)]
struct Run {
    times: Vec<Duration>,
    octets: u64,
}

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let lab = arguments.folder.temporary("posthouse-mail-bench")?;
    let disk = Disk::make(lab.path(), ROOM)?;
    let mounted = disk.mount()?;
    let mail = bodies(workload::mail);
    let mean = mail.iter().map(Vec::len).sum::<usize>() / mail.len();
    println!("{} bodies of {mean} octets at the mean, {} ms a run", mail.len(), arguments.millis);
    device(&mounted.0)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{:<10} {:>8} {:>10} {:>8} {:>8} {:>10}", "what", "callers", "per second", "p50 ms", "p99 ms", "dev/mail");
    let life = Duration::from_millis(arguments.millis);
    for (round, callers) in (0..arguments.repeat).flat_map(|round| arguments.callers.iter().map(move |n| (round, *n))) {
        let folder = mounted.0.join("maildir");
        let before = disk.written()?;
        let run = maildir(&folder, callers, &mail, life)?;
        report("maildir", callers, run, disk.written()? - before, life);
        fs::remove_dir_all(&folder)?;
        let folder = mounted.0.join(format!("store{round}"));
        let before = disk.written()?;
        let run = runtime.block_on(store(&folder, callers, &mail, life))?;
        report("store", callers, run, disk.written()? - before, life);
        fs::remove_dir_all(&folder)?;
    }
    // What nothing can be made smaller of shows what is written beside the mail itself.
    let noise = bodies(workload::noise);
    for callers in &arguments.callers {
        let folder = mounted.0.join("noise");
        let before = disk.written()?;
        let run = runtime.block_on(store(&folder, *callers, &noise, life))?;
        report("noise", *callers, run, disk.written()? - before, life);
        fs::remove_dir_all(&folder)?;
    }
    kill_and_open(&mounted.0, arguments.gigabytes << 30, &disk, &runtime)
}

fn bodies(make: fn(&mut StdRng, &str) -> Vec<u8>) -> Bodies {
    let mut random = StdRng::seed_from_u64(1);
    Arc::new((0..BODIES).map(|_| make(&mut random, AUTHOR)).collect())
}

/// What the device itself can do.
fn device(mount: &Path) -> anyhow::Result<()> {
    let path = mount.join("raw");
    let mut file = File::create(&path)?;
    let (mut syncs, started) = (0, Instant::now());
    while started.elapsed() < Duration::from_secs(2) {
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        syncs += 1;
    }
    println!("device: {:.0} times a second 4 KiB + fdatasync, one file", f64::from(syncs) / 2.0);
    let (block, started) = (vec![b'x'; 1 << 20], Instant::now());
    for _ in 0..512 {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    println!("device: {:.0} MiB a second in one piece", 512.0 / started.elapsed().as_secs_f64());
    fs::remove_file(path)?;
    Ok(())
}

fn report(what: &str, callers: usize, mut run: Run, written: u64, life: Duration) {
    run.times.sort_unstable();
    let at =
        |share: usize| run.times.get(run.times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let rate = run.times.len() as f64 / life.as_secs_f64();
    let factor = written as f64 / run.octets.max(1) as f64;
    println!("{what:<10} {callers:>8} {rate:>10.0} {:>8.2} {:>8.2} {factor:>10.2}", at(50), at(99));
}

/// Write, sync, rename, sync the directory.
fn maildir(dir: &Path, callers: usize, bodies: &[Vec<u8>], life: Duration) -> anyhow::Result<Run> {
    let end = Instant::now() + life;
    let work = |caller: usize| -> anyhow::Result<Run> {
        let [temporary, new] = ["tmp", "new"].map(|name| dir.join(caller.to_string()).join(name));
        fs::create_dir_all(&temporary)?;
        fs::create_dir_all(&new)?;
        let (new_dir, mut run) = (File::open(&new)?, Run::default());
        while Instant::now() < end {
            let began = Instant::now();
            let body = &bodies[(caller * 37 + run.times.len()) % bodies.len()];
            let name = run.times.len().to_string();
            let mut file = File::create(temporary.join(&name))?;
            file.write_all(body)?;
            file.sync_all()?;
            fs::rename(temporary.join(&name), new.join(&name))?;
            new_dir.sync_all()?;
            run.times.push(began.elapsed());
            run.octets += body.len() as u64;
        }
        Ok(run)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || work(caller))).collect();
        let mut all = Run::default();
        for thread in threads {
            let run = thread.join().map_err(|_| anyhow::anyhow!("a writer ended early"))??;
            all.times.extend(run.times);
            all.octets += run.octets;
        }
        Ok(all)
    })
}

/// Deliveries into accounts that nobody else uses meanwhile; what a clean end still writes counts too.
async fn store(dir: &Path, callers: usize, bodies: &Bodies, life: Duration) -> anyhow::Result<Run> {
    let store = Store::open(dir, &posthouse_conf::Storage::default()).await?;
    let inboxes = make_accounts(&store, ACCOUNTS).await?;
    let end = Instant::now() + life;
    let run = drive(&store, callers, &inboxes, bodies, move |_| Instant::now() < end).await?;
    store.close().await?;
    Ok(run)
}

/// Callers that deliver as long as they may, each one message after the other.
async fn drive(
    store: &Store,
    callers: usize,
    inboxes: &[(AccountId, MailboxId)],
    bodies: &Bodies,
    may_go_on: impl Fn(u64) -> bool + Clone + Send + 'static,
) -> anyhow::Result<Run> {
    let numbers = Arc::new(AtomicU64::new(rand::random::<u32>().into()));
    let octets = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for inboxes in inboxes.chunks(inboxes.len() / callers).take(callers) {
        let (store, inboxes, bodies) = (store.clone(), inboxes.to_vec(), bodies.clone());
        let (numbers, octets, may_go_on) = (numbers.clone(), octets.clone(), may_go_on.clone());
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(rand::random());
            let mut times = Vec::new();
            while may_go_on(octets.load(Ordering::Relaxed)) {
                let began = Instant::now();
                let (account, inbox) = inboxes[random.random_range(0..inboxes.len())];
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let body = &bodies[usize::try_from(number)? % bodies.len()];
                // What makes it a message of its own is short, so that nothing is copied while the clock runs.
                let append = append(&store, inbox, (body, number.to_string().as_bytes()), &mut random).await?;
                octets.fetch_add(append.body.body().size, Ordering::Relaxed);
                message::append(&store, &writer(&store, account), &[append]).await?;
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(Run { times, octets: octets.load(Ordering::Relaxed) })
}

/// A message whose body is two parts, staged.
async fn append(
    store: &Store,
    inbox: MailboxId,
    (body, tail): (&[u8], &[u8]),
    random: &mut StdRng,
) -> anyhow::Result<Append> {
    let mut staged = store.body_writer();
    for chunk in body.chunks(CHUNK).chain([tail]) {
        staged.write(chunk).await?;
    }
    Ok(Append {
        request: request_id(random),
        item: 0,
        target: Target::Mailbox(inbox),
        flags: FlagSet::new(),
        received_at: now(),
        prefix: b"Received: from load by bench; Thu, 1 Jan 1970 00:00:00 +0000\r\n".as_slice().into(),
        body: AppendBody::Staged(staged.finish().await?),
        structure: MessageStructure::default(),
        quota: QuotaRule::Enforce,
    })
}

/// Fills a store in a child until it is killed, and opens what is left.
fn kill_and_open(mount: &Path, octets: u64, disk: &Disk, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let dir = mount.join("killed");
    let (before, started) = (disk.written()?, Instant::now());
    let mut child = Command::new(std::env::current_exe()?)
        .args(["mail-fill", "--octets", &octets.to_string(), "--dir"])
        .arg(&dir)
        .stdout(Stdio::null())
        .spawn()?;
    let outcome = watch(&mut child, &dir.join("filled"));
    let _ = child.kill();
    child.wait()?;
    let peak = outcome?;
    let (seconds, written) = (started.elapsed().as_secs_f64(), disk.written()? - before);
    println!(
        "filled with {:.2} GB in {seconds:.0} s at {FILL_CALLERS} callers: {:.2} octets to the device for each of mail, \
         {} MiB of memory at most, the load's own bodies included",
        octets as f64 / 1e9,
        written as f64 / octets as f64,
        peak >> 10
    );
    fs::write("/proc/sys/vm/drop_caches", "1").context("dropping the page cache")?;
    runtime.block_on(async {
        let began = Instant::now();
        let store = Store::open(&dir, &posthouse_conf::Storage::default()).await?;
        println!("opened after kill -9, cold: {:.3} s", began.elapsed().as_secs_f64());
        scan(&store).await?;
        store.close().await?;
        Ok(())
    })
}

/// The child's memory at its highest, in KiB, once it has said that it is done.
fn watch(child: &mut Child, said: &Path) -> anyhow::Result<u64> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the load ended by itself: {status}");
        }
        let fields = fs::read_to_string(&status)?;
        let resident = fields.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let resident = resident.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        peak = peak.max(resident);
        if said.exists() {
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One mailbox with many messages, listed in one piece.
async fn scan(store: &Store) -> anyhow::Result<()> {
    let inboxes = make_accounts(store, ACCOUNTS + 1).await?;
    let &(account, inbox) = inboxes.last().context("an account")?;
    let mut random = StdRng::seed_from_u64(2);
    for number in 0..SCAN_ROWS / 100 {
        let mut group = Vec::new();
        for item in 0..100 {
            let body = format!("Subject: row {number} {item}\r\n\r\ntext\r\n");
            group.push(append(store, inbox, (body.as_bytes(), &[]), &mut random).await?);
        }
        message::append(store, &writer(store, account), &group).await?;
    }
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let (mut rows, mut next) = (0, Some(Uid::FIRST));
        while let Some(from) = next {
            let page = message::memberships(store, account, inbox, from, SCAN_ROWS).await?;
            rows += page.messages.len();
            next = page.next;
        }
        anyhow::ensure!(rows == SCAN_ROWS, "{rows} rows, not {SCAN_ROWS}");
        best = best.min(began.elapsed());
    }
    println!("scan of {SCAN_ROWS} memberships, decoded: {:.2} ms", best.as_secs_f64() * 1000.0);
    Ok(())
}

/// The child: fills, says so, and waits for its end under load.
pub async fn fill(arguments: &FillArgs) -> anyhow::Result<()> {
    let store = Store::open(&arguments.dir, &posthouse_conf::Storage::default()).await?;
    let inboxes = make_accounts(&store, ACCOUNTS).await?;
    let (said, octets_max) = (arguments.dir.join("filled"), arguments.octets);
    let goes_on = move |octets| {
        if octets >= octets_max {
            // Its absence shows in the parent, which waits for it.
            let _ = fs::write(&said, "");
        }
        true
    };
    drive(&store, FILL_CALLERS, &inboxes, &bodies(workload::mail), goes_on).await?;
    Ok(())
}
