//! Old points go, and with them every object that no point left names.
//!
//! Points go first, oldest first: cut short, a prune leaves objects that nobody names, which the next one takes.

use std::collections::HashSet;

use posthouse_obs::emit;
use posthouse_obs::event::backup as event;

use super::account;
use super::bundle;
use super::lock::Lock;
use super::pack::PACKS;
use super::point::{self, Accounts};
use super::record::PackRow;
use super::target::{ROWS, SUSPECTS, Target, rows_path};
use super::{Phase, Progress, Step};
use crate::error::Error;

/// What a prune took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    pub points: usize,
    pub objects: u64,
    pub octets: u64,
    /// Points that are left.
    pub kept: usize,
}

/// Keeps the newest points.
pub async fn prune(target: &Target, keep: usize, progress: Progress<'_>) -> Result<Pruned, Error> {
    if keep == 0 {
        return Err(Error::Refused("at least one point is kept; to remove all, remove the backup itself".to_owned()));
    }
    let lock = Lock::take(target).await?;
    let outcome = prune_locked(target, &lock, keep, progress).await;
    let released = lock.release().await;
    let pruned = outcome?;
    released?;
    let Pruned { points, objects, octets, .. } = pruned;
    emit(event::BackupPruned { points, objects, octets });
    Ok(pruned)
}

async fn prune_locked(target: &Target, lock: &Lock, keep: usize, progress: Progress<'_>) -> Result<Pruned, Error> {
    let ids = point::ids(target).await?;
    let (old, kept) = ids.split_at(ids.len().saturating_sub(keep));
    // What cannot be read must not be taken for what nobody names: everything that stays is read first.
    let mut named = Named::default();
    for (number, id) in kept.iter().enumerate() {
        names((target, lock), id, &mut named).await?;
        progress(&step(number + 1, kept.len() + 1));
    }
    // Who took the lock over may have written since what nothing here names.
    lock.assert_held().await?;
    for id in old {
        point::remove(target, id).await?;
    }
    let mut pruned = Pruned { points: old.len(), kept: kept.len(), ..Pruned::default() };
    for below in [PACKS, ROWS, SUSPECTS] {
        let listed = target.place.list(below).await?;
        lock.renew().await?;
        for listed in listed {
            // The mark on an object goes with it.
            if named.contains(listed.name.strip_prefix(SUSPECTS).unwrap_or(&listed.name)) {
                continue;
            }
            target.place.delete(&listed.name).await?;
            pruned.objects += 1;
            pruned.octets += listed.octets;
            lock.renew().await?;
        }
    }
    progress(&step(kept.len() + 1, kept.len() + 1));
    Ok(pruned)
}

fn step(done: usize, total: usize) -> Step {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Step { done: number(done), total: number(total), ..Step::of(Phase::Prune) }
}

/// Every object that a point names.
async fn names((target, lock): (&Target, &Lock), id: &str, named: &mut Named) -> Result<(), Error> {
    let row = point::load(target, id).await?;
    for name in row.site.iter().chain(&row.transit).chain(&row.accounts).chain(&row.packs) {
        named.add(&rows_path(name));
    }
    for name in &row.packs {
        lock.renew().await?;
        for pack in bundle::read::<PackRow>(target, name).await? {
            named.add(&pack.name);
        }
    }
    let mut accounts = Accounts::of(target, Some(row));
    while let Some(entry) = accounts.next().await? {
        lock.renew().await?;
        // An account that did not change has the same head in many points.
        if !named.add(&rows_path(&entry.head)) {
            continue;
        }
        let head = account::head(target, &entry).await?;
        for name in head.runs.iter().flat_map(|run| &run.parts).map(|part| &part.name).chain(&head.gone) {
            named.add(&rows_path(name));
        }
    }
    Ok(())
}

/// Names of objects, by half a hash: there may be many.
#[derive(Default)]
struct Named(HashSet<[u8; 16]>);

impl Named {
    fn short(name: &str) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        half
    }

    /// Whether it is new.
    fn add(&mut self, name: &str) -> bool {
        self.0.insert(Self::short(name))
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(&Self::short(name))
    }
}
