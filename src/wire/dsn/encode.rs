//! Makes foreign text harmless: control characters, long lines, octets over 127.
//!
//! Apart because nothing that a remote server or a sender wrote may reach a report unless it passed here.

use std::fmt::Write as _;

/// Without control characters, cut to `max` characters.
pub(super) fn clean(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether content can go as `7bit`: ASCII without NUL, and no line over RFC 5322 §2.1.1's 998 octets.
pub(super) fn is_ascii(content: &[u8]) -> bool {
    content.iter().all(|b| b.is_ascii() && *b != 0) && content.split(|b| *b == b'\n').all(|line| line.len() <= 999)
}

/// One field, folded at spaces (RFC 5322 §2.2.3).
pub(super) fn field(name: &str, value: &str) -> String {
    let mut out = format!("{name}:");
    let mut column = out.len();
    for word in clean(value, VALUE_MAX).split(' ').filter(|word| !word.is_empty()) {
        if column + 1 + word.len() > LINE_WANTED && column > name.len() + 1 {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push_str("\r\n");
    out
}

/// RFC 2045 §6.7, with CRLF for line ends.
pub(super) fn quoted_printable(content: &[u8]) -> String {
    let mut out = String::with_capacity(content.len() * 3 / 2);
    for (i, line) in content.split(|b| *b == b'\n').enumerate() {
        if i > 0 {
            out.push_str("\r\n");
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut column = 0;
        for (at, byte) in line.iter().enumerate() {
            let last = at + 1 == line.len();
            let plain = matches!(byte, 33..=126) && *byte != b'=' || *byte == b' ' && !last;
            let width = if plain { 1 } else { 3 };
            // Rule 5: no line over 76, the soft break included.
            if column + width > 75 {
                out.push_str("=\r\n");
                column = 0;
            }
            if plain {
                out.push(char::from(*byte));
            } else {
                let _ = write!(out, "={byte:02X}");
            }
            column += width;
        }
    }
    out
}

const LINE_WANTED: usize = 76;
const VALUE_MAX: usize = 900;
