//! The envelope: paths and the parameters of MAIL and RCPT, never header fields.

use std::fmt;

use crate::address::{Address, AddressError, LocalPart};
use crate::id::IngestId;

/// The argument of MAIL (RFC 5321 §4.1.1.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: reports, which must never cause another report (RFC 5321 §4.5.5).
    Null,
    Address(Address),
}

impl ReversePath {
    /// The address, where there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }

    /// Reads the text between the angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { Address::parse(text).map(Self::Address) }
    }
}

/// Without the angle brackets: `alice@example.org`, or nothing for the null path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().map_or(Ok(()), |address| address.fmt(f))
    }
}

impl fmt::Debug for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// The argument of RCPT (RFC 5321 §4.1.1.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForwardPath {
    Address(Address),
    /// `<Postmaster>` without a domain, which every server must take (RFC 5321 §4.5.1).
    Postmaster,
}

impl ForwardPath {
    /// Reads the text between the angle brackets; a source route must have been cut off before.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Address::parse(text).map(Self::Address)
    }

    /// The address, where the path names a domain.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::Postmaster => None,
        }
    }

    /// Whether the local part is `postmaster`, with a domain or without.
    pub fn is_postmaster(&self) -> bool {
        match self {
            Self::Postmaster => true,
            Self::Address(Address { local, .. }) => LocalPart::as_str(local).eq_ignore_ascii_case("postmaster"),
        }
    }
}

/// Without the angle brackets.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Postmaster => f.write_str("Postmaster"),
        }
    }
}

impl fmt::Debug for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// BODY= of MAIL (RFC 6152 §2, RFC 3030 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    #[default]
    SevenBit,
    EightBitMime,
    BinaryMime,
}

/// RET= of MAIL (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DsnReturn {
    Full,
    Headers,
}

/// NOTIFY= of RCPT (RFC 3461 §4.1). The default asks for failures only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DsnNotify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

impl DsnNotify {
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

impl Default for DsnNotify {
    fn default() -> Self {
        Self { success: false, failure: true, delay: true }
    }
}

/// ORCPT= of RCPT (RFC 3461 §4.2): address type and the address as the sender wrote it, xtext decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient {
    pub address_type: String,
    pub address: String,
}

/// One accepted RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub path: ForwardPath,
    pub notify: DsnNotify,
    pub original: Option<OriginalRecipient>,
}

impl Recipient {
    /// A recipient without DSN parameters.
    pub fn new(path: ForwardPath) -> Self {
        Self { path, notify: DsnNotify::default(), original: None }
    }
}

/// What MAIL and RCPT said (RFC 5321 §2.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Given at MAIL; names the message in every log line from here to its last delivery.
    pub id: IngestId,
    pub reverse_path: ReversePath,
    pub recipients: Vec<Recipient>,
    pub body: BodyType,
    pub smtputf8: bool,
    /// SIZE= as declared (RFC 1870 §6), in octets.
    pub declared_size: Option<u64>,
    /// ENVID= (RFC 3461 §4.4), xtext decoded.
    pub envelope_id: Option<String>,
    pub dsn_return: Option<DsnReturn>,
}

impl Envelope {
    /// An envelope that has seen MAIL without parameters.
    pub fn new(id: IngestId, reverse_path: ReversePath) -> Self {
        Self {
            id,
            reverse_path,
            recipients: Vec::new(),
            body: BodyType::default(),
            smtputf8: false,
            declared_size: None,
            envelope_id: None,
            dsn_return: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmaster_needs_no_domain() {
        assert_eq!(ForwardPath::parse("PostMaster"), Ok(ForwardPath::Postmaster));
        assert!(ForwardPath::parse("postmaster@x.org").expect("a path").is_postmaster());
        assert_eq!(ForwardPath::parse("alice"), Err(AddressError::NoAt));
    }

    #[test]
    fn the_null_reverse_path_is_not_an_address() {
        assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
        assert_eq!(ReversePath::Null.to_string(), "");
    }
}
