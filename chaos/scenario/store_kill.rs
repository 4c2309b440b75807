//! Kill -9 against the store: a child writes, the parent kills it at a random moment, opens what is left and compares it with
//! what the child had acknowledged.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use posthouse_mail::{AccountId, MailboxId, Uid};
use posthouse_storage::check::Remedy;
use posthouse_storage::{Store, check, message};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::store_load::{ACCOUNTS, make_accounts, now, settings};
use crate::options::{Folder, Seed};
use crate::oracle::{Ledger, Standing};
use crate::workload;

#[derive(clap::Args)]
pub struct Args {
    /// Kills.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    #[command(flatten)]
    seed: Seed,
    /// A few rounds, for CI.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    folder: Folder,
}

/// How long a child may take to open the store.
const START_MAX: Duration = Duration::from_secs(60);
/// Messages read at once while verifying.
const PAGE: usize = 500;
/// How often a store is looked at that is too slow to be seen whole.
const LOOKS_MAX: u32 = 10;

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let rounds = if arguments.short { 8 } else { arguments.rounds };
    println!("store-kill: seed {seed}, {rounds} rounds");
    let lab = arguments.folder.lab("posthouse-store-kill")?;
    let dir = lab.path();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut verified = HashMap::new();
    for round in 0..rounds {
        // From the first octets that a start writes to a second of full load.
        let life = Duration::from_millis(random.random_range(0..1000));
        run_child(dir, (seed, round), life, &mut ledger, |child| Ok(child.kill()?))?;
        let is_last = round + 1 == rounds;
        if is_last {
            verified.clear();
        }
        let found =
            runtime.block_on(read_all(dir, &mut verified)).with_context(|| format!("round {round}, seed {seed}"))?;
        judge(&ledger, &found).with_context(|| format!("round {round}, seed {seed}"))?;
        if round % 10 == 9 && !is_last {
            println!("round {}: {:?}", round + 1, ledger.counts());
        }
    }
    let counts = ledger.counts();
    println!(
        "store-kill: {rounds} kills, {} tried, {} acknowledged, {} unanswered, {} removed; lost 0, doubled 0, damaged 0; seed {seed}",
        counts.tried, counts.acknowledged, counts.unanswered, counts.removed
    );
    Ok(())
}

/// Starts a child, lets it work, ends it, and notes all that it said until then.
pub(super) fn run_child(
    dir: &Path,
    (seed, round): (u64, u32),
    life: Duration,
    ledger: &mut Ledger,
    end: impl FnOnce(&mut Child) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("store-load").args(["--seed", &seed.to_string(), "--round", &round.to_string(), "--dir"]).arg(dir);
    let load = Load::start(command)?;
    // Some children die while they open the store, the others `life` after they are ready.
    if life > Duration::from_millis(50) {
        load.ready()?;
    }
    std::thread::sleep(life);
    for (_, line) in load.end(end)? {
        note(&line, ledger)?;
    }
    Ok(())
}

/// A load in a process of its own, and what it says.
pub(super) struct Load {
    child: Guarded,
    lines: Receiver<(Instant, String)>,
    reader: JoinHandle<()>,
}

/// Never left behind.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Load {
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = Guarded(command.stdout(Stdio::piped()).spawn()?);
        let output = child.0.stdout.take().context("the child's output is piped")?;
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|octets| octets > 0) {
                // Cut short by the kill: not said.
                if line.ends_with('\n') && sender.send((Instant::now(), line.trim_end().to_owned())).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines, reader })
    }

    /// Waits for its first line, which says that the store is open.
    pub(super) fn ready(&self) -> anyhow::Result<()> {
        self.lines.recv_timeout(START_MAX).ok().context("the child did not start")?;
        Ok(())
    }

    /// The next line that it says; `None` when it says nothing for so long, or never will again.
    pub(super) fn next(&self, wait: Duration) -> Option<(Instant, String)> {
        self.lines.recv_timeout(wait).ok()
    }

    /// What it has said by now.
    pub(super) fn drain(&self) -> Vec<String> {
        self.lines.try_iter().map(|(_, line)| line).collect()
    }

    /// What it says until a line of this kind comes, that included.
    pub(super) fn until(&self, is_wanted: impl Fn(&str) -> bool, limit: Duration) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((_, line)) = self.lines.recv_timeout(left) else {
                let last = said.iter().rev().take(8).collect::<Vec<_>>();
                bail!("the child said nothing of the kind within {limit:?}, but at last {last:?}");
            };
            let is_last = is_wanted(&line);
            said.push(line);
            if is_last {
                return Ok(said);
            }
        }
    }

    /// Ends it and returns what it said and nobody heard yet, with the time of each line.
    pub(super) fn end(
        mut self,
        end: impl FnOnce(&mut Child) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<(Instant, String)>> {
        let ended = end(&mut self.child.0);
        // Whatever became of that, no child is left behind.
        drop(self.child);
        ended?;
        self.reader.join().map_err(|_| anyhow::anyhow!("the reader of the child's output ended early"))?;
        Ok(self.lines.iter().collect())
    }
}

