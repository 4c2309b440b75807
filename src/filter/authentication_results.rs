//! The Authentication-Results field (RFC 8601): what we found, and what others must not claim in our name.

use std::fmt::{self, Write as _};

use crate::fields::field_end;

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

/// Takes out of a message that streams by the Authentication-Results fields that speak with our authority though we did not
/// write them: RFC 8601 §5, a border MTA must delete them. Octets are held back only where a line may begin such a field
/// and its authserv-id has not been seen in full.
#[derive(Debug)]
pub struct Disarmer {
    authserv_id: String,
    held: Vec<u8>,
    place: Place,
    /// Within a field that is taken out.
    drops: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    WithinLine,
    Body,
}

/// Octets of a field that are held back; an authserv-id that comes no sooner is suspect.
const HELD_MAX: usize = 2048;
const FIELD_NAME: &[u8; 22] = b"Authentication-Results";

impl Disarmer {
    pub fn new(authserv_id: &str) -> Self {
        Self { authserv_id: authserv_id.to_owned(), held: Vec::new(), place: Place::LineStart, drops: false }
    }

    /// Takes the next octets of the message; what may go on is appended to `out`.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if self.place == Place::Body {
            out.extend_from_slice(octets);
            return;
        }
        self.held.extend_from_slice(octets);
        self.pass(false, out);
    }

    /// The message is over: lets go what is still held back.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.pass(true, out);
    }

    fn pass(&mut self, is_end: bool, out: &mut Vec<u8>) {
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let goes_on = self.drops && matches!(rest.first(), Some(b' ' | b'\t'));
            if self.place == Place::LineStart && !goes_on {
                let begins = begins(rest, &self.authserv_id, is_end);
                if begins == Begins::Unknown {
                    break;
                }
                self.drops = begins == Begins::Forged;
                if begins == Begins::Body {
                    self.place = Place::Body;
                }
            }
            let line_end = rest.iter().position(|octet| *octet == b'\n').filter(|_| self.place != Place::Body);
            let piece = &rest[..line_end.map_or(rest.len(), |end| end + 1)];
            if !self.drops {
                out.extend_from_slice(piece);
            }
            at += piece.len();
            if self.place != Place::Body {
                self.place = if line_end.is_some() { Place::LineStart } else { Place::WithinLine };
            }
        }
        self.held.drain(..at);
    }
}

/// What a line of the header section begins, as far as its octets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Forged,
    Body,
    Other,
    Unknown,
}

fn begins(line: &[u8], authserv_id: &str, is_end: bool) -> Begins {
    if line.starts_with(b"\r\n") {
        return Begins::Body;
    }
    let known = line.len().min(FIELD_NAME.len());
    let same = line[..known].eq_ignore_ascii_case(&FIELD_NAME[..known]);
    if !same && line != b"\r" {
        return Begins::Other;
    }
    let end = field_end(line, 0);
    let is_full = is_end || end < line.len() || line.len() >= HELD_MAX;
    let line = &line[..end];
    if known < FIELD_NAME.len() {
        return if is_full { Begins::Other } else { Begins::Unknown };
    }
    let after = line[known..].trim_ascii_start();
    let Some(value) = after.strip_prefix(b":") else {
        return if after.is_empty() && !is_full { Begins::Unknown } else { Begins::Other };
    };
    match first_word(value) {
        Some(word) if !word.is_whole && !is_full => Begins::Unknown,
        Some(word) if !is_same_id(&word.octets, authserv_id) => Begins::Other,
        None if !is_full => Begins::Unknown,
        _ => Begins::Forged,
    }
}

/// RFC 8601 §2.5: an authserv-id is compared without case.
fn is_same_id(id: &[u8], authserv_id: &str) -> bool {
    id.eq_ignore_ascii_case(authserv_id.as_bytes())
}

/// The word where an authserv-id should stand.
struct Word {
    octets: Vec<u8>,
    /// Whether something behind it shows where it ends.
    is_whole: bool,
}

/// The first token or quoted string after white space and comments (RFC 5322 §3.2.2).
fn first_word(value: &[u8]) -> Option<Word> {
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
                b'"' => return Some(Word { octets: word, is_whole: true }),
                b'\\' => word.push(*octets.next()?),
                octet => word.push(*octet),
            }
        }
    }
    let end = rest.iter().position(|b| b" \t\r\n;(".contains(b));
    Some(Word { octets: rest[..end.unwrap_or(rest.len())].to_vec(), is_whole: end.is_some() })
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

    fn disarm(message: &[u8], step: usize) -> String {
        let mut disarmer = Disarmer::new("mx.test");
        let mut out = Vec::new();
        message.chunks(step).for_each(|chunk| disarmer.push(chunk, &mut out));
        disarmer.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    fn check(message: &str, expect: &str) {
        for step in [1, 2, 7, 100_000] {
            assert_eq!(disarm(message.as_bytes(), step), expect, "{step}");
        }
    }

    #[test]
    fn rfc8601_5_fields_in_our_name_are_taken_out() {
        let around = |field: &str| format!("Subject: x\r\n{field}To: y\r\n\r\nbody\r\n");
        for value in [
            " mx.test; spf=pass\r\n",
            " MX.Test 1; spf=pass\r\n",
            "\r\n (a (nested\\)) comment) \"mx.test\";\r\n\tspf=pass\r\n dkim=pass\r\n",
            " mx.test\r\n",
            " (never closed\r\n",
            "\r\n",
        ] {
            check(&around(&format!("Authentication-Results:{value}")), &around(""));
            check(&around(&format!("authentication-RESULTS \t:{value}")), &around(""));
        }
        check("A: b\r\nAuthentication-Results: mx.test", "A: b\r\n");
        let endless = format!("A: b\r\nAuthentication-Results: ({}\r\nB: c\r\n", "x".repeat(9000));
        check(&endless, "A: b\r\nB: c\r\n");
    }

    #[test]
    fn fields_of_others_and_the_body_pass() {
        for message in [
            "Authentication-Results: other.test; spf=pass\r\n\r\n",
            "Authentication-Results: mx.test.other; spf=pass\r\n\r\n",
            "Authentication-Results-X: mx.test; x\r\nAuthentic: y\r\n\r\n",
            "A: b\r\n\r\nAuthentication-Results: mx.test; x\r\n",
            "A: b\r\n Authentication-Results: mx.test; x\r\n\r\n",
            "A: b\r\nAuthentication-Res",
            "\r\nAuthentication-Results: mx.test\r\n",
        ] {
            check(message, message);
        }
    }

    proptest::proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_forged_is_left(
            words in proptest::collection::vec(proptest::sample::select(vec![
                "Authentication-Results", ":", " ", "mx.test", "other", ";", "\r\n", "\r\n ", "(", ")", "\"", "A: b", "\r", "\n",
            ]), 0..30),
            step in 1usize..9,
        ) {
            let message = words.concat();
            let out = disarm(message.as_bytes(), step);
            proptest::prop_assert_eq!(&out, &disarm(message.as_bytes(), 100_000));
            let header_end = crate::fields::body_start(out.as_bytes()).unwrap_or(out.len());
            let forged = crate::fields::fields(&out.as_bytes()[..header_end]).any(|field| {
                let ours = first_word(field.value).is_none_or(|word| is_same_id(&word.octets, "mx.test"));
                field.is("Authentication-Results") && ours
            });
            proptest::prop_assert!(!forged, "{:?}", out);
        }
    }
}
