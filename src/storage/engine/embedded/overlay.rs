//! What a transaction has written so far, in the form in which it reads its own writes and in which it is applied.
//!
//! Cleared ranges come first, then at most one pending change per key: a later clear drops what it covers, and a change on
//! top of a cleared range is resolved at once.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use crate::engine::atomic;
use crate::engine::{Atomic, Versionstamp};
use crate::error::Error;

/// The one change that waits on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Pending {
    Set(Bytes),
    Clear,
    /// Operations on a value that only the commit knows.
    Atomic(Vec<(Atomic, Bytes)>),
    StampedValue {
        prefix: Bytes,
        suffix: Bytes,
    },
}

/// A row whose key the commit completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct StampedKey {
    pub(in crate::engine) prefix: Bytes,
    pub(in crate::engine) suffix: Bytes,
    pub(in crate::engine) value: Bytes,
}

/// What the own writes say of a key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Own<'a> {
    Nothing,
    Is(Option<&'a Bytes>),
    Changes(&'a [(Atomic, Bytes)]),
}

#[derive(Debug, Default)]
pub(in crate::engine) struct Overlay {
    pub(in crate::engine) cleared: Vec<(Bytes, Bytes)>,
    pub(in crate::engine) points: BTreeMap<Bytes, Pending>,
    pub(in crate::engine) stamped_keys: Vec<StampedKey>,
}

impl Overlay {
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.cleared.is_empty() && self.points.is_empty() && self.stamped_keys.is_empty()
    }

    pub(in crate::engine) fn set(&mut self, key: Bytes, value: Bytes) {
        self.points.insert(key, Pending::Set(value));
    }

    pub(in crate::engine) fn set_stamped_value(&mut self, key: Bytes, prefix: Bytes, suffix: Bytes) {
        self.points.insert(key, Pending::StampedValue { prefix, suffix });
    }

    pub(in crate::engine) fn clear(&mut self, key: Bytes) {
        self.points.insert(key, Pending::Clear);
    }

    pub(in crate::engine) fn clear_range(&mut self, begin: Bytes, end: Bytes) {
        if begin >= end {
            return;
        }
        let covered: Vec<Bytes> = self.points.range(begin.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        for key in covered {
            self.points.remove(&key);
        }
        self.cleared.push((begin, end));
    }

    pub(in crate::engine) fn atomic(&mut self, key: Bytes, op: Atomic, argument: Bytes) {
        let is_cleared = self.is_cleared(&key);
        let resolve = |current: Option<&[u8]>| match atomic::apply(op, current, &argument) {
            Some(value) => Pending::Set(value),
            None => Pending::Clear,
        };
        match self.points.get_mut(&key) {
            Some(Pending::Atomic(changes)) => changes.push((op, argument)),
            Some(pending @ Pending::Set(_)) => {
                let Pending::Set(value) = &*pending else { return };
                *pending = resolve(Some(value));
            }
            Some(pending @ Pending::Clear) => *pending = resolve(None),
            // The stamp is unknown until the commit: the operation would be lost either way, the last write wins.
            Some(pending @ Pending::StampedValue { .. }) => *pending = resolve(None),
            None if is_cleared => drop(self.points.insert(key, resolve(None))),
            None => drop(self.points.insert(key, Pending::Atomic(vec![(op, argument)]))),
        }
    }

    pub(in crate::engine) fn is_cleared(&self, key: &[u8]) -> bool {
        self.cleared.iter().any(|(begin, end)| begin.as_ref() <= key && key < end.as_ref())
    }

    pub(in crate::engine) fn look(&self, key: &[u8]) -> Result<Own<'_>, Error> {
        if !self.stamped_keys.is_empty() && self.may_be_stamped(key, &[key, &[0]].concat()) {
            return Err(Error::Unreadable);
        }
        match self.points.get(key) {
            Some(Pending::Set(value)) => Ok(Own::Is(Some(value))),
            Some(Pending::Clear) => Ok(Own::Is(None)),
            Some(Pending::Atomic(changes)) => Ok(Own::Changes(changes)),
            Some(Pending::StampedValue { .. }) => Err(Error::Unreadable),
            None if self.is_cleared(key) => Ok(Own::Is(None)),
            None => Ok(Own::Nothing),
        }
    }

    /// The own changes in a range, in ascending order.
    pub(in crate::engine) fn in_range(&self, begin: &[u8], end: &[u8]) -> Result<Vec<(&Bytes, &Pending)>, Error> {
        if self.may_be_stamped(begin, end) {
            return Err(Error::Unreadable);
        }
        if begin >= end {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(begin), Bound::Excluded(end));
        let changes: Vec<_> = self.points.range::<[u8], _>(bounds).collect();
        match changes.iter().any(|(_, pending)| matches!(pending, Pending::StampedValue { .. })) {
            true => Err(Error::Unreadable),
            false => Ok(changes),
        }
    }

    /// Whether a key that the commit completes could come to lie in a range.
    fn may_be_stamped(&self, begin: &[u8], end: &[u8]) -> bool {
        self.stamped_keys.iter().any(|row| {
            let lowest = row.key(Versionstamp([0; 10]));
            let highest = row.key(Versionstamp([0xff; 10]));
            lowest.as_ref() < end && begin <= highest.as_ref()
        })
    }
}

impl StampedKey {
    pub(in crate::engine) fn key(&self, stamp: Versionstamp) -> Bytes {
        stamped(&self.prefix, stamp, &self.suffix)
    }
}

pub(in crate::engine) fn stamped(prefix: &[u8], stamp: Versionstamp, suffix: &[u8]) -> Bytes {
    let mut octets = BytesMut::with_capacity(prefix.len() + stamp.0.len() + suffix.len());
    octets.extend_from_slice(prefix);
    octets.extend_from_slice(&stamp.0);
    octets.extend_from_slice(suffix);
    octets.freeze()
}

/// A value after all pending operations.
pub(in crate::engine) fn apply_all(current: Option<Bytes>, changes: &[(Atomic, Bytes)]) -> Option<Bytes> {
    changes.iter().fold(current, |value, (op, argument)| atomic::apply(*op, value.as_deref(), argument))
}
