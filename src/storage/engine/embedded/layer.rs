//! Rows that are durable in the journal but not yet in the index, each with its recent values by commit version.
//!
//! Readers of several versions share one layer: a row keeps the values that replaced each other since the layer began, and a
//! reader sees the last one that is no newer than its own version. A layer is dropped whole once the index holds it.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

/// A row's value; `None` where it was cleared.
pub(super) type Value = Option<Bytes>;

#[derive(Debug, Default)]
pub(super) struct Layer(RwLock<Rows>);

#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<Bytes, History>);

/// The values of one row in the order of their versions.
#[derive(Debug)]
struct History {
    /// Most rows are written once, so that the last value stands apart from a list that costs an allocation.
    last: (u64, Value),
    older: Vec<(u64, Value)>,
}

impl History {
    /// The value as a reader of `version` sees it; `None` when the row came later.
    fn at(&self, version: u64) -> Option<&Value> {
        if self.last.0 <= version {
            return Some(&self.last.1);
        }
        self.older.iter().rev().find(|(written, _)| *written <= version).map(|(_, value)| value)
    }
}

impl Layer {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a commit wrote. Nobody sees it before a snapshot of that version is published.
    pub(super) fn add(&self, version: u64, batch: impl IntoIterator<Item = (Bytes, Value)>) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match rows.0.entry(key) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(History { last: (version, value), older: Vec::new() });
                }
                btree_map::Entry::Occupied(mut place) => {
                    let history = place.get_mut();
                    let replaced = std::mem::replace(&mut history.last, (version, value));
                    history.older.push(replaced);
                }
            }
        }
    }
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, key: &[u8], version: u64) -> Option<&Value> {
        self.0.get(key).and_then(|history| history.at(version))
    }

    /// The rows of a range as a reader of `version` sees them, cleared ones included, from either end.
    pub(super) fn range<'a>(
        &'a self,
        begin: &[u8],
        end: &[u8],
        version: u64,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Value)> + use<'a> {
        let bounds = (Bound::Included(begin), Bound::Excluded(end));
        let rows = self.0.range::<[u8], _>(bounds);
        rows.filter_map(move |(key, history)| history.at(version).map(|value| (key, value)))
    }

    /// Every row with its last value, in ascending order.
    pub(super) fn last(&self) -> impl Iterator<Item = (&Bytes, &Value)> {
        self.0.iter().map(|(key, history)| (key, &history.last.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static str, value: Option<&'static str>) -> (Bytes, Value) {
        (Bytes::from_static(key.as_bytes()), value.map(|value| Bytes::from_static(value.as_bytes())))
    }

    #[test]
    fn a_reader_sees_the_last_value_of_its_version() {
        let layer = Layer::default();
        layer.add(2, [row("a", Some("two")), row("b", Some("b"))]);
        layer.add(5, [row("a", None)]);
        layer.add(9, [row("a", Some("nine"))]);
        let rows = layer.read();
        let cases =
            [(1, None), (2, Some(Some("two"))), (4, Some(Some("two"))), (5, Some(None)), (9, Some(Some("nine")))];
        for (version, expected) in cases {
            let found = rows.get(b"a", version).map(|value| value.as_deref());
            assert_eq!(found, expected.map(|value| value.map(str::as_bytes)), "at {version}");
        }
        let keys = |version| rows.range(b"a", b"c", version).map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(1), Vec::<Bytes>::new());
        assert_eq!(keys(5), ["a", "b"]);
        assert_eq!(rows.range(b"a", b"c", 5).next_back().map(|(key, _)| key.as_ref()), Some(b"b".as_slice()));
    }
}
