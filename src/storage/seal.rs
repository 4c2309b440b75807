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

/// Turns a single flipped bit back, in the value or in its seal. `None`: more than one is wrong.
///
/// A CRC is linear: what it is wrong by tells where the bit is. Up to some ten thousand octets two flipped bits never look
/// like one; three or more do about once in a million, in a row of a kilobyte.
pub(crate) fn turn_back(key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    /// The polynomial of CRC-32, low bit first.
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let (value, seal) = sealed.split_last_chunk::<WIDTH>()?;
    let wrong_by = u32::from_le_bytes(checksum(key, value)) ^ u32::from_le_bytes(*seal);
    if wrong_by.is_power_of_two() {
        return Some(close(key, value));
    }
    let mut flipped = POLYNOMIAL;
    for place in (0..value.len() * 8).rev() {
        if flipped == wrong_by {
            let mut value = value.to_vec();
            value[place / 8] ^= 1 << (place % 8);
            return Some(close(key, &value));
        }
        flipped = (flipped >> 1) ^ if flipped & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    None
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
    fn one_flipped_bit_is_turned_back_and_two_are_not() {
        let sealed = close(b"key", b"some value of a row");
        let hurt = |places: &[usize]| {
            let mut hurt = sealed.clone();
            places.iter().for_each(|place| hurt[place / 8] ^= 1 << (place % 8));
            turn_back(b"key", &hurt)
        };
        for place in 0..sealed.len() * 8 {
            assert_eq!(hurt(&[place]), Some(sealed.clone()), "bit {place}");
            assert_eq!(hurt(&[place, (place + 7) % (sealed.len() * 8)]), None, "bit {place} and another");
        }
    }

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
