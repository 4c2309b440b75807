//! A full disk under the store: a load runs into the end of a small file system's room, again and again.
//!
//! While it is full a writer gets a temporary error within its deadline, never a permanent one and never silence; service
//! returns by itself when there is room again. In some rounds the process is killed while the disk is full, and started on
//! the full disk or when there is room again. After each round what was acknowledged is compared with what is there.
//! Needs root, for mount.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use posthouse_storage::Store;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;

use super::store_kill::{Load, Verified, judge, note, prove, read_messages};
use super::store_load::settings;
use crate::disk::{Ballast, Disk, Mounted, mount_memory};
use crate::options::{Folder, Seed};
use crate::oracle::Ledger;

#[derive(clap::Args)]
pub struct Args {
    /// Times that the disk is full.
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    #[command(flatten)]
    seed: Seed,
    /// A few rounds, for CI.
    #[arg(long)]
    short: bool,
    /// An ext4 file system on a loop device instead of one in memory.
    #[arg(long)]
    ext4: bool,
    #[command(flatten)]
    folder: Folder,
}

/// Octets of the file system.
const ROOM: u64 = 256 << 20;
/// Octets that are free again after each time.
const RELIEF: u64 = 24 << 20;
/// How long the load may take to meet the end of the room, and to be served again when there is some.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Acknowledgements between two times.
const ACKNOWLEDGED: usize = 50;

/// What happens while the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// There is room again after a while.
    Relief,
    /// The process is killed, and started when there is room again.
    Killed,
    /// The process is killed and started on the full disk.
    StartedFull,
}

const FATES: [Fate; 3] = [Fate::Relief, Fate::StartedFull, Fate::Killed];

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let rounds = if arguments.short { 3 } else { arguments.rounds };
    println!("disk-full: seed {seed}, {rounds} rounds");
    let lab = arguments.folder.temporary("posthouse-disk-full")?;
    // Declared first, so that it is detached after it is unmounted.
    let disk = if arguments.ext4 { Some(Disk::make(lab.path(), ROOM)?) } else { None };
    let mounted = disk.as_ref().map_or_else(|| mount_memory(lab.path(), ROOM), Disk::mount)?;
    let mut run = Run {
        ballast: Ballast::new(&mounted.0)?,
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        random: StdRng::seed_from_u64(seed),
        ledger: Ledger::default(),
        verified: Verified::new(),
        refusals: 0,
        pause: Duration::ZERO,
        mounted,
        seed,
    };
    for round in 0..rounds {
        run.round(round).with_context(|| format!("round {round}, seed {seed}"))?;
    }
    let counts = run.ledger.counts();
    println!(
        "disk-full: full {rounds} times, killed meanwhile in two of three; {} tried, {} acknowledged, {} unanswered, {} removed, {} \
         temporary errors; served again after {:.1} s at most; lost 0, doubled 0, damaged 0, half 0; seed {seed}",
        counts.tried,
        counts.acknowledged,
        counts.unanswered,
        counts.removed,
        run.refusals,
        run.pause.as_secs_f64()
    );
    Ok(())
}

struct Run {
    ballast: Ballast,
    mounted: Mounted,
    runtime: Runtime,
    random: StdRng,
    seed: u64,
    ledger: Ledger,
    verified: Verified,
    /// Temporary errors that the load was told.
    refusals: usize,
    /// The longest time from room that is there again to the next acknowledgement.
    pause: Duration,
}

impl Run {
    fn round(&mut self, round: u32) -> anyhow::Result<()> {
        let mut load = self.start(round, 0)?;
        self.follow(&load, is_acknowledged)?;
        self.ballast.leave(self.random.random_range(0..3 << 20))?;
        self.follow(&load, is_full).context("the disk is full")?;
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..1500)));
        let fate = usize::try_from(round)? % FATES.len();
        match FATES[fate] {
            Fate::Relief => self.ballast.give_back(RELIEF)?,
            Fate::Killed => {
                self.end(load)?;
                self.ballast.give_back(RELIEF)?;
                load = self.start(round, 1)?;
            }
            Fate::StartedFull => {
                self.end(load)?;
                self.ballast.leave(0)?;
                load = self.start(round, 1)?;
                self.follow(&load, is_full).context("started on a full disk")?;
                std::thread::sleep(Duration::from_millis(self.random.random_range(0..1000)));
                self.ballast.give_back(RELIEF)?;
            }
        }
        let relieved = Instant::now();
        self.hear(load.drain())?;
        self.follow(&load, is_acknowledged).context("there is room again")?;
        self.pause = self.pause.max(relieved.elapsed());
        for _ in 1..ACKNOWLEDGED {
            self.follow(&load, is_acknowledged)?;
        }
        self.end(load)?;
        // The load may have filled the disk once more.
        self.ballast.give_back(RELIEF)?;
        self.look(round % 5 == 4)?;
        if round % 5 == 4 {
            println!("round {}: {:?}, {} temporary errors", round + 1, self.ledger.counts(), self.refusals);
        }
        Ok(())
    }

    fn start(&self, round: u32, part: u32) -> anyhow::Result<Load> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = (round * 2 + part).to_string();
        command.args(["store-load", "--patient", "--seed", &self.seed.to_string(), "--round", &name, "--dir"]);
        command.arg(self.mounted.0.join("store"));
        Load::start(command)
    }

    /// Hears the load until a line of the kind.
    fn follow(&mut self, load: &Load, is_wanted: fn(&str) -> bool) -> anyhow::Result<()> {
        self.hear(load.until(is_wanted, WAIT_MAX)?)
    }

    fn hear(&mut self, lines: Vec<String>) -> anyhow::Result<()> {
        for line in lines {
            self.refusals += usize::from(line.starts_with("fault "));
            note(&line, &mut self.ledger)?;
        }
        Ok(())
    }

    fn end(&mut self, load: Load) -> anyhow::Result<()> {
        let said = load.end(|child| Ok(child.kill()?))?;
        self.hear(said.into_iter().map(|(_, line)| line).collect())
    }

    fn look(&mut self, whole: bool) -> anyhow::Result<()> {
        if whole {
            self.verified.clear();
        }
        let (dir, verified) = (self.mounted.0.join("store"), &mut self.verified);
        let found = self.runtime.block_on(async {
            let store = Store::open(&dir, &settings()).await?;
            let found = read_messages(&store, verified).await?;
            if whole {
                prove(&store).await?;
            }
            store.close().await?;
            anyhow::Ok(found)
        })?;
        ensure!(!found.is_empty(), "nothing is there");
        judge(&self.ledger, &found)
    }
}

fn is_acknowledged(line: &str) -> bool {
    line.starts_with("ack ")
}

fn is_full(line: &str) -> bool {
    line.starts_with("fault ") && line.contains("disk is full")
}
