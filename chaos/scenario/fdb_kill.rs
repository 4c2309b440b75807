//! Kill -9 against FoundationDB's own servers: three of them keep each row twice, a child writes mail through the engine, and one
//! server after the other is killed and started again under it.
//!
//! After every ten kills the child is killed too; then what it had acknowledged is compared with what is there, and the
//! checker proves that nothing is there by half.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use posthouse_storage::Store;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::store_kill::{Load, Verified, note, prove, read_messages};
use super::store_load::cluster_settings;
use crate::foundationdb::{self, Cluster};
use crate::options::Seed;
use crate::oracle::Ledger;

#[derive(clap::Args)]
pub struct Args {
    /// Kills of a server.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    #[command(flatten)]
    seed: Seed,
}

/// Kills before what is there is read.
const KILLS_PER_ROUND: u32 = 10;
const SERVERS: usize = 3;
/// How long the cluster may take until it serves again, and until it can lose a server again.
const HEAL_MAX: Duration = Duration::from_secs(180);

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let version = foundationdb::version()?;
    println!("fdb-kill: seed {seed}, {} kills of {version}", arguments.kills);
    let mut cluster = Cluster::start(SERVERS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut tally, mut verified) = (Tally::default(), Verified::new());
    let mut done = 0;
    while done < arguments.kills {
        let kills = KILLS_PER_ROUND.min(arguments.kills - done);
        tally.round(&mut cluster, (seed, done), kills, &mut random)?;
        done += kills;
        if done == arguments.kills {
            // In the end everything is read once more.
            verified.clear();
        }
        let begun = Instant::now();
        runtime.block_on(judge(&cluster.cluster_file(), &tally.ledger, &mut verified))?;
        println!(
            "after {done} kills: {:?}, {} there; judged in {:.1} s",
            tally.ledger.counts(),
            verified.len(),
            begun.elapsed().as_secs_f64()
        );
    }
    let counts = tally.ledger.counts();
    println!(
        "fdb-kill: {done} kills, {} tried, {} acknowledged, {} unanswered, {} removed; lost 0, doubled 0, damaged 0, half 0; \
         longest pause {:.1} s, {} faults told; {version}; seed {seed}",
        counts.tried,
        counts.acknowledged,
        counts.unanswered,
        counts.removed,
        tally.pause.as_secs_f64(),
        tally.faults
    );
    Ok(())
}

/// What the children said, over all rounds.
#[derive(Default)]
struct Tally {
    ledger: Ledger,
    /// The latest acknowledgement.
    last: Option<Instant>,
    /// The longest time without an acknowledgement.
    pause: Duration,
    /// Errors that a caller was told.
    faults: usize,
}

impl Tally {
    fn round(
        &mut self,
        cluster: &mut Cluster,
        name: (u64, u32),
        kills: u32,
        random: &mut StdRng,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("store-load").args(["--seed", &name.0.to_string(), "--round", &name.1.to_string()]);
        command.arg("--cluster-file").arg(cluster.cluster_file()).arg("--dir").arg(node_dir(&cluster.cluster_file()));
        let load = Load::start(command)?;
        load.ready()?;
        self.last = Some(Instant::now());
        for number in 1..=kills {
            let server = random.random_range(0..SERVERS);
            std::thread::sleep(Duration::from_millis(random.random_range(200..2000)));
            cluster.kill_server(server)?;
            let killed = Instant::now();
            std::thread::sleep(Duration::from_millis(random.random_range(0..4000)));
            cluster.start_server(server)?;
            let away = killed.elapsed();
            self.hear_until_served(&load, Instant::now())?;
            let served = killed.elapsed();
            wait_until_tolerant(cluster)?;
            println!(
                "kill {}: server {server} away for {:.1} s, mail is kept after {:.1} s, all servers serve after {:.1} s; \
                 {} acknowledged, longest pause {:.1} s, {} faults told",
                name.1 + number,
                away.as_secs_f64(),
                served.as_secs_f64(),
                killed.elapsed().as_secs_f64(),
                self.ledger.counts().acknowledged,
                self.pause.as_secs_f64(),
                self.faults
            );
        }
        for line in load.end(|child| Ok(child.kill()?))? {
            self.hear(line)?;
        }
        Ok(())
    }

    /// Notes what the load says until it said after `since` that something is kept.
    fn hear_until_served(&mut self, load: &Load, since: Instant) -> anyhow::Result<()> {
        while self.last.is_none_or(|last| last < since) {
            let line = load.next(HEAL_MAX).context("nothing is acknowledged any more")?;
            self.hear(line)?;
        }
        Ok(())
    }

    fn hear(&mut self, (at, line): (Instant, String)) -> anyhow::Result<()> {
        if line.starts_with("ack ") {
            self.pause = self.pause.max(self.last.map_or(Duration::ZERO, |last| at - last));
            self.last = Some(at);
        }
        self.faults += usize::from(line.starts_with("fault "));
        note(&line, &mut self.ledger)
    }
}

/// What a node keeps beside the cluster: the key of its bodies.
fn node_dir(cluster_file: &Path) -> PathBuf {
    cluster_file.with_file_name("node")
}

/// Until all servers are back in their roles, so that any one may be lost. What the killed one had it still has: nothing is
/// waited for that has to be copied. FoundationDB looks for that only half a minute after each kill.
fn wait_until_tolerant(cluster: &Cluster) -> anyhow::Result<()> {
    let until = Instant::now() + HEAL_MAX;
    loop {
        let status = cluster.ask("status")?;
        let is_whole = |field: &str, value: &str| {
            let line = status.lines().find_map(|line| line.trim().strip_prefix(field));
            line.is_some_and(|line| line.trim_start_matches([' ', '-']) == value)
        };
        if is_whole("FoundationDB processes", "3") && is_whole("Fault Tolerance", "1 zones") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the cluster does not heal:\n{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

async fn judge(cluster_file: &Path, ledger: &Ledger, verified: &mut Verified) -> anyhow::Result<()> {
    let store = Store::open(&node_dir(cluster_file), &cluster_settings(cluster_file)?).await?;
    let found = read_messages(&store, verified).await?;
    let violations = ledger.judge(&found);
    for violation in &violations {
        println!("{violation}");
    }
    ensure!(violations.is_empty(), "{} violations", violations.len());
    prove(&store).await?;
    store.close().await?;
    Ok(())
}