/// Writes down what a load said.
pub(super) fn note(line: &str, ledger: &mut Ledger) -> anyhow::Result<()> {
    match line.split_once(' ') {
        Some(("try", name)) => ledger.note(name, Standing::Tried),
        Some(("ack", name)) => ledger.note(name, Standing::Acknowledged),
        Some(("cut", name)) => ledger.note(name, Standing::Leaving),
        Some(("gone", name)) => ledger.note(name, Standing::Gone),
        Some(("fail", reason)) => bail!("the load failed by itself: {reason}"),
        _ => {}
    }
    Ok(())
}

/// Holds what was found against what was promised.
pub(super) fn judge(ledger: &Ledger, found: &HashMap<String, usize>) -> anyhow::Result<()> {
    let violations = ledger.judge(found);
    for violation in &violations {
        println!("{violation}");
    }
    ensure!(violations.is_empty(), "{} violations", violations.len());
    Ok(())
}

/// Proves every invariant of a store that nobody else writes to.
pub(super) async fn prove(store: &Store) -> anyhow::Result<()> {
    for _ in 0..LOOKS_MAX {
        let report = check::run(store, check::Options::default(), &mut |_| {}).await?;
        if report.findings.is_empty() {
            return Ok(());
        }
        // A slow store may want another look, which is no word against it.
        let is_slow = report.findings.iter().all(|finding| finding.remedy == Remedy::Again);
        ensure!(is_slow, "the checker found {:?}", report.findings);
    }
    bail!("the checker could not see all of it, however often it looked")
}

/// Names that were verified before, by their place.
pub(super) type Verified = HashMap<(AccountId, Uid), String>;

/// Opens the store and reads every message.
pub(super) async fn read_all(dir: &Path, verified: &mut Verified) -> anyhow::Result<HashMap<String, usize>> {
    let store = Store::open(dir, &settings()).await?;
    let found = read_messages(&store, verified).await?;
    // What nobody holds is freed, as a running server would.
    store.sweep(now()).await?;
    store.close().await?;
    Ok(found)
}

/// Reads every message; one that was read in an earlier round is only looked up.
pub(super) async fn read_messages(store: &Store, verified: &mut Verified) -> anyhow::Result<HashMap<String, usize>> {
    let mut found = HashMap::new();
    for (account, inbox) in make_accounts(store, ACCOUNTS).await? {
        for name in read_mailbox(store, (account, inbox), verified).await? {
            *found.entry(name).or_default() += 1;
        }
    }
    Ok(found)
}

async fn read_mailbox(
    store: &Store,
    (account, inbox): (AccountId, MailboxId),
    verified: &mut Verified,
) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut next = Some(Uid::FIRST);
    while let Some(from) = next {
        let page = message::memberships(store, account, inbox, from, PAGE).await?;
        for member in &page.messages {
            if let Some(name) = verified.get(&(account, member.uid)) {
                names.push(name.clone());
                continue;
            }
            let email = message::email(store, account, member.email).await?;
            let email =
                email.with_context(|| format!("half there: {account} has Uid {} without its email", member.uid))?;
            let raw = message::body(store, &email).await?;
            ensure!(
                raw.len() as u64 == member.size,
                "{account} Uid {}: {} octets, not {}",
                member.uid,
                raw.len(),
                member.size
            );
            let name =
                workload::verify(&raw).map_err(|reason| anyhow::anyhow!("{account} Uid {}: {reason}", member.uid))?;
            verified.insert((account, member.uid), name.clone());
            names.push(name);
        }
        next = page.next;
    }
    Ok(names)
}
