//! The rows that a group of transactions writes, with every operation worked out: what the journal keeps and the layer shows.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use bytes::Bytes;

use super::commit::Request;
use super::layer::Value;
use super::overlay::{Overlay, Pending, apply_all, stamped};
use super::page::Changes;
use super::snapshot::Snapshot;
use crate::engine::{RangeRequest, Versionstamp};
use crate::error::Error;

/// Rows of a page when a cleared range is worked out.
const PAGE_ROWS: usize = 10_000;

/// At most one value a key: of several transactions of the group, the last one's.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: BTreeMap<Bytes, Value>,
}

impl Batch {
    /// Works out a group on top of the state before it.
    pub(super) fn of(group: &[Request], version: u64, base: &Snapshot) -> Result<Self, Error> {
        let mut batch = Self::default();
        for (request, order) in group.iter().zip(0u16..) {
            batch.apply(&request.writes, Versionstamp::new(version, order), base)?;
        }
        Ok(batch)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn rows(&self) -> btree_map::Iter<'_, Bytes, Value> {
        self.rows.iter()
    }

    pub(super) fn into_rows(self) -> btree_map::IntoIter<Bytes, Value> {
        self.rows.into_iter()
    }

    /// Applies one transaction: cleared ranges first, then the keys, then the keys that its stamp completes.
    fn apply(&mut self, writes: &Overlay, stamp: Versionstamp, base: &Snapshot) -> Result<(), Error> {
        for (begin, end) in &writes.cleared {
            self.clear(begin, end, base)?;
        }
        for (key, pending) in &writes.points {
            let value = match pending {
                Pending::Set(value) => Some(value.clone()),
                Pending::Clear => None,
                Pending::StampedValue { prefix, suffix } => Some(stamped(prefix, stamp, suffix)),
                Pending::Atomic(changes) => apply_all(self.current(key, base)?, changes),
            };
            self.rows.insert(key.clone(), value);
        }
        for row in &writes.stamped_keys {
            self.rows.insert(row.key(stamp), Some(row.value.clone()));
        }
        Ok(())
    }

    fn current(&self, key: &Bytes, base: &Snapshot) -> Result<Value, Error> {
        match self.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => base.get(key),
        }
    }

    fn clear(&mut self, begin: &Bytes, end: &Bytes, base: &Snapshot) -> Result<(), Error> {
        let bounds = (Bound::Included(begin), Bound::Excluded(end));
        for (_, value) in self.rows.range_mut::<Bytes, _>(bounds) {
            *value = None;
        }
        let mut from = begin.clone();
        loop {
            let page = base.range(RangeRequest::new(&from, end).limit(PAGE_ROWS), &Changes::none())?;
            let Some((last, _)) = page.rows.last() else { break };
            from = Bytes::from([last.as_ref(), &[0]].concat());
            // A key of its own: one of the page would keep the whole page in memory.
            self.rows.extend(page.rows.iter().map(|(key, _)| (Bytes::copy_from_slice(key), None)));
            if !page.more {
                break;
            }
        }
        Ok(())
    }
}
