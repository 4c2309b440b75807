//! A connection as a value: what crosses to another process beside its socket.
//!
//! The value *is* the session: it holds traffic secrets and unread plaintext. It goes through a unix socket
//! to a process of the same user, never to disk and never over a network; encoded forms are wiped when dropped, and no type
//! here has `Debug`.
//!
//! Form: what it is, the version of its layout, the layout, and the start of a SHA-256 over all of this, so that a value cut
//! short or altered is an error and never a session that goes wrong later. A program reads its own version and the one
//! before; the golden values in the tests decode for ever.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::tls::movable::FrozenTls;

/// A transport without its socket, as `Transport::freeze` makes it.
pub struct FrozenTransport {
    /// `None`: plain TCP, of which the kernel knows everything.
    pub(crate) tls: Option<FrozenTls>,
}

/// A line stream without its socket, as `LineStream::freeze` makes it.
pub struct FrozenStream {
    pub(crate) transport: FrozenTransport,
    /// What was read and not yet consumed.
    pub(crate) input: Zeroizing<Vec<u8>>,
    pub(crate) input_max: usize,
}

/// The version of both layouts that is written.
const VERSION: u8 = FrozenStream::VERSION;
/// The oldest one that is read; N-1 as soon as there is a second.
const VERSION_MIN: u8 = 1;
const DIGEST: usize = 8;
/// Octets around a layout: kind, version, digest.
const ENVELOPE: usize = 2 + DIGEST;
/// More unread input than any session allows itself; a longer one is damage.
pub(crate) const INPUT_MAX: usize = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Transport = b'T',
    Stream = b'S',
}

impl FrozenStream {
    /// The version of its form.
    pub const VERSION: u8 = 1;
}

impl FrozenTransport {
    /// The value as octets of the current version.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new(Kind::Transport, 1 + self.tls.as_ref().map_or(0, FrozenTls::size_max));
        writer.byte(u8::from(self.tls.is_some()));
        if let Some(tls) = &self.tls {
            tls.encode(&mut writer);
        }
        writer.seal()
    }

    /// Reads what `encode` of this or the previous version wrote.
    ///
    /// # Errors
    /// `Frozen` for everything else, whatever it is: input is checked whole, and nothing in it makes this panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::unseal(Kind::Transport, bytes)?;
        let tls = match reader.byte()? {
            0 => None,
            1 => Some(FrozenTls::decode(&mut reader)?),
            _ => return Err(Error::Frozen("neither plain nor TLS")),
        };
        reader.end()?;
        Ok(Self { tls })
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl FrozenStream {
    /// The value as octets of the current version.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let transport = self.transport.encode();
        let mut writer = Writer::new(Kind::Stream, 8 + 4 + self.input.len() + 4 + transport.len());
        writer.number(u64::try_from(self.input_max).unwrap_or(u64::MAX));
        writer.bytes(&self.input);
        writer.bytes(&transport);
        writer.seal()
    }

    /// Reads what `encode` of this or the previous version wrote.
    ///
    /// # Errors
    /// As [`FrozenTransport::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::unseal(Kind::Stream, bytes)?;
        let input_max = usize::try_from(reader.number()?).unwrap_or(usize::MAX).max(1);
        let input = Zeroizing::new(reader.bytes(INPUT_MAX)?.to_vec());
        let transport = FrozenTransport::decode(reader.bytes(usize::MAX)?)?;
        reader.end()?;
        Ok(Self { transport, input, input_max })
    }

    pub fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

/// Builds one value. Its room is taken at once: a buffer that grows would leave copies of secrets behind.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn new(kind: Kind, size_max: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ENVELOPE + size_max));
        bytes.extend_from_slice(&[kind as u8, VERSION]);
        Self(bytes)
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn short(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("no buffer of a connection grows to four gigabytes");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn seal(mut self) -> Zeroizing<Vec<u8>> {
        let seal = digest_of(&self.0);
        self.0.extend_from_slice(&seal);
        self.0
    }
}

/// Reads one value; every call checks what is left.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn unseal(kind: Kind, bytes: &'a [u8]) -> Result<Self, Error> {
        let length = bytes.len().checked_sub(DIGEST).ok_or(CUT_SHORT)?;
        let (sealed, seal) = bytes.split_at(length);
        let [found, version, layout @ ..] = sealed else {
            return Err(CUT_SHORT);
        };
        if *found != kind as u8 {
            return Err(Error::Frozen("another kind of value"));
        }
        // Asked before the seal: a later version may have another one.
        if !(VERSION_MIN..=VERSION).contains(version) {
            return Err(Error::Frozen("a version that this program does not read"));
        }
        if digest_of(sealed) != seal {
            return Err(Error::Frozen("altered or cut short"));
        }
        Ok(Self(layout))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| CUT_SHORT)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn short(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A piece of at most `max` octets.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], Error> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        if length > max {
            return Err(Error::Frozen("a piece over its limit"));
        }
        self.take(length)
    }

    fn end(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Frozen("something behind its end")) }
    }
}

const CUT_SHORT: Error = Error::Frozen("cut short");

fn digest_of(bytes: &[u8]) -> [u8; DIGEST] {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut start = [0; DIGEST];
    start.copy_from_slice(&hash.as_ref()[..DIGEST]);
    start
}

/// A layout in its envelope: a fuzz target or a test would never hit the digest by itself.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn sealed_transport(layout: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::new(Kind::Transport, layout.len());
    writer.0.extend_from_slice(layout);
    writer.seal()
}
