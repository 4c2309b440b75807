//! Which rows a transaction cannot read before its commit, because a versionstamp in them is not known yet.
//!
//! FoundationDB would tell too, but then fails the commit as well; every other engine lets the transaction go on.

use std::collections::BTreeSet;

use crate::engine::Versionstamp;
use crate::error::Error;

#[derive(Debug, Default)]
pub(super) struct Stamped {
    /// Rows whose value gets a stamp.
    values: BTreeSet<Vec<u8>>,
    /// The lowest and the highest key that a stamped key can become.
    keys: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Stamped {
    pub(super) fn add_key(&mut self, prefix: &[u8], suffix: &[u8]) {
        let with = |stamp: Versionstamp| [prefix, &stamp.0, suffix].concat();
        self.keys.push((with(Versionstamp([0; 10])), with(Versionstamp([0xff; 10]))));
    }

    pub(super) fn add_value(&mut self, key: &[u8]) {
        self.values.insert(key.to_vec());
    }

    /// A row was written with a value that is known, or cleared.
    pub(super) fn settle(&mut self, key: &[u8]) {
        if !self.values.is_empty() {
            self.values.remove(key);
        }
    }

    pub(super) fn settle_range(&mut self, begin: &[u8], end: &[u8]) {
        if !self.values.is_empty() {
            self.values.retain(|key| **key < *begin || *end <= **key);
        }
    }

    pub(super) fn check(&self, key: &[u8]) -> Result<(), Error> {
        let is_open = self.values.contains(key) || self.keys.iter().any(|(low, high)| **low <= *key && *key <= **high);
        if is_open { Err(Error::Unreadable) } else { Ok(()) }
    }

    pub(super) fn check_range(&self, begin: &[u8], end: &[u8]) -> Result<(), Error> {
        let value = self.values.iter().any(|key| *begin <= **key && **key < *end);
        let is_open = value || self.keys.iter().any(|(low, high)| **low < *end && *begin <= **high);
        if is_open { Err(Error::Unreadable) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_row_is_unreadable_alone_and_in_a_range() {
        let mut stamped = Stamped::default();
        assert_eq!(stamped.check_range(b"", b"\xff"), Ok(()));
        stamped.add_key(b"log/", b"/x");
        stamped.add_value(b"v");
        assert_eq!(stamped.check(b"log/0123456789/x"), Err(Error::Unreadable));
        assert_eq!(stamped.check(b"other"), Ok(()));
        assert_eq!(stamped.check_range(b"log/", b"log0"), Err(Error::Unreadable));
        assert_eq!(stamped.check_range(b"m", b"v"), Ok(()));
        assert_eq!(stamped.check_range(b"m", b"w"), Err(Error::Unreadable));
        stamped.settle_range(b"u", b"w");
        assert_eq!(stamped.check(b"v"), Ok(()));
    }
}
