//! Reads a backup back: every object that a point names is there and is what was written, and every body that an account or
//! a message under way names is in a pack of that point.
//!
//! What is wrong is told, not thrown: a backup with one bad pack still has everything else. Damaged objects are marked, so
//! that the next run counts on none of them and writes anew what it needs.

mod names;

use std::collections::HashSet;

use posthouse_conf::backup::Verify as Depth;

use super::bundle;
use super::pack::PackIndex;
use super::point;
use super::record::{PackRow, PointRow};
use super::run::Written;
use super::target::{Target, rows_path};
use super::{Phase, Progress, Step};
use crate::error::Error;

/// What was read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    pub points: u64,
    pub packs: u64,
    pub bodies: u64,
    pub octets: u64,
    pub accounts: u64,
    pub messages: u64,
    /// What is wrong, in words.
    pub findings: Vec<String>,
    /// There was more than is kept.
    pub truncated: bool,
}

/// Findings kept: enough to see what kind of damage it is.
const FINDINGS_MAX: usize = 1000;

impl Verified {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.truncated = true;
        }
    }

    /// Damage is a finding; what keeps the target from being read ends the walk.
    fn absorb<T>(&mut self, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error @ (Error::BackupDamaged(_) | Error::NewerFormat { .. })) => {
                self.add(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn step(&self, done: usize, total: usize) -> Step {
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let Self { bodies, octets, accounts, messages, .. } = *self;
        Step { phase: Phase::Verify, done: number(done), total: number(total), accounts, messages, bodies, octets }
    }
}

/// Reads everything back that any point names.
pub async fn verify(target: &Target, progress: Progress<'_>) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    let mut seen = HashSet::new();
    for id in point::ids(target).await? {
        let Some(row) = verified.absorb(point::load(target, &id).await)? else { continue };
        one(target, (&id, &row), &mut seen, |_| true, &mut verified, progress).await?;
    }
    Ok(verified)
}

/// Reads a point back that was just written, as deep as `backup.verify` says.
pub(crate) async fn after_run(
    target: &Target,
    (id, row): (&str, &PointRow),
    written: &Written,
    progress: Progress<'_>,
) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    let mut seen = HashSet::new();
    match target.settings.verify {
        Depth::Nothing => {}
        Depth::Written => {
            let is_new = |name: &str| written.packs.contains(name);
            one(target, (id, row), &mut seen, is_new, &mut verified, progress).await?;
        }
        Depth::Everything => one(target, (id, row), &mut seen, |_| true, &mut verified, progress).await?,
    }
    Ok(verified)
}

/// One point. Packs that were read with another one are not read again.
async fn one(
    target: &Target,
    (id, row): (&str, &PointRow),
    seen: &mut HashSet<String>,
    is_read: impl Fn(&str) -> bool,
    verified: &mut Verified,
    progress: Progress<'_>,
) -> Result<(), Error> {
    verified.points += 1;
    let mut packs: Vec<PackRow> = Vec::new();
    for name in &row.packs {
        match verified.absorb(bundle::read(target, name).await)? {
            Some(listed) => packs.extend(listed),
            None => target.suspect(&rows_path(name)).await?,
        }
    }
    let mut whole = Vec::new();
    for (number, pack) in packs.iter().enumerate() {
        progress(&verified.step(number, packs.len() + 1));
        let Some(index) = verified.absorb(PackIndex::load(target, &pack.name, pack.octets).await)? else { continue };
        whole.push(pack.clone());
        if is_read(&pack.name) && seen.insert(pack.name.clone()) {
            verified.packs += 1;
            verified.bodies += u64::try_from(index.bodies().len()).unwrap_or(u64::MAX);
            match verified.absorb(index.read_back(target).await)? {
                Some(octets) => verified.octets += octets,
                None => target.suspect(&pack.name).await?,
            }
        }
    }
    names::walk(target, (id, row), &whole, verified).await?;
    progress(&verified.step(packs.len() + 1, packs.len() + 1));
    Ok(())
}
