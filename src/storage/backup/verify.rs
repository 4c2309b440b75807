//! Reads a backup back: every object that a point names is there and is what was written, and every body that an account or
//! a message under way names is in a pack of that point.
//!
//! What is wrong is told, not thrown: a backup with one bad pack still has everything else. Damaged objects are marked, so
//! that the next run counts on none of them and writes anew what it needs.

mod names;

use std::collections::HashSet;

use posthouse_conf::backup::Verify as Depth;

use super::bundle;
use super::lock::{self, Lock};
use super::pack::PackIndex;
use super::point;
use super::record::{PackRow, PointRow};
use super::run::Written;
use super::target::{Target, Wrong, rows_path};
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
    /// Why damaged objects could not be marked; told once.
    unmarked: bool,
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

    /// Marks a damaged object, so that the next run counts on it no more. Whoever may only read the target hears all the same
    /// what is wrong with it.
    async fn mark(&mut self, target: &Target, name: &str) {
        if let Err(error) = target.suspect(name).await
            && !std::mem::replace(&mut self.unmarked, true)
        {
            self.add(format!("what is damaged could not be marked for the next backup: {error}"));
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
    let mut reader = Reader { target, lock: None, seen: HashSet::new(), verified: Verified::default(), progress };
    let ids = point::ids(target).await?;
    if !ids.is_empty() {
        // A run that was cut short before its first point has lost nothing; the next one makes what is missing.
        reader.headers().await?;
    }
    for id in ids {
        let Some(row) = reader.verified.absorb(point::load(target, &id).await)? else { continue };
        reader.point((&id, &row), |_| true).await?;
    }
    Ok(reader.verified)
}

/// Reads a point back that was just written, as deep as `backup.verify` says. Its packs must not be pruned meanwhile.
pub(crate) async fn after_run(
    (target, lock): (&Target, &Lock),
    (id, row): (&str, &PointRow),
    written: &Written,
    progress: Progress<'_>,
) -> Result<Verified, Error> {
    let (depth, lock) = (target.settings.verify, Some(lock));
    let mut reader = Reader { target, lock, seen: HashSet::new(), verified: Verified::default(), progress };
    match depth {
        Depth::Nothing => {}
        Depth::Written => reader.point((id, row), |name| written.packs.contains(name)).await?,
        Depth::Everything => reader.point((id, row), |_| true).await?,
    }
    Ok(reader.verified)
}

/// Reads points back.
struct Reader<'a, 'p> {
    target: &'a Target,
    /// Of the run that this is a part of.
    lock: Option<&'a Lock>,
    /// Packs that were read with another point.
    seen: HashSet<String>,
    verified: Verified,
    progress: Progress<'p>,
}

impl Reader<'_, '_> {
    async fn headers(&mut self) -> Result<(), Error> {
        for (name, wrong) in self.target.wrong_headers().await? {
            let what = match wrong {
                Wrong::Missing => "is missing: the next backup writes it anew",
                Wrong::Damaged => "is not what was written: the next backup writes it anew",
                Wrong::Other => "is another backup's: look which one opens this backup, and remove the other",
            };
            self.verified.add(format!("{name} {what}"));
        }
        Ok(())
    }

    async fn point(&mut self, (id, row): (&str, &PointRow), is_read: impl Fn(&str) -> bool) -> Result<(), Error> {
        let target = self.target;
        self.verified.points += 1;
        let mut packs: Vec<PackRow> = Vec::new();
        for name in &row.packs {
            match self.verified.absorb(bundle::read(target, name).await)? {
                Some(listed) => packs.extend(listed),
                None => self.verified.mark(target, &rows_path(name)).await,
            }
        }
        let mut whole = Vec::new();
        for (number, pack) in packs.iter().enumerate() {
            (self.progress)(&self.verified.step(number, packs.len() + 1));
            lock::renew(self.lock).await?;
            let loaded = PackIndex::load(target, &pack.name, pack.octets).await;
            let Some(index) = self.verified.absorb(loaded)? else { continue };
            whole.push(pack.clone());
            if is_read(&pack.name) && self.seen.insert(pack.name.clone()) {
                self.verified.packs += 1;
                self.verified.bodies += u64::try_from(index.bodies().len()).unwrap_or(u64::MAX);
                match self.verified.absorb(index.read_back(target, self.lock).await)? {
                    Some(octets) => self.verified.octets += octets,
                    None => self.verified.mark(target, &pack.name).await,
                }
            }
        }
        names::walk((target, self.lock), (id, row), &whole, &mut self.verified).await?;
        (self.progress)(&self.verified.step(packs.len() + 1, packs.len() + 1));
        Ok(())
    }
}
