//! The seal of a row: four octets behind its value that bind it to its key.
//!
//! Apart so that one place decides what a damaged row is. A flipped bit, a value under another row's key and a value cut
//! short are seen at the first read, on every engine, whatever stands in the row; what is in free text and repeated
//! nowhere else could not be proved otherwise. Rows that atomic operations move cannot carry one: they are counters, and
//! `check` counts again.

use bytes::Bytes;

use crate::error::Error;
use crate::keys;

/// Octets of a seal.
pub(crate) const WIDTH: usize = 4;

/// A value as it is written under its key.
pub(crate) fn close(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + WIDTH);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&checksum(key, value));
    sealed
}

/// The value of a row as it was read.
pub(crate) fn open(key: &[u8], sealed: &Bytes) -> Result<Bytes, Error> {
    let broken = || Error::Corrupt(format!("the row {} is not what was written there", keys::describe(key)));
    let (value, seal) = sealed.split_last_chunk::<WIDTH>().ok_or_else(broken)?;
    if *seal != checksum(key, value) {
        return Err(broken());
    }
    Ok(sealed.slice(..value.len()))
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; WIDTH] {
    let mut hasher = crc32fast::Hasher::new();
    // The length keeps apart what a longer key and a shorter value would join to the same octets.
    hasher.update(&key.len().to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let sealed = Bytes::from(close(b"key", b"value"));
        assert_eq!(open(b"key", &sealed).as_deref(), Ok(&b"value"[..]));
        assert!(open(b"keyv", &Bytes::from(close(b"key", b"value"))).is_err());
        assert!(open(b"kez", &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(open(b"key", &sealed.slice(..cut)).is_err(), "{cut}");
        }
        for place in 0..sealed.len() * 8 {
            let mut hurt = sealed.to_vec();
            hurt[place / 8] ^= 1 << (place % 8);
            assert!(open(b"key", &Bytes::from(hurt)).is_err(), "bit {place}");
        }
    }
}
