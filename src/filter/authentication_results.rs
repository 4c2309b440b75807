//! The Authentication-Results field (RFC 8601): what we found, and what others must not claim in our name.

use std::fmt::{self, Write as _};
use std::ops::Range;

use crate::fields::{Field, fields};

/// Results of the methods spf, dkim and dmarc (RFC 8601 §2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResult {
    None,
    Pass,
    Fail,
    SoftFail,
    Neutral,
    Policy,
    TempError,
    PermError,
}

impl AuthResult {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for AuthResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which identity SPF was asked about (RFC 7208 §2.3, §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpfIdentity {
    MailFrom,
    Hello,
}

/// What SPF said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpfFinding {
    pub result: AuthResult,
    pub identity: SpfIdentity,
    /// The domain that was asked.
    pub domain: String,
    pub reason: Option<&'static str>,
}

/// What one DKIM signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimFinding {
    pub result: AuthResult,
    /// `d=`
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `a=`, empty where the signature could not be read.
    pub algorithm: &'static str,
    /// The first characters of `b=`, which tell signatures of one domain apart (RFC 6008 §4).
    pub signature_start: String,
    pub reason: Option<&'static str>,
}

/// What the domain of the From field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcFinding {
    pub result: AuthResult,
    /// The domain of the From field.
    pub domain: String,
    /// `none`, `quarantine`, `reject`; empty without a record.
    pub policy: &'static str,
    pub reason: Option<&'static str>,
}

/// All methods' results, as the field shows them.
pub struct Results<'a> {
    pub spf: Option<&'a SpfFinding>,
    pub dkim: &'a [DkimFinding],
    pub dmarc: Option<&'a DmarcFinding>,
}

impl Results<'_> {
    /// The field, folded, ending in CRLF (RFC 8601 §2.2).
    pub fn field(&self, authserv_id: &str) -> String {
        let mut out = format!("Authentication-Results: {authserv_id}");
        let mut method = |text: String| {
            let _ = write!(out, ";\r\n\t{text}");
        };
        if let Some(spf) = self.spf {
            let property = match spf.identity {
                SpfIdentity::MailFrom => "smtp.mailfrom",
                SpfIdentity::Hello => "smtp.helo",
            };
            method(format!("spf={}{} {property}={}", spf.result, comment(spf.reason), value(&spf.domain)));
        }
        for dkim in self.dkim {
            let mut text = format!("dkim={}{}", dkim.result, comment(dkim.reason));
            let properties =
                [("header.d", dkim.domain.as_str()), ("header.s", &dkim.selector), ("header.b", &dkim.signature_start)];
            for (name, property) in properties.into_iter().filter(|(_, property)| !property.is_empty()) {
                let _ = write!(text, " {name}={}", value(property));
            }
            if !dkim.algorithm.is_empty() {
                let _ = write!(text, " header.a={}", dkim.algorithm);
            }
            method(text);
        }
        if let Some(dmarc) = self.dmarc {
            let mut text = format!("dmarc={}{}", dmarc.result, comment(dmarc.reason));
            if !dmarc.policy.is_empty() {
                let _ = write!(text, " policy.published={}", dmarc.policy);
            }
            if !dmarc.domain.is_empty() {
                let _ = write!(text, " header.from={}", value(&dmarc.domain));
            }
            method(text);
        }
        if self.spf.is_none() && self.dkim.is_empty() && self.dmarc.is_none() {
            // RFC 8601 §2.2: `no-result`, where no method was tried.
            out.push_str("; none");
        }
        out.push_str("\r\n");
        out
    }
}

