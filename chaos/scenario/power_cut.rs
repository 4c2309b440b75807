//! Power cuts against the store: a file system of its own is shut down under a child that writes, without a flush of what it
//! holds in memory, in half of the rounds after some of the newest pages went to the disk out of order.
//!
//! Needs root, a loop device, mkfs.ext4 and xfs_io (package xfsprogs). The child is stopped before the cut, so that what it
//! had said by then is known; what the file system had not made durable is gone afterwards, as with a machine's power.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::store_kill::{judge, read_all, run_child};
use crate::disk::{Disk, tool};
use crate::options::{Folder, Seed};
use crate::oracle::Ledger;

#[derive(clap::Args)]
pub struct Args {
    /// Cuts.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    folder: Folder,
}

const IMAGE: u64 = 2 << 30;
const PAGE: u64 = 4096;
/// Files whose pages are written out of order, the newest ones.
const NEWEST: usize = 4;
/// Pages looked at in each; a journal that is written over is no longer than that.
const PAGES: u64 = 600;
/// How long a process may take to stand still.
const STOP_MAX: Duration = Duration::from_secs(10);

pub fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    println!("power-cut: seed {seed}, {} rounds", arguments.rounds);
    let lab = arguments.folder.temporary("posthouse-power-cut")?;
    let disk = Disk::make(lab.path(), IMAGE)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut verified = HashMap::new();
    for round in 0..arguments.rounds {
        let mounted = disk.mount()?;
        let store = mounted.0.join("store");
        let life = Duration::from_millis(random.random_range(60..1500));
        let is_torn = round % 2 == 1;
        run_child(&store, (seed, round), life, &mut ledger, |child| cut(child, &mounted.0, is_torn, &mut random))?;
        drop(mounted);
        let mounted = disk.mount()?;
        let store = mounted.0.join("store");
        if round + 1 == arguments.rounds {
            verified.clear();
        }
        let found = runtime.block_on(read_all(&store, &mut verified));
        let found = found.with_context(|| format!("round {round}, seed {seed}"))?;
        judge(&ledger, &found).with_context(|| format!("round {round}, seed {seed}"))?;
        if round % 10 == 9 {
            println!("round {}: {:?}", round + 1, ledger.counts());
        }
    }
    let counts = ledger.counts();
    println!(
        "power-cut: {} cuts, half of them with torn pages, {} tried, {} acknowledged, {} unanswered, {} removed; \
         lost 0, doubled 0, damaged 0; seed {seed}",
        arguments.rounds, counts.tried, counts.acknowledged, counts.unanswered, counts.removed
    );
    Ok(())
}

/// Stops the child, lets some pages of the newest files reach the disk where the round says so, and shuts the file system
/// down with the rest unwritten.
fn cut(child: &mut Child, mount: &Path, is_torn: bool, random: &mut StdRng) -> anyhow::Result<()> {
    stop(child.id())?;
    if is_torn {
        for file in newest(&mount.join("store"))? {
            write_some_pages(&file, random)?;
        }
    }
    tool("xfs_io", &["-x", "-c", "shutdown", &mount.to_string_lossy()])?;
    Ok(())
}

/// Stops a process and waits until each of its threads stands still: the signal reaches one of them first, and on a busy machine
/// the others run on for a while.
fn stop(process: u32) -> anyhow::Result<()> {
    tool("kill", &["-STOP", &process.to_string()])?;
    let until = Instant::now() + STOP_MAX;
    while !is_stopped(process)? {
        ensure!(Instant::now() < until, "the child does not stand still");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn is_stopped(process: u32) -> anyhow::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // One that has ended meanwhile does no harm.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        // The name may hold anything, so that the state is looked for behind its end.
        if !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z', 'X'])) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes back a random half of a file's last pages; clean ones cost nothing.
fn write_some_pages(file: &Path, random: &mut StdRng) -> anyhow::Result<()> {
    let pages = fs::metadata(file)?.len().div_ceil(PAGE);
    let mut arguments: Vec<String> = Vec::new();
    for page in pages.saturating_sub(PAGES)..pages {
        if random.random() {
            arguments.extend(["-c".to_owned(), format!("sync_range -w {} {PAGE}", page * PAGE)]);
        }
    }
    if arguments.is_empty() {
        return Ok(());
    }
    let file = file.to_string_lossy().into_owned();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([file.as_str()]).collect();
    tool("xfs_io", &arguments)?;
    Ok(())
}

/// Some of the files written last.
fn newest(store: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for dir in [store.to_owned(), store.join("segments")] {
        // Neither is there when the cut comes early.
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_file() {
                files.push((meta.modified()?, entry.path()));
            }
        }
    }
    files.sort();
    Ok(files.into_iter().rev().take(NEWEST).map(|(_, path)| path).collect())
}
