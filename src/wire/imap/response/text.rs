//! The strings of answers: quoted where that is possible, literals elsewhere (RFC 3501 §4.3).

use crate::imap::scan::is_astring_char;

/// A longer string is sent as a literal, so that line-bound clients cope.
const QUOTED_MAX: usize = 1000;

/// RFC 3501 §9 `string`.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    let quotable = |b: &u8| (0x20..0x7f).contains(b);
    if text.len() <= QUOTED_MAX && text.iter().all(quotable) {
        out.push(b'"');
        for &b in text {
            if matches!(b, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(b);
        }
        out.push(b'"');
        return;
    }
    // RFC 3501 §9 CHAR8: a literal holds no NUL, and a header field should not either.
    let clean: Vec<u8> = text.iter().copied().filter(|b| *b != 0).collect();
    put_literal_head(out, clean.len() as u64);
    out.extend_from_slice(&clean);
}

/// `{5}` CRLF; the octets follow.
pub fn put_literal_head(out: &mut Vec<u8>, size: u64) {
    out.extend_from_slice(format!("{{{size}}}\r\n").as_bytes());
}

/// RFC 3501 §9 `nstring`.
pub fn put_nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// RFC 3501 §9 `astring`: an atom where that is possible.
pub fn put_astring(out: &mut Vec<u8>, text: &[u8]) {
    let atom = !text.is_empty() && text.iter().all(|&b| is_astring_char(b)) && !text.eq_ignore_ascii_case(b"NIL");
    if atom { out.extend_from_slice(text) } else { put_string(out, text) }
}

/// Anything that prints.
pub fn put_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    out.extend_from_slice(value.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_or_literals() {
        for (text, expect) in [
            (&b"abc"[..], &b"\"abc\""[..]),
            (b"", b"\"\""),
            (b"a\"b\\c", b"\"a\\\"b\\\\c\""),
            (b"a\r\nb", b"{4}\r\na\r\nb"),
            ("ü".as_bytes(), b"{2}\r\n\xc3\xbc"),
            (b"a\0b", b"{2}\r\nab"),
        ] {
            let mut out = Vec::new();
            put_string(&mut out, text);
            assert_eq!(out, expect);
        }
    }

    #[test]
    fn an_astring_that_looks_like_nil_is_quoted() {
        for (text, expect) in [("INBOX", "INBOX"), ("nil", "\"nil\""), ("a b", "\"a b\""), ("", "\"\"")] {
            let mut out = Vec::new();
            put_astring(&mut out, text.as_bytes());
            assert_eq!(out, expect.as_bytes());
        }
    }
}