/// A reason in words of ours, so never more than plain text.
fn comment(reason: Option<&'static str>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

/// RFC 8601 §2.2 `pvalue`: a token as it is, all else as a quoted string; what neither can carry becomes `?`.
fn value(text: &str) -> String {
    const SHOWN_MAX: usize = 255;
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    let mut shown: String =
        text.chars().take(SHOWN_MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    if !shown.is_empty() && shown.chars().all(is_token) {
        return shown;
    }
    shown = shown.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{shown}\"")
}

/// The name that a forged field gets: as long as the name it takes the place of, so that no offset moves.
pub const DISARMED_NAME: &[u8; 22] = b"X-Disarmed-Auth-Result";

/// The names of Authentication-Results fields that speak with our authority though we did not write them
/// (RFC 8601 §5: a border MTA must remove or disarm them). Ranges lie within the header section; overwriting each with
/// `DISARMED_NAME` disarms the field.
pub fn forged(header: &[u8], authserv_id: &str) -> Vec<Range<usize>> {
    fields(header)
        .filter(|field| field.is("Authentication-Results") && claims(field, authserv_id))
        .map(|field| field.range.start..field.range.start + DISARMED_NAME.len())
        .collect()
}

/// Whether the field's authserv-id is ours; RFC 8601 §2.5 compares it without case. What cannot be read is suspect.
fn claims(field: &Field<'_>, authserv_id: &str) -> bool {
    let Some(id) = first_word(field.value) else {
        return true;
    };
    id.trim_ascii_end().eq_ignore_ascii_case(authserv_id.as_bytes())
}

/// The first token or quoted string after white space and comments (RFC 5322 §3.2.2).
fn first_word(value: &[u8]) -> Option<Vec<u8>> {
    let mut depth = 0_u32;
    let mut at = 0;
    loop {
        match *value.get(at)? {
            b'\\' if depth > 0 => at += 1,
            b'(' => depth = depth.checked_add(1)?,
            b')' if depth > 0 => depth -= 1,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if depth > 0 => {}
            _ => break,
        }
        at += 1;
    }
    let rest = &value[at..];
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut word = Vec::new();
        let mut octets = quoted.iter();
        loop {
            match octets.next()? {
                b'"' => return Some(word),
                b'\\' => word.push(*octets.next()?),
                octet => word.push(*octet),
            }
        }
    }
    let end = rest.iter().position(|b| b" \t\r\n;(".contains(b)).unwrap_or(rest.len());
    Some(rest[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8601_2_2_the_field_names_each_method() {
        let spf = SpfFinding {
            result: AuthResult::Pass,
            identity: SpfIdentity::MailFrom,
            domain: "example.com".into(),
            reason: None,
        };
        let dkim = DkimFinding {
            result: AuthResult::Fail,
            domain: "example.com".into(),
            selector: "s1".into(),
            algorithm: "rsa-sha256",
            signature_start: "AbC/+123".into(),
            reason: Some("the body changed"),
        };
        let dmarc =
            DmarcFinding { result: AuthResult::Pass, domain: "example.com".into(), policy: "reject", reason: None };
        let results = Results { spf: Some(&spf), dkim: &[dkim], dmarc: Some(&dmarc) };
        assert_eq!(
            results.field("mx.test"),
            "Authentication-Results: mx.test;\r\n\tspf=pass smtp.mailfrom=example.com;\r\n\t\
             dkim=fail (the body changed) header.d=example.com header.s=s1 header.b=\"AbC/+123\" header.a=rsa-sha256;\r\n\t\
             dmarc=pass policy.published=reject header.from=example.com\r\n"
        );
        assert_eq!(
            Results { spf: None, dkim: &[], dmarc: None }.field("mx.test"),
            "Authentication-Results: mx.test; none\r\n"
        );
    }

    #[test]
    fn foreign_text_cannot_leave_its_value() {
        assert_eq!(value("a.b"), "a.b");
        assert_eq!(value("a b;\r\n dkim=pass\""), "\"a b;?? dkim=pass\\\"\"");
        assert_eq!(value("dömi"), "d?mi".to_owned().replace("d?mi", "\"d?mi\""));
        assert_eq!(value(""), "\"\"");
    }

    #[test]
    fn rfc8601_5_fields_in_our_name_are_forged() {
        let check = |value: &str, expect: bool| {
            let header = format!("Subject: x\r\nAuthentication-Results:{value}\r\nTo: y\r\n\r\n");
            let expect: Vec<_> = expect.then_some(12..34).into_iter().collect();
            assert_eq!(forged(header.as_bytes(), "mx.test"), expect, "{value:?}");
        };
        check(" mx.test; spf=pass", true);
        check(" MX.Test 1; spf=pass", true);
        check("\r\n (a (nested\\)) comment) \"mx.test\"; spf=pass", true);
        check(" mx.test", true);
        check(" (never closed", true);
        check(" other.test; spf=pass", false);
        check(" mx.test.other; spf=pass", false);
        let spaced = b"authentication-RESULTS \t: mx.test; none\r\n\r\n";
        assert_eq!(forged(spaced, "mx.test").first(), Some(&(0..22)));
    }
}
