//! The syntax of an SPF record (RFC 7208 §4.6.1, §12): read in full before anything is evaluated, so that an error late in
//! a record shows however early a mechanism matches.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::domain_spec::DomainSpec;
use crate::authentication_results::AuthResult;

/// A record is not what the grammar allows; the result is permerror (RFC 7208 §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyntaxError;

/// A record: directives in order, and where to go when none matches.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub directives: Vec<Directive>,
    pub redirect: Option<DomainSpec>,
}

/// A mechanism and the result that it stands for.
#[derive(Debug)]
pub(crate) struct Directive {
    pub result: AuthResult,
    pub mechanism: Mechanism,
}

/// RFC 7208 §5.
#[derive(Debug)]
pub(crate) enum Mechanism {
    All,
    Include(DomainSpec),
    A(Hosts),
    Mx(Hosts),
    Ptr(Option<DomainSpec>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(DomainSpec),
}

/// Hosts by name, with the bits of their addresses that count.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub name: Option<DomainSpec>,
    pub v4_bits: u8,
    pub v6_bits: u8,
}

/// Whether a TXT record is an SPF record (RFC 7208 §4.5).
pub(crate) fn is_record(text: &[u8]) -> bool {
    text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case(b"v=spf1"))
        && matches!(text.get(6), None | Some(b' '))
}

impl Record {
    /// Reads a record that `is_record`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, SyntaxError> {
        if !text.iter().all(|octet| (b' '..=b'~').contains(octet)) {
            return Err(SyntaxError);
        }
        let text = std::str::from_utf8(text).map_err(|_| SyntaxError)?;
        let mut record = Self::default();
        let mut has_explanation = false;
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            let Some((name, value)) = modifier(term) else {
                record.directives.push(Directive::parse(term)?);
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                // RFC 7208 §6: each of the two must not appear more than once.
                "redirect" if record.redirect.is_none() => record.redirect = Some(DomainSpec::parse(value)?),
                "exp" if !has_explanation => {
                    DomainSpec::parse(value)?;
                    has_explanation = true;
                }
                "redirect" | "exp" => return Err(SyntaxError),
                _ => DomainSpec::check_macros(value)?,
            }
        }
        Ok(record)
    }
}

/// Splits `name=value`; a directive has its colon or slash before any equals sign (RFC 7208 §12 `modifier`).
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let mut octets = name.bytes();
    let starts = octets.next().is_some_and(|octet| octet.is_ascii_alphabetic());
    let goes_on = octets.all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet));
    (starts && goes_on).then_some((name, value))
}

impl Directive {
    fn parse(term: &str) -> Result<Self, SyntaxError> {
        let (result, term) = match term.as_bytes().first() {
            Some(b'+') => (AuthResult::Pass, &term[1..]),
            Some(b'-') => (AuthResult::Fail, &term[1..]),
            Some(b'~') => (AuthResult::SoftFail, &term[1..]),
            Some(b'?') => (AuthResult::Neutral, &term[1..]),
            _ => (AuthResult::Pass, term),
        };
        Ok(Self { result, mechanism: Mechanism::parse(term)? })
    }
}

impl Mechanism {
    fn parse(term: &str) -> Result<Self, SyntaxError> {
        let end = term.find([':', '/']).unwrap_or(term.len());
        let (name, rest) = term.split_at(end);
        let argument = rest.strip_prefix(':');
        let required = || argument.ok_or(SyntaxError);
        match name.to_ascii_lowercase().as_str() {
            "all" if rest.is_empty() => Ok(Self::All),
            "include" => DomainSpec::parse(required()?).map(Self::Include),
            "exists" => DomainSpec::parse(required()?).map(Self::Exists),
            "a" => Hosts::parse(rest).map(Self::A),
            "mx" => Hosts::parse(rest).map(Self::Mx),
            "ptr" if rest.is_empty() => Ok(Self::Ptr(None)),
            "ptr" => DomainSpec::parse(required()?).map(|spec| Self::Ptr(Some(spec))),
            "ip4" => {
                let (address, bits) = network(required()?, 32)?;
                Ok(Self::Ip4(address.parse().map_err(|_| SyntaxError)?, bits))
            }
            "ip6" => {
                let (address, bits) = network(required()?, 128)?;
                Ok(Self::Ip6(address.parse().map_err(|_| SyntaxError)?, bits))
            }
            _ => Err(SyntaxError),
        }
    }
}

