//! Random transactions that note what they read and wrote, and their replay one after the other on an ordered map.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Isolation, Kv, KvTxn, RangeRequest, Versionstamp};
use crate::engine::{Atomic, atomic};
use crate::error::Error;

const TRANSACTIONS: usize = 60;
const KEYS: u8 = 12;

type Row = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone)]
enum Step {
    Got { key: Vec<u8>, value: Option<Vec<u8>> },
    Scanned { begin: Vec<u8>, end: Vec<u8>, limit: usize, reverse: bool, rows: Vec<Row> },
    Set(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>),
    ClearRange(Vec<u8>, Vec<u8>),
    Add(Vec<u8>, u8),
}

/// A transaction that committed.
pub(super) struct Entry {
    pub(super) stamp: Option<Versionstamp>,
    steps: Vec<Step>,
}

/// Commits random transactions one after the other and returns what they did.
pub(super) async fn worker<K: Kv>(kv: K, seed: u64) -> Vec<Entry> {
    let mut history = Vec::new();
    while history.len() < TRANSACTIONS {
        let mut txn = kv.begin();
        // The same steps at each run: what differs is what they read.
        let mut random = StdRng::seed_from_u64(seed << 32 | history.len() as u64);
        let done = match steps(&mut txn, &mut random, seed).await {
            Ok(steps) => txn.commit().await.map(|commit| Entry { stamp: commit.stamp, steps }),
            Err(error) => Err(error),
        };
        match done {
            Ok(entry) => history.push(entry),
            // On a slow machine a snapshot may grow too old: that too is run again.
            Err(error) => assert!(matches!(error, Error::Conflict | Error::TooOld), "{error}"),
        }
    }
    // What only read has no place in the order.
    history.retain(|entry| entry.stamp.is_some());
    history
}

async fn steps<T: KvTxn>(txn: &mut T, random: &mut StdRng, seed: u64) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for _ in 0..random.random_range(2..7) {
        steps.push(act(txn, random, seed).await?);
    }
    Ok(steps)
}

async fn act<T: KvTxn>(txn: &mut T, random: &mut StdRng, seed: u64) -> Result<Step, Error> {
    let key = |random: &mut StdRng| vec![b'a' + random.random_range(0..KEYS)];
    let step = match random.random_range(0..9) {
        0..3 => {
            let key = key(random);
            let value = txn.get(&key, Isolation::Serializable).await?.map(|value| value.to_vec());
            Step::Got { key, value }
        }
        3 => {
            let (begin, end) = (key(random), key(random));
            let (limit, reverse) = (random.random_range(1..6), random.random());
            let request = RangeRequest { reverse, ..RangeRequest::new(&begin, &end).limit(limit) };
            let rows = txn.range(request).await?.rows;
            let rows = rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            Step::Scanned { begin, end, limit, reverse, rows }
        }
        4..6 => Step::Set(key(random), vec![random.random(), seed.to_le_bytes()[0]]),
        6 => Step::Clear(key(random)),
        7 => Step::ClearRange(key(random), key(random)),
        _ => Step::Add(key(random), random.random()),
    };
    match &step {
        Step::Got { .. } | Step::Scanned { .. } => {}
        Step::Set(key, value) => txn.set(key, value),
        Step::Clear(key) => txn.clear(key),
        Step::ClearRange(begin, end) => txn.clear_range(begin, end),
        Step::Add(key, argument) => txn.atomic(key, Atomic::Add, &[*argument]),
    }
    Ok(step)
}

impl Entry {
    /// Does the same to a plain map and compares what was read.
    pub(super) fn replay(&self, model: &mut BTreeMap<Vec<u8>, Vec<u8>>, seed: u64) {
        for step in &self.steps {
            match step {
                Step::Got { key, value } => assert_eq!(model.get(key), value.as_ref(), "seed {seed}, {:?}", self.stamp),
                Step::Scanned { begin, end, limit, reverse, rows } => {
                    let all = model.iter().filter(|(key, _)| begin <= *key && *key < end);
                    let mut found: Vec<Row> = all.map(|(key, value)| (key.clone(), value.clone())).collect();
                    if *reverse {
                        found.reverse();
                    }
                    found.truncate(*limit);
                    assert_eq!(&found, rows, "seed {seed}, {:?}", self.stamp);
                }
                Step::Set(key, value) => drop(model.insert(key.clone(), value.clone())),
                Step::Clear(key) => drop(model.remove(key)),
                Step::ClearRange(begin, end) => model.retain(|key, _| key < begin || end <= key),
                Step::Add(key, argument) => {
                    let value = atomic::apply(Atomic::Add, model.get(key).map(Vec::as_slice), &[*argument]);
                    model.insert(key.clone(), value.map(|value| value.to_vec()).unwrap_or_default());
                }
            }
        }
    }
}
