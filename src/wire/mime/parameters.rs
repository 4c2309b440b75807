//! Structured fields with parameters: Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2183 §2, RFC 2231).
//!
//! Apart from the structure scanner because the leniency that real mail needs (unquoted file names with spaces, missing
//! quotes, comments in odd places) is all here.

use super::charset::decode_charset;
use super::transfer::hex;

/// A structured field: what stands before the first semicolon, and the parameters after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structured {
    /// `text/plain`, `attachment`: lower case, without comments and white space.
    pub value: String,
    pub parameters: Vec<RawParameter>,
}

/// A parameter; its continuations joined and its charset undone (RFC 2231 §3 and §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawParameter {
    pub name: String,
    pub value: Vec<u8>,
}

impl Structured {
    /// The first parameter of this lower-case name.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|p| p.name == name).map(|p| p.value.as_slice())
    }
}

/// Reads an unfolded value.
pub fn parse_structured(value: &[u8]) -> Structured {
    let mut scan = Scan { rest: value };
    let head = scan.until_semicolon();
    let mut segments = Vec::new();
    while scan.rest.first() == Some(&b';') && segments.len() < SEGMENTS_MAX {
        scan.rest = &scan.rest[1..];
        if let Some(segment) = scan.parameter() {
            segments.push(segment);
        }
    }
    let value = head.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    Structured { value: String::from_utf8_lossy(&value).into_owned(), parameters: join(segments) }
}

/// `name*2*=value` as it was written.
struct Segment {
    name: String,
    /// The number of a continuation (RFC 2231 §3).
    index: Option<u32>,
    /// Percent-encoded, the first one with charset and language (RFC 2231 §4).
    extended: bool,
    value: Vec<u8>,
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    /// Text up to a semicolon outside quotes and comments; comments, which follow white space, are left out.
    fn until_semicolon(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut after_space = true;
        while let Some(&byte) = self.rest.first() {
            match byte {
                b';' => break,
                b'(' if after_space => {
                    self.comment();
                    continue;
                }
                _ => out.push(byte),
            }
            after_space = byte.is_ascii_whitespace();
            self.rest = &self.rest[1..];
        }
        out
    }

    /// RFC 5322 §3.2.2: comments nest. One that never ends takes the rest of the field.
    fn comment(&mut self) {
        let mut depth = 0_usize;
        let mut i = 0;
        while let Some(byte) = self.rest.get(i) {
            match byte {
                b'\\' => i += 1,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            i += 1;
            if depth == 0 {
                self.rest = &self.rest[i.min(self.rest.len())..];
                return;
            }
        }
        self.rest = &[];
    }

    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.first() != Some(&b'(') {
                return;
            }
            self.comment();
        }
    }

    fn parameter(&mut self) -> Option<Segment> {
        self.skip_space();
        let length = self.rest.iter().position(|b| matches!(b, b'=' | b';')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        if self.rest.first() != Some(&b'=') {
            return None;
        }
        self.rest = &self.rest[1..];
        let value = self.value();
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        Some(segment(name, value)).filter(|segment| !segment.name.is_empty())
    }

    fn value(&mut self) -> Vec<u8> {
        self.skip_space();
        if self.rest.first() != Some(&b'"') {
            return self.until_semicolon().trim_ascii().to_vec();
        }
        self.rest = &self.rest[1..];
        let mut out = Vec::new();
        while let Some(&byte) = self.rest.first() {
            self.rest = &self.rest[1..];
            match byte {
                b'"' => break,
                b'\\' => {
                    out.extend(self.rest.first());
                    self.rest = self.rest.get(1..).unwrap_or_default();
                }
                byte => out.push(byte),
            }
        }
        // Whatever stands between the closing quote and the next semicolon is no part of the value.
        self.until_semicolon();
        out
    }
}

fn segment(name: String, value: Vec<u8>) -> Segment {
    let (plain, extended) = name.strip_suffix('*').map_or((name.as_str(), false), |plain| (plain, true));
    let (base, index) = match plain.split_once('*') {
        Some((base, number)) => (base, number.parse().ok()),
        None => (plain, None),
    };
    Segment { name: base.to_owned(), index, extended, value }
}

