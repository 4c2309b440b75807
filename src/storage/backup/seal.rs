//! How octets lie in a backup: frames of at most a mebibyte, compressed where that gains, encrypted or checksummed.
//!
//! Each object has a salt of its own, from which its key comes, and its frames are numbered: so no nonce is ever used
//! twice, and a frame is accepted only at its own place in its own object. Without encryption the same sixteen octets
//! behind a frame are a checksum over number and content.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use posthouse_mail::secret::Secret;

use crate::error::Error;

/// Octets of content in one frame.
pub(crate) const CONTENT_MAX: usize = 1 << 20;
/// Octets before the frames of an object.
pub(crate) const HEADER: usize = 24;
/// Octets of a frame besides its content: length, codec, tag.
pub(crate) const OVERHEAD: usize = 4 + 1 + TAG;

const MAGIC: [u8; 4] = *b"PHB\x01";
const TAG: usize = 16;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
const LEVEL: i32 = 1;
/// Up to this size the runtime's own thread compresses and seals.
const SMALL: usize = 16 << 10;

/// What an object is for; part of its key, so that one cannot stand in for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pack,
    Rows,
    Point,
}

/// The key of a target, or none.
#[derive(Clone)]
pub(crate) struct Sealer {
    key: Option<Secret<[u8; 32]>>,
    names: [u8; 32],
}

impl Sealer {
    /// `target` is the target's own random id.
    pub fn new(key: Option<Secret<[u8; 32]>>, target: &[u8]) -> Self {
        // Names are hashes of contents: under a secret key they tell nobody what a backup holds.
        let of = key.as_ref().map_or(target, |key| key.reveal().as_slice());
        let names = blake3::derive_key("posthouse backup 1 names", of);
        Self { key, names }
    }

    /// The name of a content.
    pub fn name(&self, content: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.names, content).as_bytes()
    }

    /// Begins an object: its cipher and the header that stands before its frames.
    pub fn begin(&self, kind: Kind) -> (Cipher, [u8; HEADER]) {
        let salt: [u8; 16] = rand::random();
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = kind.octet();
        header[5] = u8::from(self.key.is_some());
        header[8..].copy_from_slice(&salt);
        (self.cipher(kind, &salt), header)
    }

    /// The cipher of an object that was written.
    pub fn open(&self, kind: Kind, header: &[u8]) -> Result<Cipher, Error> {
        let damaged = || Error::BackupDamaged("an object has no header of ours".to_owned());
        let header: &[u8; HEADER] = header.get(..HEADER).and_then(|h| h.try_into().ok()).ok_or_else(damaged)?;
        let expect = [MAGIC.as_slice(), &[kind.octet(), u8::from(self.key.is_some()), 0, 0]].concat();
        if header[..8] != expect {
            return Err(damaged());
        }
        Ok(self.cipher(kind, &header[8..]))
    }

    fn cipher(&self, kind: Kind, salt: &[u8]) -> Cipher {
        let under = self.key.as_ref().map_or([0; 32], |key| *key.reveal());
        let mut hasher = blake3::Hasher::new_keyed(&under);
        hasher.update(b"posthouse backup 1 object").update(&[kind.octet()]).update(salt);
        let key = *hasher.finalize().as_bytes();
        if self.key.is_none() {
            return Cipher::Checksum(key);
        }
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("a key of 32 octets fits AES-256");
        Cipher::Aead(Box::new(LessSafeKey::new(key)))
    }
}

impl Kind {
    const fn octet(self) -> u8 {
        match self {
            Self::Pack => 1,
            Self::Rows => 2,
            Self::Point => 3,
        }
    }
}

/// Seals and opens the frames of one object.
pub(crate) enum Cipher {
    Aead(Box<LessSafeKey>),
    Checksum([u8; 32]),
}

impl Cipher {
    /// A frame as it is written: four octets of length, then that many.
    pub fn seal(&self, number: u32, content: &[u8]) -> Result<Vec<u8>, Error> {
        debug_assert!(content.len() <= CONTENT_MAX, "a frame is bounded");
        let packed = zstd::bulk::compress(content, LEVEL)
            .map_err(|error| Error::Unavailable(format!("a frame was not compressed: {error}")))?;
        let mut frame = Vec::with_capacity(packed.len().min(content.len()) + OVERHEAD);
        if packed.len() < content.len() {
            frame.push(ZSTD);
            frame.extend_from_slice(&packed);
        } else {
            frame.push(RAW);
            frame.extend_from_slice(content);
        }
        match self {
            Self::Aead(key) => {
                let sealed = key.seal_in_place_append_tag(nonce(number), Aad::empty(), &mut frame);
                sealed.map_err(|_| Error::Unavailable("a frame was not encrypted".to_owned()))?;
            }
            Self::Checksum(key) => {
                let sum = checksum(key, number, &frame);
                frame.extend_from_slice(&sum);
            }
        }
        let length = u32::try_from(frame.len()).map_err(|_| Error::Limit { what: "octets of a frame" })?;
        let mut whole = length.to_be_bytes().to_vec();
        whole.append(&mut frame);
        Ok(whole)
    }

