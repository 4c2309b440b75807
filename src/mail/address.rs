//! Addresses as the envelope and the store know them: a local part and a domain.
//!
//! Apart from header parsing on purpose: RFC 5321 §4.1.2 is stricter than RFC 5322 §3.4. A domain is kept in one
//! canonical form (lower case, A-labels) so that equal domains are equal bytes; a local part keeps its case, and
//! `Address::key` folds it, because every domain that we host treats local parts without case (RFC 5321 §2.4 leaves
//! that to the host).

use std::fmt;

use thiserror::Error;

/// RFC 5321 §4.5.3.1.1: octets in a local part.
pub const LOCAL_PART_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2: octets in a domain.
pub const DOMAIN_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.3: octets in a path, the angle brackets included.
pub const PATH_MAX: usize = 256;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("the address has no @")]
    NoAt,
    #[error("the local part is empty or has a character that needs quotes")]
    LocalPart,
    #[error("the local part is longer than {LOCAL_PART_MAX} octets")]
    LocalPartTooLong,
    #[error("the domain is not a host name or an address literal")]
    Domain,
    #[error("the domain is longer than {DOMAIN_MAX} octets")]
    DomainTooLong,
    #[error("the address has a control character")]
    Control,
}

/// A domain name in lower-case A-labels, or an address literal such as `[192.0.2.1]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Reads a domain name (RFC 5321 §4.1.2, U-labels of RFC 6531 allowed) or an address literal (§4.1.3).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > DOMAIN_MAX * 4 {
            return Err(AddressError::DomainTooLong);
        }
        if let Some(literal) = text.strip_prefix('[') {
            return literal.strip_suffix(']').and_then(Self::parse_literal).ok_or(AddressError::Domain);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::STD3)
                .map_err(|_| AddressError::Domain)?
                .into_owned()
        };
        if ascii.len() > DOMAIN_MAX {
            return Err(AddressError::DomainTooLong);
        }
        // A trailing dot is DNS notation, not RFC 5321 §4.1.2 `Domain`.
        let well_formed = !ascii.is_empty() && ascii.split('.').all(is_label);
        if well_formed { Ok(Self(ascii)) } else { Err(AddressError::Domain) }
    }

    fn parse_literal(inner: &str) -> Option<Self> {
        if let Ok(v4) = inner.parse::<std::net::Ipv4Addr>() {
            return Some(Self(format!("[{v4}]")));
        }
        let tag = inner.get(..5)?;
        if !tag.eq_ignore_ascii_case("IPv6:") {
            return None;
        }
        let v6 = inner[5..].parse::<std::net::Ipv6Addr>().ok()?;
        Some(Self(format!("[IPv6:{v6}]")))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address inside an address literal.
    pub fn literal_ip(&self) -> Option<std::net::IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("IPv6:") {
            Some(v6) => v6.parse().ok().map(std::net::IpAddr::V6),
            None => inner.parse().ok().map(std::net::IpAddr::V4),
        }
    }

    /// Whether this is an address literal (RFC 5321 §4.1.3).
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

/// RFC 5321 §4.1.2 `sub-domain`, with the underscore that real host names carry.
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part before the @, without quotes: `"a b"@x.org` has the local part `a b`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(String);

impl LocalPart {
    /// Reads a `Dot-string` or a `Quoted-string` (RFC 5321 §4.1.2; UTF-8 of RFC 6531 §3.3 allowed).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let value = match text.strip_prefix('"') {
            Some(rest) => unquote(rest.strip_suffix('"').ok_or(AddressError::LocalPart)?)?,
            None if is_dot_string(text) => text.to_owned(),
            None => return Err(AddressError::LocalPart),
        };
        if value.len() > LOCAL_PART_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        Ok(Self(value))
    }

    /// The content, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Splits `user+detail` at the first separator: the base and, where present, the detail (RFC 5233 §1).
    pub fn split_detail(&self, separator: char) -> (LocalPart, Option<&str>) {
        match self.0.split_once(separator) {
            Some((base, detail)) if !base.is_empty() => (LocalPart(base.to_owned()), Some(detail)),
            _ => (self.clone(), None),
        }
    }
}

/// RFC 5321 §4.1.2 `Dot-string`.
fn is_dot_string(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 §3.2.3 `atext`, widened to UTF-8 by RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

/// RFC 5321 §4.1.2 `QcontentSMTP`: printable text, each backslash quoting one printable character.
fn unquote(inner: &str) -> Result<String, AddressError> {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().ok_or(AddressError::LocalPart)?,
            '"' => return Err(AddressError::LocalPart),
            c => c,
        };
        if c.is_control() {
            return Err(AddressError::Control);
        }
        out.push(c);
    }
    Ok(out)
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One mailbox address: `local@domain`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub local: LocalPart,
    pub domain: Domain,
}

impl Address {
    /// Reads RFC 5321 §4.1.2 `Mailbox`. The @ that counts is the last one outside quotes.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        let at = text.rfind('@').ok_or(AddressError::NoAt)?;
        Ok(Self { local: LocalPart::parse(&text[..at])?, domain: Domain::parse(&text[at + 1..])? })
    }

    /// The form under which an address is looked up: the local part folded to lower case.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.as_str().to_lowercase(), self.domain.as_str())
    }

    /// Whether the address needs SMTPUTF8 on its way (RFC 6531 §3.3); domains are already A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.as_str().is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl std::str::FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = match Address::parse(text) {
            Ok(address) => address.to_string(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(shown, expect, "{text:?}");
    }

    #[test]
    fn rfc5321_4_1_2_mailbox_grammar() {
        check("alice@Example.ORG", "alice@example.org");
        check("\"a b\"@x.org", "\"a b\"@x.org");
        check("\"a@b\"@x.org", "\"a@b\"@x.org");
        check("\"simple\"@x.org", "simple@x.org");
        check("a@[192.0.2.1]", "a@[192.0.2.1]");
        check("a@[IPv6:2001:DB8::1]", "a@[IPv6:2001:db8::1]");
        check("a@bücher.example", "a@xn--bcher-kva.example");
        check("dömi@x.org", "dömi@x.org");
        check("a..b@x.org", "LocalPart");
        check("a b@x.org", "LocalPart");
        check("@x.org", "LocalPart");
        check("a", "NoAt");
        check("a@", "Domain");
        check("a@x..org", "Domain");
        check("a@-x.org", "Domain");
        check("a@x.org.", "Domain");
        check("a\u{0}@x.org", "Control");
        check(&format!("{}@x.org", "a".repeat(65)), "LocalPartTooLong");
        check(&format!("a@{}org", "a.".repeat(140)), "DomainTooLong");
    }

    #[test]
    fn local_parts_compare_without_case_in_the_key_only() {
        let address = Address::parse("Alice.B@X.org").expect("an address");
        assert_eq!(address.key(), "alice.b@x.org");
        assert_eq!(address.to_string(), "Alice.B@x.org");
    }

    #[test]
    fn detail_is_what_follows_the_first_separator() {
        let local = LocalPart::parse("alice+lists+rust").expect("a local part");
        let (base, detail) = local.split_detail('+');
        assert_eq!((base.as_str(), detail), ("alice", Some("lists+rust")));
        let plain = LocalPart::parse("+odd").expect("a local part");
        assert_eq!(plain.split_detail('+').1, None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_back_equal(text in "\\PC{0,40}@\\PC{0,40}") {
            if let Ok(address) = Address::parse(&text) {
                proptest::prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
