//! Who wrote what in the last seconds: the optimistic check of a transaction's reads at its commit.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::commit::Request;
use crate::engine::Versionstamp;
use crate::error::Error;

/// Keys remembered at most; under more load than this a transaction is too old earlier.
const KEYS_MAX: usize = 1_000_000;

/// Writes by version. Transactions that began before the oldest are `TooOld`.
pub(super) struct Resolver {
    keep: Duration,
    /// Key -> version of its last write.
    points: BTreeMap<Bytes, u64>,
    /// Ranges written, in the order of their versions.
    ranges: VecDeque<(u64, Bytes, Bytes)>,
    /// What each version wrote, to forget it again.
    history: VecDeque<(Instant, u64, Vec<Bytes>)>,
    /// Reads from before this version can't be checked any more.
    floor: u64,
}

impl Resolver {
    /// Nothing is known of what was written up to `version`.
    pub(super) fn new(version: u64, keep: Duration) -> Self {
        let history = VecDeque::new();
        Self { keep, points: BTreeMap::new(), ranges: VecDeque::new(), history, floor: version }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// Whether the reads of a transaction still hold.
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        let Some(read) = request.read_version else {
            return Ok(());
        };
        if read < self.floor {
            return Err(Error::TooOld);
        }
        let reads = &request.reads;
        let is_changed = reads.keys.iter().any(|key| self.is_key_written(key, read))
            || reads.ranges.iter().any(|(begin, end)| self.is_range_written(begin, end, read));
        if is_changed { Err(Error::Conflict) } else { Ok(()) }
    }

    fn is_key_written(&self, key: &Bytes, since: u64) -> bool {
        self.points.get(key).is_some_and(|version| *version > since)
            || self.ranges_since(since).any(|(_, begin, end)| begin <= key && key < end)
    }

    fn is_range_written(&self, begin: &Bytes, end: &Bytes, since: u64) -> bool {
        begin < end
            && (self.points.range::<Bytes, _>(begin..end).any(|(_, version)| *version > since)
                || self.ranges_since(since).any(|(_, from, to)| from < end && begin < to))
    }

    fn ranges_since(&self, since: u64) -> impl Iterator<Item = &(u64, Bytes, Bytes)> {
        self.ranges.iter().rev().take_while(move |(version, ..)| *version > since)
    }

    /// Remembers the writes of a transaction that passed the check.
    pub(super) fn record(&mut self, version: u64, request: &Request) {
        let written: Vec<Bytes> = request.writes.points.keys().cloned().collect();
        for key in &written {
            self.points.insert(key.clone(), version);
        }
        for (begin, end) in request.writes.cleared.iter().chain(&request.write_conflicts) {
            self.ranges.push_back((version, begin.clone(), end.clone()));
        }
        for row in &request.writes.stamped_keys {
            // Its place within the group is not final yet: it lies somewhere between these.
            let [lowest, highest] = [0, u16::MAX].map(|order| row.key(Versionstamp::new(version, order)));
            let beyond = [&highest[..], &[0]].concat();
            self.ranges.push_back((version, lowest, Bytes::from(beyond)));
        }
        self.history.push_back((Instant::now(), version, written));
    }

    /// Forgets what is older than any transaction may be.
    pub(super) fn prune(&mut self, now: Instant) {
        while let Some((at, version, _)) = self.history.front() {
            if now.duration_since(*at) <= self.keep && self.points.len() <= KEYS_MAX {
                break;
            }
            let version = *version;
            self.floor = self.floor.max(version);
            let Some((_, _, keys)) = self.history.pop_front() else { break };
            for key in keys {
                if self.points.get(&key) == Some(&version) {
                    self.points.remove(&key);
                }
            }
            while self.ranges.front().is_some_and(|(written, ..)| *written <= version) {
                self.ranges.pop_front();
            }
        }
    }
}