impl Hosts {
    /// Reads what follows `a` or `mx`: maybe a name, maybe `/24`, `//64` or `/24//64` (RFC 7208 §5.3).
    fn parse(rest: &str) -> Result<Self, SyntaxError> {
        let (rest, v6_bits) = match rest.rsplit_once("//") {
            Some((rest, digits)) => (rest, bits(digits, 128)?),
            None => (rest, 128),
        };
        // A slash may be part of the name too: only one that just digits follow begins a length.
        let (rest, v4_bits) = match rest.rsplit_once('/') {
            Some((rest, digits)) if digits.bytes().all(|octet| octet.is_ascii_digit()) => (rest, bits(digits, 32)?),
            _ => (rest, 32),
        };
        let name = match rest.strip_prefix(':') {
            Some(name) => Some(DomainSpec::parse(name)?),
            None if rest.is_empty() => None,
            None => return Err(SyntaxError),
        };
        Ok(Self { name, v4_bits, v6_bits })
    }
}

/// Splits an address from its length.
fn network(text: &str, bits_max: u8) -> Result<(&str, u8), SyntaxError> {
    match text.split_once('/') {
        Some((address, digits)) => Ok((address, bits(digits, bits_max)?)),
        None => Ok((text, bits_max)),
    }
}

/// RFC 7208 §12 `ip4-cidr-length`, `ip6-cidr-length`: no sign, no leading zero.
fn bits(digits: &str, bits_max: u8) -> Result<u8, SyntaxError> {
    let plain = digits.bytes().all(|octet| octet.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let count: u8 = digits.parse().map_err(|_| SyntaxError)?;
    if plain && count <= bits_max { Ok(count) } else { Err(SyntaxError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &str, valid: bool) {
        assert_eq!(Record::parse(record.as_bytes()).is_ok(), valid, "{record:?}");
    }

    #[test]
    fn rfc7208_12_records_are_read_in_full() {
        check("v=spf1", true);
        check("v=spf1  A/24 mx:x.org//64 -ALL ", true);
        check("v=spf1 a:foo:bar/baz.example.com/24//64 ~all", true);
        check("v=spf1 ip4:1.2.3.4/0 ip6:::1/128 exists:%{ir}.x.org unknown=%{s}", true);
        check("v=spf1 -all moo", false);
        check("v=spf1 all:x.org", false);
        check("v=spf1 include", false);
        check("v=spf1 ip4:1.2.3.4/033", false);
        check("v=spf1 ip4:1.2.3.4/33", false);
        check("v=spf1 ip4:1.2.3", false);
        check("v=spf1 a/24/64", false);
        check("v=spf1 redirect=x.org redirect=y.org", false);
        check("v=spf1 unknown=%", false);
        check("v=spf1 -redirect=x.org", false);
        check("v=spf1 \u{7f} -all", false);
    }

    #[test]
    fn rfc7208_4_5_the_version_is_a_word_of_its_own() {
        assert!(is_record(b"v=spf1") && is_record(b"V=SPF1 -all"));
        assert!(!is_record(b"v=spf10") && !is_record(b"v=spf") && !is_record(b" v=spf1"));
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_read_or_refused(record in proptest::collection::vec(0_u8..=255, 0..60)) {
            let _ = Record::parse(&[b"v=spf1 ", record.as_slice()].concat());
        }
    }
}
