//! One frame of a body: up to 64 KiB of content, compressed where that gains, encrypted, under a checksum; the same on
//! every place.
//!
//! Frames keep partial reads cheap: a client that fetches the header of a 20 MB mail costs one frame. The header says
//! which body and which place in it a frame belongs to, so that a misplaced frame is found as surely as a flipped bit.
//! Octets, little-endian: magic 4, version 1, codec 1, zero 2, content length 4, stored length 4, index 4, stage 16,
//! checksum 4 of all of that and of what follows. The cipher's tag ends the frame and covers the header too; the checksum
//! tells damage from a wrong key and needs none.

use std::cell::RefCell;

use bytes::Bytes;

use super::cipher::{DataKey, TAG};
use crate::error::Error;

/// Octets of content in every frame but the last.
pub(crate) const CONTENT_MAX: usize = 64 << 10;
pub(crate) const HEADER: usize = 40;
/// Octets of the longest frame.
pub(crate) const FRAME_MAX: usize = HEADER + CONTENT_MAX + TAG;

const MAGIC: [u8; 4] = *b"PHfr";
const VERSION: u8 = 3;
const LEVEL: i32 = 1;
const CHECKSUM: usize = 4;

/// How the content of a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Plain = 0,
    Zstd = 1,
}

/// One writing of a body, by a random number: long enough that no two writings ever share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StageId([u8; StageId::LENGTH]);

impl StageId {
    pub(crate) const LENGTH: usize = 16;

    pub(crate) const fn new(octets: [u8; Self::LENGTH]) -> Self {
        Self(octets)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Which frame: the stage of the body and the place in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameId {
    pub(crate) stage: StageId,
    pub(crate) index: u32,
}

struct Coder {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

thread_local! {
    // A context costs more to make than a small frame to compress.
    static CODER: RefCell<Option<Coder>> = const { RefCell::new(None) };
}

fn with_coder<T>(work: impl FnOnce(&mut Coder) -> std::io::Result<T>) -> std::io::Result<T> {
    CODER.with_borrow_mut(|slot| {
        if slot.is_none() {
            let compressor = zstd::bulk::Compressor::new(LEVEL)?;
            *slot = Some(Coder { compressor, decompressor: zstd::bulk::Decompressor::new()? });
        }
        slot.as_mut().map_or_else(|| Err(std::io::ErrorKind::OutOfMemory.into()), work)
    })
}

/// Makes a frame of some content.
pub(crate) fn encode(content: &[u8], id: FrameId, key: &DataKey) -> Result<Bytes, Error> {
    let length = to_u32(content.len())?;
    let mut out = vec![0; HEADER + content.len() + TAG];
    // Under five per cent of gain is not worth the time of every later reader. What does not fit there ends early.
    let room = content.len() - (content.len() / 20).max(1).min(content.len());
    let place = &mut out[HEADER..HEADER + room];
    let packed = with_coder(|coder| Ok(coder.compressor.compress_to_buffer(content, place).ok()))
        .map_err(|error| Error::Unavailable(format!("compression failed: {error}")))?;
    let (codec, stored) = match packed {
        Some(stored) => (Codec::Zstd, stored),
        None => {
            out[HEADER..HEADER + content.len()].copy_from_slice(content);
            (Codec::Plain, content.len())
        }
    };
    out.truncate(HEADER + stored);
    let (head, sealed) = out.split_at_mut(HEADER);
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&[VERSION, codec as u8, 0, 0]);
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..16].copy_from_slice(&to_u32(stored + TAG)?.to_le_bytes());
    head[16..20].copy_from_slice(&id.index.to_le_bytes());
    head[20..HEADER - CHECKSUM].copy_from_slice(id.stage.as_bytes());
    let tag = key.seal(id.index, &head[..HEADER - CHECKSUM], sealed)?;
    out.extend_from_slice(&tag);
    let sum = checksum(&out[..HEADER - CHECKSUM], &out[HEADER..]);
    out[HEADER - CHECKSUM..HEADER].copy_from_slice(&sum.to_le_bytes());
    // A staged body keeps its frame in memory: no more than there is of it.
    out.shrink_to_fit();
    Ok(Bytes::from(out))
}

/// Checks that a frame is whole and the one that is meant, which needs no key. The error says what is wrong with it; the
/// caller knows the file and the offset.
pub(crate) fn verify(octets: &[u8], id: FrameId) -> Result<(), &'static str> {
    let (head, stored) = octets.split_at_checked(HEADER).ok_or("a frame is cut short")?;
    let (covered, sum) = head.split_at(HEADER - CHECKSUM);
    if covered[..4] != MAGIC {
        return Err("no frame begins here");
    }
    if sum != checksum(covered, stored).to_le_bytes() {
        return Err("a frame's checksum is wrong");
    }
    if covered[4] != VERSION {
        return Err("a frame has an unknown version");
    }
    let length = number(&covered[8..12]);
    if number(&covered[12..16]) != stored.len() {
        return Err("a frame's length is wrong");
    }
    if covered[16..20] != id.index.to_le_bytes() || covered[20..36] != *id.stage.as_bytes() {
        return Err("a frame belongs to another body");
    }
    if length > CONTENT_MAX {
        return Err("a frame's content is too long");
    }
    Ok(())
}

