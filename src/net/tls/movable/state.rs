//! A movable TLS connection at rest, and the layout in which it crosses to another process.
//!
//! Suite and buffers are checked when they are read, so that a value that decodes can always go on.

use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::Facts;
use super::keys::{Keys, MATERIAL_MAX};
use super::record::{FRAGMENT_MAX, Flags, INPUT_MAX, MISUSE_MAX, OUTPUT_MAX};
use crate::error::Error;
use crate::frozen::{Reader, Writer};
use crate::tls::provider;

/// Everything of a TLS connection but its socket.
pub(crate) struct FrozenTls {
    pub(super) suite: SupportedCipherSuite,
    pub(super) rx: Keys,
    pub(super) tx: Keys,
    pub(super) flags: Flags,
    /// Records in a row that carried no data.
    pub(super) misuse: u8,
    /// The start of a KeyUpdate whose rest is in a later record.
    pub(super) fragment: Vec<u8>,
    /// Decrypted and not yet read by the session.
    pub(super) plain: Zeroizing<Vec<u8>>,
    /// Read from the socket and not yet decrypted: whole records or a part of one.
    pub(super) input: Vec<u8>,
    /// Encrypted and not yet taken by the socket.
    pub(super) output: Vec<u8>,
    pub(super) facts: Facts,
}

/// Octets of a layout beside its three buffers: numbers, secrets, fragment, a server name, the exporter's value.
const FIXED_MAX: usize = 1024;
/// A DNS name in text (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;
const EXPORTER: usize = 32;

impl FrozenTls {
    pub(crate) fn size_max(&self) -> usize {
        FIXED_MAX + self.plain.len() + self.input.len() + self.output.len()
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.short(u16::from(self.suite.version().version));
        writer.short(u16::from(self.suite.suite()));
        for keys in [&self.rx, &self.tx] {
            writer.number(keys.seq);
            writer.bytes(keys.material());
        }
        writer.byte(self.flags.bits());
        writer.byte(self.misuse);
        writer.bytes(&self.fragment);
        writer.bytes(&self.plain);
        writer.bytes(&self.input);
        writer.bytes(&self.output);
        // An empty name is none: the extension has no room for one (RFC 6066 §3).
        writer.bytes(self.facts.server_name.as_deref().unwrap_or_default().as_bytes());
        writer.bytes(self.facts.exporter.as_ref().map_or(&[], |exporter| &exporter[..]));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let version = ProtocolVersion::from(reader.short()?);
        let suite = find(version, CipherSuite::from(reader.short()?))?;
        let rx = keys(reader, suite)?;
        let tx = keys(reader, suite)?;
        let flags = Flags::of_bits(reader.byte()?).ok_or(Error::Frozen("an unknown mark"))?;
        let misuse = reader.byte()?;
        let fragment = reader.bytes(FRAGMENT_MAX)?.to_vec();
        let updates = flags.key_update_owed || !fragment.is_empty();
        if misuse > MISUSE_MAX || (updates && suite.tls13().is_none()) {
            return Err(Error::Frozen("what no connection gets to"));
        }
        let plain = reader.bytes(INPUT_MAX)?;
        let input = reader.bytes(INPUT_MAX - plain.len())?.to_vec();
        let output = reader.bytes(OUTPUT_MAX)?.to_vec();
        let facts = Facts { server_name: server_name(reader)?, exporter: exporter(reader)? };
        let plain = Zeroizing::new(plain.to_vec());
        Ok(Self { suite, rx, tx, flags, misuse, fragment, plain, input, output, facts })
    }
}

fn find(version: ProtocolVersion, name: CipherSuite) -> Result<SupportedCipherSuite, Error> {
    let provider = provider();
    let found = provider.cipher_suites.iter().find(|suite| suite.suite() == name && suite.version().version == version);
    found.copied().ok_or(Error::Frozen("a cipher suite that this program does not have"))
}

fn keys(reader: &mut Reader<'_>, suite: SupportedCipherSuite) -> Result<Keys, Error> {
    let seq = reader.number()?;
    let material = Zeroizing::new(reader.bytes(MATERIAL_MAX)?.to_vec());
    Keys::new(suite, material, seq).map_err(|_| Error::Frozen("a key that does not fit its suite"))
}

fn server_name(reader: &mut Reader<'_>) -> Result<Option<Box<str>>, Error> {
    let name = reader.bytes(NAME_MAX)?;
    let name = std::str::from_utf8(name).map_err(|_| Error::Frozen("a server name that is no text"))?;
    Ok((!name.is_empty()).then(|| name.into()))
}

fn exporter(reader: &mut Reader<'_>) -> Result<Option<Zeroizing<[u8; EXPORTER]>>, Error> {
    let value = reader.bytes(EXPORTER)?;
    if value.is_empty() {
        return Ok(None);
    }
    let value = value.try_into().map_err(|_| Error::Frozen("a channel binding of another length"))?;
    Ok(Some(Zeroizing::new(value)))
}
