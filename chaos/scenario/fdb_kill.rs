//! Kill -9 against FoundationDB's own servers: three of them keep each row twice, a child writes mail through the engine, and one
//! server after the other is killed and started again under it.
//!
//! After every ten kills the child is killed too; then what it had acknowledged is compared with what is there, and the
//! checker proves that nothing is there by half.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use posthouse_storage::{Store, check};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::store_kill::{Load, Verified, note, read_messages};
use super::store_load::cluster_settings;
use crate::foundationdb::Cluster;
use crate::oracle::Ledger;

#[derive(clap::Args)]
pub struct Args {
    /// Kills of a server.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Repeats a run; drawn and printed when absent.
    #[arg(long)]
    seed: Option<u64>,
}

/// Kills before what is there is read.
const KILLS_PER_ROUND: u32 = 10;
const SERVERS: usize = 3;
/// How long the cluster may take until it keeps every row twice again.
const HEAL_MAX: Duration = Duration::from_secs(180);

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("fdb-kill: seed {seed}, {} kills", arguments.kills);
    let mut cluster = Cluster::start(SERVERS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let mut done = 0;
    while done < arguments.kills {
        let kills = KILLS_PER_ROUND.min(arguments.kills - done);
        tally.round(&mut cluster, (seed, done), kills, &mut random)?;
        done += kills;
        runtime.block_on(judge(&cluster.cluster_file(), &tally.ledger))?;
        let counts = tally.ledger.counts();
        println!(
            "{done} kills: {counts:?}, longest pause {:.1} s, {} faults told",
            tally.pause.as_secs_f64(),
            tally.faults
        );
    }
    println!("fdb-kill: {done} kills; lost 0, doubled 0, damaged 0, half 0; seed {seed}");
    Ok(())
}

/// What the children said, over all rounds.
#[derive(Default)]
struct Tally {
    ledger: Ledger,
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
        let begun = Instant::now();
        for _ in 0..kills {
            let server = random.random_range(0..SERVERS);
            std::thread::sleep(Duration::from_millis(random.random_range(200..2000)));
            cluster.kill_server(server)?;
            std::thread::sleep(Duration::from_millis(random.random_range(0..4000)));
            cluster.start_server(server)?;
            wait_until_healthy(cluster)?;
        }
        let mut last = begun;
        for (at, line) in load.end(|child| Ok(child.kill()?))? {
            if line.starts_with("ack ") {
                self.pause = self.pause.max(at - last);
                last = at;
            }
            self.faults += usize::from(line.starts_with("fault "));
            note(&line, &mut self.ledger)?;
        }
        ensure!(last > begun, "nothing was acknowledged");
        Ok(())
    }
}

/// What a node keeps beside the cluster: the key of its bodies.
fn node_dir(cluster_file: &Path) -> PathBuf {
    cluster_file.with_file_name("node")
}

/// Until every row is kept twice again: who kills two of three at once loses what only they had.
fn wait_until_healthy(cluster: &Cluster) -> anyhow::Result<()> {
    let until = Instant::now() + HEAL_MAX;
    loop {
        let status = cluster.ask("status")?;
        if status.contains("Replication health     - Healthy") && status.contains("FoundationDB processes - 3") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the cluster does not heal:\n{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

async fn judge(cluster_file: &Path, ledger: &Ledger) -> anyhow::Result<()> {
    let store = Store::open(&node_dir(cluster_file), &cluster_settings(cluster_file)?).await?;
    let found = read_messages(&store, &mut Verified::new()).await?;
    let violations = ledger.judge(&found);
    for violation in &violations {
        println!("{violation}");
    }
    ensure!(violations.is_empty(), "{} violations", violations.len());
    let report = check::run(&store, check::Options::default(), &mut |_| {}).await?;
    ensure!(report.findings.is_empty(), "the checker found {:?}", report.findings);
    store.close().await?;
    Ok(())
}
