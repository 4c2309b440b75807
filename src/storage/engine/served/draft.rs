//! What a transaction has read and written so far, held against the limits that every engine keeps.

use bytes::Bytes;

use crate::engine::embedded::overlay::{Overlay, StampedKey};
use crate::engine::{Atomic, Isolation, KEYS_END, MAX_KEY, MAX_TXN, MAX_VALUE, Page, RangeRequest};
use crate::error::Error;

#[derive(Default)]
pub(super) struct Draft {
    pub(super) read_keys: Vec<Bytes>,
    pub(super) read_ranges: Vec<(Bytes, Bytes)>,
    pub(super) writes: Overlay,
    pub(super) write_ranges: Vec<(Bytes, Bytes)>,
    size: usize,
    /// The first limit that a write broke; told at the commit.
    broken: Option<Error>,
}

impl Draft {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether there is anything to commit, and nothing over its limit.
    pub(super) fn check(&mut self) -> Result<bool, Error> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        if self.size > MAX_TXN {
            return Err(too_large("a transaction", self.size, MAX_TXN));
        }
        Ok(!self.writes.is_empty() || !self.write_ranges.is_empty())
    }

    pub(super) fn read_key(&mut self, key: &[u8], isolation: Isolation) {
        if isolation == Isolation::Serializable {
            self.size += key.len();
            self.read_keys.push(Bytes::copy_from_slice(key));
        }
    }

    pub(super) fn read_range(&mut self, begin: &[u8], end: &[u8]) {
        if begin < end {
            self.size += begin.len() + end.len();
            self.read_ranges.push((Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)));
        }
    }

    /// The conflict range of a scan ends at the last row that it returned.
    pub(super) fn read_page(&mut self, request: &RangeRequest<'_>, page: &Page) {
        if request.isolation == Isolation::Snapshot {
            return;
        }
        match page.rows.last() {
            Some((last, _)) if page.more && request.reverse => self.read_range(last, request.end),
            Some((last, _)) if page.more => self.read_range(request.begin, &[last, &[0][..]].concat()),
            _ => self.read_range(request.begin, request.end),
        }
    }

    /// Counts a write and checks its limits.
    fn admit(&mut self, key: usize, value: usize) {
        self.size += key + value;
        for (what, size, max) in [("a key", key, MAX_KEY), ("a value", value, MAX_VALUE)] {
            if size > max {
                self.broken.get_or_insert_with(|| too_large(what, size, max));
            }
        }
    }

    fn admit_key(&mut self, key: &[u8], value: usize) {
        if key >= KEYS_END {
            self.broken.get_or_insert(Error::Invalid("a key of the engine itself"));
        }
        self.admit(key.len(), value);
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) {
        self.admit_key(key, value.len());
        self.writes.set(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    pub(super) fn clear(&mut self, key: &[u8]) {
        self.admit_key(key, 0);
        self.writes.clear(Bytes::copy_from_slice(key));
    }

    pub(super) fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        let end = end.min(KEYS_END);
        self.admit(begin.len().max(end.len()), 0);
        self.writes.clear_range(Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end));
    }

    pub(super) fn atomic(&mut self, key: &[u8], op: Atomic, argument: &[u8]) {
        self.admit_key(key, argument.len());
        self.writes.atomic(Bytes::copy_from_slice(key), op, Bytes::copy_from_slice(argument));
    }

    pub(super) fn set_stamped_key(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        self.admit_key(prefix, value.len());
        self.admit(prefix.len() + 10 + suffix.len(), 0);
        let [prefix, suffix, value] = [prefix, suffix, value].map(Bytes::copy_from_slice);
        self.writes.stamped_keys.push(StampedKey { prefix, suffix, value });
    }

    pub(super) fn set_stamped_value(&mut self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        self.admit_key(key, prefix.len() + 10 + suffix.len());
        let [key, prefix, suffix] = [key, prefix, suffix].map(Bytes::copy_from_slice);
        self.writes.set_stamped_value(key, prefix, suffix);
    }

    pub(super) fn add_write_range(&mut self, begin: &[u8], end: &[u8]) {
        self.size += begin.len() + end.len();
        self.write_ranges.push((Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)));
    }
}

fn too_large(what: &'static str, size: usize, max: usize) -> Error {
    Error::TooLarge { what, size: size as u64, max: max as u64 }
}
