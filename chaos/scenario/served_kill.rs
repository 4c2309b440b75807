//! Kill -9 against both sides of a served store: a data node, and a process that keeps mail in its store over mutual TLS.
//!
//! Each kill hits the data node, its client, or both at almost the same moment. While the data node is away its client's
//! calls wait or fail for a while, and go on by themselves when it is back. What the client was promised is then read
//! through the connection; every ten kills also from the files themselves, proved by the checker. Between, a load writes to
//! the files directly, so that bodies lie in segments which only the data node has.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use posthouse_storage::Store;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;

use super::store_kill::{Load, Verified, judge, note, prove, read_messages, run_child};
use super::store_load::settings;
use crate::options::{Folder, Program, Seed};
use crate::oracle::Ledger;
use crate::served::Site;
use crate::server::Server;

#[derive(clap::Args)]
pub struct Args {
    /// Kills.
    #[arg(long, default_value_t = 60)]
    kills: u32,
    #[command(flatten)]
    seed: Seed,
    /// A few kills, for CI.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    folder: Folder,
}

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    DataNode,
    Client,
    Both,
}

const VICTIMS: [Victim; 3] = [Victim::DataNode, Victim::Client, Victim::Both];
/// Kills after which the files themselves are looked at.
const KILLS_PER_PROOF: u32 = 10;
/// How long a client may take to be served again after the data node is back.
const RECOVER_MAX: Duration = Duration::from_secs(60);
/// How long the load writes to the files directly.
const FILL: Duration = Duration::from_millis(300);

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let kills = if arguments.short { 6 } else { arguments.kills };
    println!("served-kill: seed {seed}, {kills} kills");
    let lab = arguments.folder.lab("posthouse-served-kill")?;
    let folder = lab.path();
    let site = Site::make(folder)?;
    let mut run = Run {
        program: arguments.program.path()?,
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        random: StdRng::seed_from_u64(seed),
        ledger: Ledger::default(),
        verified: Verified::new(),
        pause: Duration::ZERO,
        loads: 0,
        site,
        seed,
    };
    run.kill_often(kills).with_context(|| format!("seed {seed}"))?;
    let counts = run.ledger.counts();
    println!(
        "served-kill: {kills} kills, a third each of the data node, its client and both; {} tried, {} acknowledged, {} unanswered, \
         {} removed; longest pause after the data node was back {:.1} s; lost 0, doubled 0, damaged 0, half 0; seed {seed}",
        counts.tried,
        counts.acknowledged,
        counts.unanswered,
        counts.removed,
        run.pause.as_secs_f64()
    );
    Ok(())
}

struct Run {
    site: Site,
    program: PathBuf,
    runtime: Runtime,
    random: StdRng,
    seed: u64,
    ledger: Ledger,
    verified: Verified,
    /// The longest time from a data node that is back to the client's next acknowledgement.
    pause: Duration,
    /// Processes that wrote so far: the names of tries begin with it.
    loads: u32,
}

impl Run {
    fn kill_often(&mut self, kills: u32) -> anyhow::Result<()> {
        self.fill()?;
        let mut node = self.site.serve(&self.program)?;
        let mut load = None;
        let mut victims = Vec::new();
        for kill in 1..=kills {
            if victims.is_empty() {
                victims.extend(VICTIMS);
                victims.shuffle(&mut self.random);
            }
            let victim = victims.pop().unwrap_or(Victim::Both);
            let client = match load.take() {
                Some(client) => client,
                None => {
                    let client = self.start_load()?;
                    // Some kills come while it opens the store, the others under load.
                    if self.random.random_ratio(3, 4) {
                        self.hear(client.until(|line| line.starts_with("ack "), RECOVER_MAX)?)?;
                    }
                    client
                }
            };
            self.pause(1500);
            match victim {
                Victim::DataNode => {
                    node.kill()?;
                    self.pause(1500);
                    node = self.site.serve(&self.program)?;
                    self.expect_service(&client)?;
                    load = Some(client);
                }
                Victim::Client => {
                    self.end(client)?;
                    self.read_as_client(false)?;
                }
                Victim::Both => {
                    node = self.kill_both(client, node)?;
                    self.read_as_client(false)?;
                }
            }
            if kill % KILLS_PER_PROOF == 0 || kill == kills {
                if let Some(client) = load.take() {
                    self.end(client)?;
                }
                node = self.prove_all(node)?;
                println!("{kill} kills: {:?}, longest pause {:.1} s", self.ledger.counts(), self.pause.as_secs_f64());
            }
        }
        node.kill()
    }

    fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..milliseconds)));
    }

    /// A load on the files themselves, while nobody serves them.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.loads += 1;
        run_child(&self.site.store(), (self.seed, self.loads), FILL, &mut self.ledger, |child| Ok(child.kill()?))
    }

    fn start_load(&mut self) -> anyhow::Result<Load> {
        self.loads += 1;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("store-load").args(["--seed", &self.seed.to_string(), "--round", &self.loads.to_string()]);
        command.arg("--server").arg(self.site.address.to_string()).arg("--dir").arg(self.site.folder());
        Load::start(command)
    }

    /// The client goes on by itself.
    fn expect_service(&mut self, client: &Load) -> anyhow::Result<()> {
        let back = Instant::now();
        // What was acknowledged before the kill may still wait to be read.
        self.hear(client.drain())?;
        self.hear(client.until(|line| line.starts_with("ack "), RECOVER_MAX)?)?;
        self.pause = self.pause.max(back.elapsed());
        Ok(())
    }

    fn end(&mut self, client: Load) -> anyhow::Result<()> {
        let said = client.end(|child| Ok(child.kill()?))?;
        self.hear(said.into_iter().map(|(_, line)| line).collect())
    }

    fn hear(&mut self, lines: Vec<String>) -> anyhow::Result<()> {
        lines.iter().try_for_each(|line| note(line, &mut self.ledger))
    }

    /// One right after the other, in either order.
    fn kill_both(&mut self, client: Load, node: Server) -> anyhow::Result<Server> {
        if self.random.random() {
            self.end(client)?;
            self.pause(30);
            node.kill()?;
        } else {
            node.kill()?;
            self.pause(30);
            self.end(client)?;
        }
        self.site.serve(&self.program)
    }

    /// Reads what is there through the connection, everything anew where `whole` says so, and proves that.
    fn read_as_client(&mut self, whole: bool) -> anyhow::Result<()> {
        if whole {
            self.verified.clear();
        }
        let (site, verified) = (&self.site, &mut self.verified);
        let found = self.runtime.block_on(async {
            let store = site.connect().await?;
            let found = read_messages(&store, verified).await?;
            if whole {
                prove(&store).await?;
            }
            store.close().await?;
            anyhow::Ok(found)
        });
        judge(&self.ledger, &found.context("through the connection")?)
    }

    /// Reads and proves everything through the connection, then from the files, in which it leaves some more.
    fn prove_all(&mut self, node: Server) -> anyhow::Result<Server> {
        self.read_as_client(true)?;
        node.kill()?;
        let (dir, verified) = (self.site.store(), &mut self.verified);
        verified.clear();
        let found = self.runtime.block_on(async {
            let store = Store::open(&dir, &settings()).await?;
            let found = read_messages(&store, verified).await?;
            prove(&store).await?;
            store.close().await?;
            anyhow::Ok(found)
        });
        judge(&self.ledger, &found.context("from the files")?)?;
        self.fill()?;
        let node = self.site.serve(&self.program)?;
        self.read_as_client(false)?;
        Ok(node)
    }
}
