//! Which bodies a target holds already, and where: asked in ascending order by a run, in any order by a restore.
//!
//! Memory is bounded by what lies side by side, not by what there is: in ascending order a pack's index is held from its
//! first body to its last, otherwise only the indexes used last.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use posthouse_mail::BlobId;

use super::bundle;
use super::lock::Lock;
use super::pack::{PACKS, PackIndex, Packed};
use super::point;
use super::record::PackRow;
use super::target::Target;
use crate::error::Error;

/// Packs much smaller than they may be that a target keeps; more are written anew as large ones.
const SMALL_PACKS_MAX: usize = 64;
/// Ids remembered in short for each one whose place is held: that takes about a tenth of the room.
const REMEMBERED_FOR_ONE: usize = 10;

/// The packs that a run may count on, those of runs that were cut short included. What is more than half dead, and small
/// packs when there are many, are left out: the run writes anew what lives in them, and they go with the points before it.
pub(crate) async fn packs(target: &Target, lock: &Lock) -> Result<Vec<PackRow>, Error> {
    let mut told: HashMap<String, PackRow> = HashMap::new();
    // The newest point comes last: what it says of a pack's life holds.
    for id in point::ids(target).await? {
        lock.renew().await?;
        // A point that cannot be read says nothing; its packs speak for themselves.
        match listed_by(target, &id).await {
            Ok(rows) => told.extend(rows.into_iter().map(|pack| (pack.name.clone(), pack))),
            Err(Error::BackupDamaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut packs = Vec::new();
    for listed in target.place.list(PACKS).await? {
        lock.renew().await?;
        if target.is_suspect(&listed.name) {
            continue;
        }
        if let Some(row) = told.remove(&listed.name) {
            // One of another length than it had is no place to find bodies in.
            if row.octets == listed.octets && row.live >= row.bodies / 2 {
                packs.push(row);
            }
            continue;
        }
        match PackIndex::load(target, &listed.name, listed.octets).await {
            Ok(index) => packs.extend(describe(&index, listed.octets)),
            Err(Error::BackupDamaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let small = target.settings.pack_max.get() / 4;
    if packs.iter().filter(|pack| pack.octets < small).count() > SMALL_PACKS_MAX {
        packs.retain(|pack| pack.octets >= small);
    }
    Ok(packs)
}

async fn listed_by(target: &Target, id: &str) -> Result<Vec<PackRow>, Error> {
    let row = point::load(target, id).await?;
    bundle::read_all(target, &row.packs).await
}

fn describe(index: &PackIndex, octets: u64) -> Option<PackRow> {
    let (first, last) = index.bodies().first().zip(index.bodies().last())?;
    let bodies = u64::try_from(index.bodies().len()).unwrap_or(u64::MAX);
    Some(PackRow {
        name: index.name.clone(),
        first: first.blob.as_bytes().to_vec(),
        last: last.blob.as_bytes().to_vec(),
        bodies,
        octets,
        live: bodies,
    })
}

/// Answers for bodies in ascending order.
pub(crate) struct Ascending<'t> {
    target: &'t Target,
    lock: &'t Lock,
    /// The next one to come into reach is at the end.
    ahead: Vec<PackRow>,
    open: Vec<Open>,
    /// Packs in which a body was found, with how many.
    used: Vec<PackRow>,
}

struct Open {
    row: PackRow,
    index: PackIndex,
    live: u64,
}

impl<'t> Ascending<'t> {
    pub fn new(target: &'t Target, lock: &'t Lock, mut packs: Vec<PackRow>) -> Self {
        packs.sort_by(|a, b| b.first.cmp(&a.first));
        Self { target, lock, ahead: packs, open: Vec::new(), used: Vec::new() }
    }

    /// Whether a body is there. A damaged pack holds nothing.
    pub async fn holds(&mut self, blob: &BlobId) -> Result<bool, Error> {
        let key = blob.as_bytes().as_slice();
        while let Some(row) = self.ahead.pop_if(|row| row.first.as_slice() <= key) {
            self.lock.renew().await?;
            match PackIndex::load(self.target, &row.name, row.octets).await {
                Ok(index) => self.open.push(Open { row, index, live: 0 }),
                Err(Error::BackupDamaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for open in self.open.extract_if(.., |open| open.row.last.as_slice() < key) {
            self.used.extend(open.close());
        }
        let found = self.open.iter_mut().find(|open| open.index.find(blob).is_some());
        if let Some(open) = found {
            open.live += 1;
            return Ok(true);
        }
        Ok(false)
    }

    /// The packs in which something was found.
    pub fn finish(mut self) -> Vec<PackRow> {
        self.used.extend(self.open.into_iter().filter_map(Open::close));
        self.used
    }
}

impl Open {
    fn close(self) -> Option<PackRow> {
        (self.live > 0).then_some(PackRow { live: self.live, ..self.row })
    }
}

/// Answers for bodies in any order.
///
/// Every run's packs reach over all ids, so that one id may be in as many packs as there were runs. Of a pack that was read
/// once the ids are remembered in short: it is read again only for a body that it has.
pub(crate) struct Lookup {
    target: Target,
    packs: Vec<PackRow>,
    /// The one used last is at the end.
    cache: VecDeque<Arc<PackIndex>>,
    /// Of packs by their names the beginnings of all ids, in order.
    contents: HashMap<String, Box<[u64]>>,
    /// How many these are.
    remembered: usize,
}

impl Lookup {
    pub fn new(target: &Target, packs: Vec<PackRow>) -> Self {
        let (cache, contents) = (VecDeque::new(), HashMap::new());
        Self { target: target.clone(), packs, cache, contents, remembered: 0 }
    }

    /// Where a body lies; `None`: not here.
    pub async fn find(&mut self, blob: &BlobId) -> Result<Option<(Arc<PackIndex>, Packed)>, Error> {
        if let Some(place) = self.cache.iter().rposition(|index| index.find(blob).is_some()) {
            let index = self.cache.remove(place).expect("the place was just found");
            self.cache.push_back(index.clone());
            return Ok(index.find(blob).cloned().map(|body| (index, body)));
        }
        let key = blob.as_bytes().as_slice();
        let within = |pack: &&PackRow| pack.first.as_slice() <= key && key <= pack.last.as_slice();
        let mut candidates: Vec<PackRow> = self.packs.iter().filter(within).cloned().collect();
        candidates.retain(|pack| self.may_have(pack, blob));
        // Those that are known to have it come first.
        candidates.sort_by_key(|pack| !self.contents.contains_key(&pack.name));
        for pack in candidates {
            if self.cache.iter().any(|index| index.name == pack.name) {
                continue;
            }
            let index = match PackIndex::load(&self.target, &pack.name, pack.octets).await {
                Ok(index) => Arc::new(index),
                Err(Error::BackupDamaged(_)) => {
                    // It holds nothing; what only it had is missed by whoever looks for it.
                    self.packs.retain(|other| other.name != pack.name);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.keep(index.clone());
            if let Some(body) = index.find(blob).cloned() {
                return Ok(Some((index, body)));
            }
        }
        Ok(None)
    }

    fn may_have(&self, pack: &PackRow, blob: &BlobId) -> bool {
        self.contents.get(&pack.name).is_none_or(|ids| ids.binary_search(&beginning(blob)).is_ok())
    }

    fn keep(&mut self, index: Arc<PackIndex>) {
        let count = index.bodies().len();
        let room = self.target.settings.index_max.saturating_mul(REMEMBERED_FOR_ONE);
        if !self.contents.contains_key(&index.name) && self.remembered.saturating_add(count) <= room {
            self.remembered += count;
            let ids = index.bodies().iter().map(|body| beginning(&body.blob)).collect();
            self.contents.insert(index.name.clone(), ids);
        }
        self.cache.push_back(index);
        let mut held: usize = self.cache.iter().map(|index| index.bodies().len()).sum();
        while held > self.target.settings.index_max && self.cache.len() > 1 {
            held -= self.cache.pop_front().map_or(0, |index| index.bodies().len());
        }
    }
}

fn beginning(blob: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blob.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
