//! A random mutator against `check --store`: it changes rows and body frames of a store that a workload filled, and knows
//! nothing of what the checker looks at.
//!
//! Each round works on a copy: one change past all seals, then the checker must say so. A change that it does not find
//! counts as missed unless the store, read through its own functions, is the same as before and no row tells otherwise: a
//! counter of zero that is absent, octets of a segment that no body uses. Then the store is repaired: what the checker said
//! can be mended must be, and no message whose body is there may be gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use posthouse_mail::structure::MessageStructure;
use posthouse_storage::check::{self, Options, Remedy};
use posthouse_storage::{RangeRequest, Store, keys, repair};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::check_fill;
use super::store_load::{now, settings};
use crate::options::Seed;

#[derive(clap::Args)]
pub struct Args {
    /// Changes.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    #[command(flatten)]
    seed: Seed,
    /// A few rounds, for CI.
    #[arg(long)]
    short: bool,
}

type Row = (Vec<u8>, Vec<u8>);

/// One change, as it is to be made.
enum Change {
    /// What lies under these keys afterwards; `None`: nothing.
    Rows { kind: &'static str, rows: Vec<(Vec<u8>, Option<Vec<u8>>)> },
    /// Octets of a file, from an offset on.
    File { kind: &'static str, path: PathBuf, offset: usize, octets: Vec<u8> },
    /// A file cut short.
    Cut { path: PathBuf, length: usize },
}

/// What came of the changes of one kind.
#[derive(Default)]
struct Tally {
    made: u32,
    found: u32,
    /// Whole after the repair.
    mended: u32,
    harmless: u32,
}

pub async fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let rounds = if arguments.short { 40 } else { arguments.rounds };
    println!("check-mutate: seed {seed}, {rounds} rounds");
    let mut random = StdRng::seed_from_u64(seed);
    let base = tempfile::Builder::new().prefix("posthouse-check").tempdir()?;
    let sound = base.path().join("sound");
    let store = Store::open(&sound, &settings()).await?;
    check_fill::fill(&store, &mut random).await?;
    let rows = rows(&store).await?;
    let content = check_fill::content(&store).await?;
    let report = check::run(&store, Options::default(), &mut |_| {}).await?;
    ensure!(report.is_whole(), "the workload left a store that is not whole: {:?}", report.findings);
    store.close().await?;
    drop(store);
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut missed = Vec::new();
    for round in 0..rounds {
        let dir = base.path().join("hurt");
        copy_dir(&sound, &dir)?;
        let change = draw(&rows, &dir, &mut random).with_context(|| format!("round {round}, seed {seed}"))?;
        let tally = tallies.entry(change.class()).or_default();
        tally.made += 1;
        let told = change.describe();
        match examine(&dir, &change, &content).await.with_context(|| format!("round {round}, seed {seed}: {told}"))? {
            Outcome::Found { mended } => {
                tally.found += 1;
                tally.mended += u32::from(mended);
            }
            Outcome::Harmless => tally.harmless += 1,
            Outcome::Missed => missed.push(told),
        }
        std::fs::remove_dir_all(&dir)?;
    }
    println!("{:<24} {:>6} {:>6} {:>6} {:>9}", "change", "made", "found", "mended", "no effect");
    for (class, Tally { made, found, mended, harmless }) in &tallies {
        println!("{class:<24} {made:>6} {found:>6} {mended:>6} {harmless:>9}");
    }
    ensure!(missed.is_empty(), "seed {seed}: {} changes were not found:\n{}", missed.len(), missed.join("\n"));
    println!("every change with an effect was found");
    Ok(())
}

enum Outcome {
    Found { mended: bool },
    Harmless,
    Missed,
}

/// Makes the change and asks the checker.
async fn examine(dir: &Path, change: &Change, content: &check_fill::Content) -> anyhow::Result<Outcome> {
    change.to_files()?;
    let store = match Store::open(dir, &settings()).await {
        Ok(store) => store,
        // A store that says what is wrong with it and does not open is found to be damaged.
        Err(_) => return Ok(Outcome::Found { mended: false }),
    };
    change.to_rows(&store).await?;
    let report = check::run(&store, Options::default(), &mut |_| {}).await?;
    let outcome = match report.is_whole() {
        false => Outcome::Found { mended: repair(&store, content).await? },
        true if change.may_be_harmless() && check_fill::content(&store).await? == *content => Outcome::Harmless,
        true => Outcome::Missed,
    };
    store.close().await?;
    Ok(outcome)
}

/// Whether the store is whole after a repair. What is left must be what the checker said only a backup has.
async fn repair(store: &Store, content: &check_fill::Content) -> anyhow::Result<bool> {
    let outcome = repair::run(store, now(), &|_| MessageStructure::default(), &mut |_| {}).await?;
    let report = check::run(store, Options::default(), &mut |_| {}).await?;
    let left = report.findings.iter().find(|finding| finding.remedy != Remedy::Restore);
    ensure!(left.is_none(), "a repair left what it should mend: {left:?} after {:?}", outcome.mended);
    if report.is_whole() {
        let (before, after) = (check_fill::bodies(content), check_fill::bodies(&check_fill::content(store).await?));
        let lost = before.iter().find(|(body, count)| after.get(*body).is_none_or(|present| present < count));
        ensure!(lost.is_none(), "the store is whole, but a repair lost mail: {:?}", outcome.mended);
    }
    Ok(report.is_whole())
}

/// Every row as it lies in the engine.
async fn rows(store: &Store) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut begin = Vec::new();
    loop {
        let page = store.snapshot().range_sealed(RangeRequest::new(&begin, &[0xff]).limit(1000)).await?;
        rows.extend(page.rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        match rows.last() {
            Some((key, _)) if page.more => begin = keys::after(key),
            _ => return Ok(rows),
        }
    }
}

/// Half of the time any row, half of the time a row of any kind, so that rare kinds have their turn.
fn pick<'r>(rows: &'r [Row], random: &mut StdRng) -> &'r Row {
    let any = rows.choose(random).expect("a filled store has rows");
    if random.random_ratio(1, 2) {
        return any;
    }
    let mut kinds: BTreeMap<&[u8], Vec<&Row>> = BTreeMap::new();
    for row in rows {
        kinds.entry(kind_of(&row.0)).or_default().push(row);
    }
    let kinds: Vec<_> = kinds.into_values().collect();
    kinds.choose(random).and_then(|rows| rows.choose(random)).copied().unwrap_or(any)
}