/// Joins continuations in the order of their numbers; names keep the order in which they first appear.
fn join(segments: Vec<Segment>) -> Vec<RawParameter> {
    let mut groups: Vec<(String, Vec<Segment>)> = Vec::new();
    for segment in segments {
        match groups.iter_mut().find(|(name, _)| *name == segment.name) {
            Some((_, group)) => group.push(segment),
            None => groups.push((segment.name.clone(), vec![segment])),
        }
    }
    groups.into_iter().map(|(name, group)| RawParameter { name, value: join_group(group) }).collect()
}

fn join_group(mut group: Vec<Segment>) -> Vec<u8> {
    // RFC 2231 §4: `name*=` says more than the plain `name=` that stands beside it for old readers.
    if let Some(at) = group.iter().position(|s| s.extended && s.index.is_none()) {
        return decode_extended(&[group.swap_remove(at)]);
    }
    if let Some(at) = group.iter().position(|s| s.index.is_none()) {
        return group.swap_remove(at).value;
    }
    group.sort_by_key(|segment| segment.index);
    decode_extended(&group)
}

/// RFC 2231 §4.1: charset and language stand in the first segment; plain and encoded segments may be mixed.
fn decode_extended(group: &[Segment]) -> Vec<u8> {
    let mut charset = None;
    let mut octets = Vec::new();
    for (i, segment) in group.iter().enumerate() {
        if !segment.extended {
            octets.extend_from_slice(&segment.value);
            continue;
        }
        let mut encoded = segment.value.as_slice();
        if i == 0 {
            let mut parts = encoded.splitn(3, |b| *b == b'\'');
            if let (Some(label), Some(_language), Some(rest)) = (parts.next(), parts.next(), parts.next()) {
                charset = Some(String::from_utf8_lossy(label).into_owned());
                encoded = rest;
            }
        }
        percent_decode(encoded, &mut octets);
    }
    match charset {
        Some(charset) => decode_charset(Some(&charset), &octets).into_bytes(),
        None => octets,
    }
}

fn percent_decode(encoded: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(byte) = encoded.get(i) {
        let pair = encoded.get(i + 1).zip(encoded.get(i + 2)).and_then(|(a, b)| Some((hex(*a)?, hex(*b)?)));
        match (byte, pair) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                i += 3;
            }
            _ => {
                out.push(*byte);
                i += 1;
            }
        }
    }
}

/// Parameters and continuations of one field; real mail has a handful.
const SEGMENTS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: &str) {
        let read = parse_structured(value.as_bytes());
        let mut shown = read.value.clone();
        for p in &read.parameters {
            shown.push_str(&format!("|{}={}", p.name, String::from_utf8_lossy(&p.value)));
        }
        assert_eq!(shown, expect, "{value:?}");
    }

    #[test]
    fn rfc2045_5_1_content_type() {
        check("Text/Plain; charset=us-ascii (Plain text)", "text/plain|charset=us-ascii");
        check("text/plain; charset=\"us-ascii\"", "text/plain|charset=us-ascii");
        check("multipart/mixed;\tboundary=\"a;b\\\"c\"", "multipart/mixed|boundary=a;b\"c");
        check("text / plain (c (d)) ; A=b", "text/plain|a=b");
        check("text/plain; name=a b(1).txt; x=y", "text/plain|name=a b(1).txt|x=y");
        check("text/plain; name=\"never ends", "text/plain|name=never ends");
        check("text/plain;; ;x", "text/plain");
        check("", "");
    }

    #[test]
    fn rfc2231_continuations_and_charsets() {
        check(
            "message/external-body; URL*0=\"ftp://\"; URL*1=\"cs.utk.edu\"",
            "message/external-body|url=ftp://cs.utk.edu",
        );
        check("a/b; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "a/b|title=This is ***fun***");
        check("a/b; t*0*=iso-8859-1''caf%e9; t*1*=%20x; t*2=\" y\"", "a/b|t=café x y");
        check("a/b; t*1=b; t*0=a", "a/b|t=ab");
        check("a/b; filename=plain; filename*=utf-8''%c3%a9", "a/b|filename=é");
    }

    #[test]
    fn brackets_and_quotes_that_never_end_do_no_harm() {
        check(&format!("a/b; {}", "(".repeat(100_000)), "a/b");
        check(&format!("a/b{}", ";".repeat(100_000)), "a/b");
    }
}