/// Reads a frame back.
pub(crate) fn decode(octets: &[u8], id: FrameId, key: &DataKey) -> Result<Vec<u8>, &'static str> {
    verify(octets, id)?;
    let (head, sealed) = octets.split_at_checked(HEADER).ok_or("a frame is cut short")?;
    let covered = &head[..HEADER - CHECKSUM];
    let length = number(&covered[8..12]);
    let stored = key.open(id.index, covered, sealed).ok_or("a frame is encrypted under another key")?;
    let content = match covered[5] {
        codec if codec == Codec::Plain as u8 => stored,
        codec if codec == Codec::Zstd as u8 => with_coder(|coder| coder.decompressor.decompress(&stored, length))
            .map_err(|_| "a frame's content can't be expanded")?,
        _ => return Err("a frame has an unknown codec"),
    };
    if content.len() == length { Ok(content) } else { Err("a frame's content has the wrong length") }
}

fn checksum(covered: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(stored);
    hasher.finalize()
}

fn to_u32(length: usize) -> Result<u32, Error> {
    let too_large = |_| Error::TooLarge { what: "a frame", size: u64::MAX, max: CONTENT_MAX as u64 };
    u32::try_from(length).map_err(too_large)
}

fn number(octets: &[u8]) -> usize {
    octets.iter().rev().fold(0, |sum, octet| (sum << 8) | usize::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FrameId = FrameId { stage: StageId::new([7; 16]), index: 3 };

    fn key() -> DataKey {
        DataKey::new(posthouse_mail::secret::Secret::new([9; 32]))
    }

    fn encoded(content: &[u8]) -> Vec<u8> {
        encode(content, ID, &key()).expect("a frame").to_vec()
    }

    fn decode(octets: &[u8], id: FrameId) -> Result<Vec<u8>, &'static str> {
        super::decode(octets, id, &key())
    }

    #[test]
    fn text_shrinks_and_noise_does_not() {
        let text = b"mail ".repeat(2000);
        let frame = encoded(&text);
        assert!(frame.len() < text.len() / 2);
        assert_eq!(decode(&frame, ID).as_deref(), Ok(text.as_slice()));
        let noise: Vec<u8> = (0..5000u32).map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[0]).collect();
        let frame = encoded(&noise);
        assert_eq!(frame.len(), noise.len() + HEADER + TAG);
        assert_eq!(decode(&frame, ID).as_deref(), Ok(noise.as_slice()));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = encoded(&b"a body that is long enough to be squeezed ".repeat(20));
        for place in 0..frame.len() {
            for bit in 0..8 {
                let mut hurt = frame.clone();
                hurt[place] ^= 1 << bit;
                assert!(decode(&hurt, ID).is_err(), "octet {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_shows_nothing_of_its_content_and_opens_under_its_key_only() {
        let frame = encoded(b"the quick brown fox");
        assert!(!frame.windows(5).any(|part| part == b"quick"));
        assert_eq!(verify(&frame, ID), Ok(()));
        let other = DataKey::random().expect("a key");
        assert_eq!(super::decode(&frame, ID, &other), Err("a frame is encrypted under another key"));
    }

    #[test]
    fn a_short_or_foreign_frame_is_refused() {
        let frame = encoded(b"content");
        assert_eq!(decode(&frame[..HEADER - 1], ID), Err("a frame is cut short"));
        assert_eq!(decode(&frame, FrameId { index: 4, ..ID }), Err("a frame belongs to another body"));
        assert_eq!(decode(&[0; 64], ID), Err("no frame begins here"));
    }
}
