//! Encoded words in header fields (RFC 2047) to text.
//!
//! Apart since three rules meet here: white space between two words goes, a character may be split over two words, and
//! a header full of broken words must cost no more than its length.

use memchr::memmem;

use super::charset::decode_charset;
use super::transfer::{decode_base64, decode_quoted};

/// Decodes every encoded word; the rest is read as UTF-8, or Windows-1252 where it is not.
pub fn decode_words(value: &[u8]) -> String {
    let mut out = Decoded::default();
    let ends = memmem::Finder::new(b"?=");
    // The next `?=` at or after the scan, found once: broken words must not make the search quadratic.
    let mut next_end = None;
    let mut rest = 0;
    let mut from = 0;
    while let Some(start) = memmem::find(&value[from..], b"=?").map(|at| from + at) {
        match word_at(value, start, &ends, &mut next_end) {
            Some(word) => {
                out.plain(&value[rest..start]);
                rest = word.end;
                from = word.end;
                out.word(word);
            }
            None => from = start + 2,
        }
    }
    out.plain(&value[rest..]);
    out.flush();
    out.text
}

struct Word<'a> {
    charset: &'a [u8],
    octets: Vec<u8>,
    end: usize,
}

/// The encoded word whose `=?` stands at `start`.
fn word_at<'a>(
    value: &'a [u8],
    start: usize,
    ends: &memmem::Finder<'_>,
    next_end: &mut Option<usize>,
) -> Option<Word<'a>> {
    let head = &value[start + 2..(start + 2 + CHARSET_MAX).min(value.len())];
    let question = memchr::memchr(b'?', head).filter(|length| *length > 0)?;
    let charset = &head[..question];
    let encoding = *value.get(start + 2 + question + 1)?;
    if value.get(start + 2 + question + 2) != Some(&b'?') {
        return None;
    }
    let body = start + 2 + question + 3;
    if next_end.is_none_or(|end| end < body) {
        let found = value.get(body..).and_then(|rest| ends.find(rest)).map_or(usize::MAX, |at| body + at);
        *next_end = Some(found);
    }
    let end = next_end.filter(|end| *end != usize::MAX)?;
    let content = &value[body..end];
    // Another `=?` means that this word never ended. Looked at before decoding, which would make broken words quadratic.
    if memmem::find(content, b"=?").is_some() {
        return None;
    }
    let octets = match encoding {
        b'B' | b'b' => decode_base64(content, content.len()),
        b'Q' | b'q' => decode_q(content),
        _ => return None,
    };
    Some(Word { charset, octets, end: end + 2 })
}

/// RFC 2047 §4.2: quoted-printable with `_` for a space.
fn decode_q(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let spaced: Vec<u8> = content.iter().map(|b| if *b == b'_' { b' ' } else { *b }).collect();
    decode_quoted(&spaced, &mut out);
    out
}

/// The text so far, and the octets of words that wait for a neighbour in the same charset.
#[derive(Default)]
struct Decoded {
    text: String,
    charset: Vec<u8>,
    octets: Vec<u8>,
    after_word: bool,
}

impl Decoded {
    fn plain(&mut self, text: &[u8]) {
        // RFC 2047 §6.2: white space between two encoded words is not shown.
        if text.is_empty() || (self.after_word && text.iter().all(u8::is_ascii_whitespace)) {
            return;
        }
        self.flush();
        self.text.push_str(&decode_charset(None, text));
        self.after_word = false;
    }

    fn word(&mut self, word: Word<'_>) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.flush();
            self.charset = word.charset.to_vec();
        }
        self.octets.extend_from_slice(&word.octets);
        self.after_word = true;
    }

    fn flush(&mut self) {
        if !self.octets.is_empty() {
            let label = String::from_utf8_lossy(&self.charset);
            self.text.push_str(&decode_charset(Some(&label), &self.octets));
            self.octets.clear();
        }
        self.charset.clear();
    }
}

/// Octets of a charset name that are looked at.
const CHARSET_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: &str) {
        assert_eq!(decode_words(value.as_bytes()), expect, "{value:?}");
    }

    #[test]
    fn rfc2047_8_examples() {
        check("=?ISO-8859-1?Q?a?=", "a");
        check("=?ISO-8859-1?Q?a?= b", "a b");
        check("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab");
        check("=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab");
        check("=?ISO-8859-1?Q?a_b?=", "a b");
        check("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo");
        check("x =?US-ASCII?Q?Keith_Moore?= y", "x Keith Moore y");
    }

    #[test]
    fn a_character_may_be_split_over_two_words() {
        check("=?utf-8?B?w4A=?= =?UTF-8?Q?=C3?= =?utf-8?Q?=A9?=", "Àé");
    }

    #[test]
    fn broken_words_stay_as_they_are() {
        check("=?utf-8?Q?abc", "=?utf-8?Q?abc");
        check("=?utf-8?X?abc?=", "=?utf-8?X?abc?=");
        check("=?=?utf-8?Q?a?=", "=?a");
        check("=??Q?a?=", "=??Q?a?=");
    }

    #[test]
    fn a_header_of_broken_words_costs_its_length() {
        let value = "=?utf-8?Q?".repeat(50_000);
        assert_eq!(decode_words(value.as_bytes()).len(), value.len());
        let value = "=?utf-8?Q?".repeat(50_000) + "?=";
        assert!(decode_words(value.as_bytes()).len() > 400_000);
    }
}