/// The octet that tells the subspace.
fn kind_of(key: &[u8]) -> &[u8] {
    if key[0] == 0x10 { &key[3..4] } else { &key[..1] }
}

fn flip(octets: &mut [u8], random: &mut StdRng) {
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..random.random_range(1..=4) {
        places.insert((random.random_range(0..octets.len()), random.random_range(0..8)));
    }
    for (place, bit) in places {
        octets[place] ^= 1 << bit;
    }
}

fn draw(rows: &[Row], dir: &Path, random: &mut StdRng) -> anyhow::Result<Change> {
    loop {
        let (key, value) = pick(rows, random);
        let (other, of_other) = pick(rows, random);
        let changed = match random.random_range(0..8) {
            0 => {
                let mut bent = value.clone();
                flip(&mut bent, random);
                ("bits flipped", vec![(key.clone(), Some(bent))])
            }
            1 => ("row lost", vec![(key.clone(), None)]),
            2 if value != of_other => ("row under another's key", vec![(other.clone(), Some(value.clone()))]),
            3 if value != of_other => {
                ("values exchanged", vec![(key.clone(), Some(of_other.clone())), (other.clone(), Some(value.clone()))])
            }
            4 => {
                let mut bent = key.clone();
                flip(&mut bent, random);
                if bent[0] == 0xff {
                    continue;
                }
                ("row copied elsewhere", vec![(bent, Some(value.clone()))])
            }
            5 => {
                let mut bent = key.clone();
                flip(&mut bent, random);
                if bent[0] == 0xff {
                    continue;
                }
                ("row moved elsewhere", vec![(key.clone(), None), (bent, Some(value.clone()))])
            }
            6 => {
                let mut cut = value.clone();
                cut.truncate(random.random_range(0..value.len()));
                ("value cut short", vec![(key.clone(), Some(cut))])
            }
            7 => return draw_file(dir, random),
            _ => continue,
        };
        return Ok(Change::Rows { kind: changed.0, rows: changed.1 });
    }
}

fn draw_file(dir: &Path, random: &mut StdRng) -> anyhow::Result<Change> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir.join("segments"))? {
        let path = entry?.path();
        let octets = std::fs::read(&path)?;
        let end = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        if end > 0 {
            files.push((path, octets, end));
        }
    }
    let (path, octets, end) = files.choose(random).context("no body lies in a segment")?;
    let offset = random.random_range(0..*end);
    let run = offset..(offset + random.random_range(1..200)).min(*end);
    let mut changed = octets[run].to_vec();
    Ok(match random.random_range(0..5) {
        0..3 => {
            flip(&mut changed[..1], random);
            changed.truncate(1);
            Change::File { kind: "body bits flipped", path: path.clone(), offset, octets: changed }
        }
        3 => {
            changed.fill(0);
            Change::File { kind: "body zeroed", path: path.clone(), offset, octets: changed }
        }
        _ => Change::Cut { path: path.clone(), length: offset },
    })
}

impl Change {
    fn class(&self) -> String {
        match self {
            Self::Rows { kind, .. } | Self::File { kind, .. } => (*kind).to_owned(),
            Self::Cut { .. } => "segment cut short".to_owned(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Rows { kind, rows } => {
                let places: Vec<String> = rows.iter().map(|(key, _)| keys::describe(key)).collect();
                format!("{kind}: {}", places.join(", "))
            }
            Self::File { kind, path, offset, octets } => {
                format!("{kind}: {} octets at {offset} of {}", octets.len(), path.display())
            }
            Self::Cut { path, length } => format!("cut at {length}: {}", path.display()),
        }
    }

    /// Only what is of no use to anybody: octets of files between bodies, and counters that say zero, as absent ones do.
    fn may_be_harmless(&self) -> bool {
        match self {
            Self::Rows { rows, .. } => {
                rows.iter().all(|(key, value)| !keys::is_sealed(key) && value.as_ref().is_none_or(|v| v == &[0; 8]))
            }
            Self::File { .. } | Self::Cut { .. } => true,
        }
    }

    fn to_files(&self) -> anyhow::Result<()> {
        match self {
            Self::Rows { .. } => {}
            Self::File { path, offset, octets, .. } => {
                let mut whole = std::fs::read(path)?;
                whole[*offset..*offset + octets.len()].copy_from_slice(octets);
                std::fs::write(path, whole)?;
            }
            Self::Cut { path, length } => {
                std::fs::OpenOptions::new().write(true).open(path)?.set_len(u64::try_from(*length)?)?;
            }
        }
        Ok(())
    }

    async fn to_rows(&self, store: &Store) -> anyhow::Result<()> {
        let Self::Rows { rows, .. } = self else { return Ok(()) };
        let laid = store.transact(|txn| {
            Box::pin(async move {
                for (key, value) in rows {
                    match value {
                        Some(value) => txn.set_sealed(key, value),
                        None => txn.clear(key),
                    }
                }
                Ok(())
            })
        });
        Ok(laid.await?)
    }
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
