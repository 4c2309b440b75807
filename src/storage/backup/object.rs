//! Small objects that are read whole: a header, a frame with the length, then the content in frames.

use bytes::Bytes;

use super::seal::{CONTENT_MAX, HEADER, Kind, OVERHEAD, Sealer};
use crate::error::Error;

/// Octets of an object that is read whole.
pub(crate) const OBJECT_MAX: u64 = 256 << 20;

/// An object as it is written.
pub(crate) fn encode(sealer: &Sealer, kind: Kind, content: &[u8]) -> Result<Bytes, Error> {
    let (cipher, header) = sealer.begin(kind);
    let mut out = header.to_vec();
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    out.append(&mut cipher.seal(0, &length.to_be_bytes())?);
    for (number, part) in (1..).zip(content.chunks(CONTENT_MAX)) {
        out.append(&mut cipher.seal(number, part)?);
    }
    Ok(out.into())
}

/// The content of an object.
pub(crate) fn decode(sealer: &Sealer, kind: Kind, octets: &[u8]) -> Result<Vec<u8>, Error> {
    let damaged = || Error::BackupDamaged("an object is cut short".to_owned());
    let cipher = sealer.open(kind, octets)?;
    let mut rest = octets.get(HEADER..).ok_or_else(damaged)?;
    let mut number = 0;
    let mut next = || {
        let frame = first_frame(rest).ok_or_else(damaged)?;
        rest = &rest[frame.len()..];
        let content = cipher.open(number, frame)?;
        number += 1;
        Ok::<_, Error>(content)
    };
    let length = next()?.try_into().map(u64::from_be_bytes).map_err(|_| damaged())?;
    let length = usize::try_from(length).ok().filter(|_| length <= OBJECT_MAX).ok_or_else(damaged)?;
    let mut content = Vec::with_capacity(length.min(octets.len().saturating_mul(4)));
    while content.len() < length {
        content.append(&mut next()?);
    }
    if content.len() == length && rest.is_empty() { Ok(content) } else { Err(damaged()) }
}

/// The first frame of some octets, its length before it.
pub(crate) fn first_frame(octets: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*octets.first_chunk::<4>()?);
    let end = usize::try_from(length).ok()?.checked_add(4)?;
    octets.get(..end).filter(|_| end <= CONTENT_MAX + OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_size_is_read_back_whole_or_not_at_all() {
        let sealer = Sealer::new(None, b"t");
        for size in [0, 1, CONTENT_MAX, CONTENT_MAX + 1, 3 * CONTENT_MAX] {
            let content: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
            let octets = encode(&sealer, Kind::Rows, &content).expect("encoded");
            assert_eq!(decode(&sealer, Kind::Rows, &octets), Ok(content), "{size}");
            assert!(decode(&sealer, Kind::Rows, &octets[..octets.len() - 1]).is_err());
            assert!(decode(&sealer, Kind::Point, &octets).is_err());
        }
        let two = encode(&sealer, Kind::Rows, &vec![7; 2 * CONTENT_MAX]).expect("encoded");
        let first = HEADER + first_frame(&two[HEADER..]).expect("a frame").len();
        let second = first + first_frame(&two[first..]).expect("a frame").len();
        assert!(decode(&sealer, Kind::Rows, &two[..second]).is_err(), "the last frame is missing");
    }
}