    /// The content of a frame, given with its length octets.
    pub fn open(&self, number: u32, frame: &[u8]) -> Result<Vec<u8>, Error> {
        let damaged = || Error::BackupDamaged(format!("frame {number} is not what was written"));
        let (length, rest) = frame.split_first_chunk::<4>().ok_or_else(damaged)?;
        if usize::try_from(u32::from_be_bytes(*length)).ok() != Some(rest.len()) || rest.len() < TAG + 1 {
            return Err(damaged());
        }
        let mut buffer = rest.to_vec();
        match self {
            Self::Aead(key) => {
                let opened = key.open_in_place(nonce(number), Aad::empty(), &mut buffer);
                let length = opened.map_err(|_| damaged())?.len();
                buffer.truncate(length);
            }
            Self::Checksum(key) => {
                let (content, tag) = rest.split_at(rest.len() - TAG);
                if checksum(key, number, content) != tag {
                    return Err(damaged());
                }
                buffer.truncate(content.len());
            }
        }
        match buffer.split_first() {
            Some((&RAW, content)) => Ok(content.to_vec()),
            Some((&ZSTD, packed)) => zstd::bulk::decompress(packed, CONTENT_MAX).map_err(|_| damaged()),
            _ => Err(damaged()),
        }
    }
}

/// A target's key under another key, which is used for nothing else.
pub(crate) fn wrap(under: &Secret<[u8; 32]>, key: &[u8; 32]) -> Result<Vec<u8>, Error> {
    let mut octets = key.to_vec();
    let sealed = wrapping(under).seal_in_place_append_tag(nonce(0), Aad::empty(), &mut octets);
    sealed.map_err(|_| Error::Unavailable("a key was not encrypted".to_owned()))?;
    Ok(octets)
}

/// The key again; `None` under any other key.
pub(crate) fn unwrap(under: &Secret<[u8; 32]>, wrapped: &[u8]) -> Option<Secret<[u8; 32]>> {
    let mut octets = wrapped.to_vec();
    let key = wrapping(under).open_in_place(nonce(0), Aad::empty(), &mut octets).ok()?;
    <[u8; 32]>::try_from(&*key).ok().map(Secret::new)
}

fn wrapping(under: &Secret<[u8; 32]>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, under.reveal()).expect("a key of 32 octets fits AES-256"))
}

/// Runs work on so many octets: on the blocking pool, unless it is done sooner than it is handed over.
pub(crate) async fn off_thread<T: Send + 'static>(
    octets: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if octets <= SMALL {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Unavailable(format!("a task of the backup ended early: {error}")))?
}

fn nonce(number: u32) -> Nonce {
    let mut octets = [0; 12];
    octets[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

fn checksum(key: &[u8; 32], number: u32, content: &[u8]) -> [u8; TAG] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_be_bytes()).update(content);
    let mut sum = [0; TAG];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..TAG]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealers() -> [Sealer; 2] {
        [Sealer::new(None, b"target"), Sealer::new(Some(Secret::new([7; 32])), b"target")]
    }

    #[test]
    fn frames_are_read_back_only_at_their_place() {
        for sealer in sealers() {
            let (cipher, header) = sealer.begin(Kind::Pack);
            let content = b"Subject: hello\r\n".repeat(100);
            let frame = cipher.seal(3, &content).expect("sealed");
            assert!(frame.len() < content.len());
            let reader = sealer.open(Kind::Pack, &header).expect("our header");
            assert_eq!(reader.open(3, &frame), Ok(content));
            assert!(reader.open(4, &frame).is_err());
            assert!(sealer.open(Kind::Rows, &header).is_err());
            for place in 0..frame.len() {
                let mut wrong = frame.clone();
                wrong[place] ^= 1;
                assert!(reader.open(3, &wrong).is_err(), "octet {place}");
            }
            assert!(reader.open(3, &frame[..frame.len() - 1]).is_err());
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        let [_, sealer] = sealers();
        let (cipher, header) = sealer.begin(Kind::Rows);
        let frame = cipher.seal(0, b"secret").expect("sealed");
        assert!(!frame.windows(6).any(|w| w == b"secret"));
        let other = Sealer::new(Some(Secret::new([8; 32])), b"target");
        assert!(other.open(Kind::Rows, &header).expect("a header").open(0, &frame).is_err());
    }
}
