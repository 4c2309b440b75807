//! The text of text parts, decoded: what SEARCH looks through and filters score.
//!
//! Sizes are capped by the caller, since a few octets on the wire must never become many in memory.

use posthouse_mail::structure::BodyPart;

use super::charset::decode_charset;
use super::html::html_to_text;
use super::transfer::decode_transfer;

/// Whether a part is text that can be searched.
pub fn is_text(part: &BodyPart) -> bool {
    part.media_type == "text"
}

/// The text of a part from its raw body; HTML without its markup. At most about `max` octets.
pub fn part_text(part: &BodyPart, raw_body: &[u8], max: usize) -> String {
    let decoded = decoded_part(part, raw_body, max);
    if part.media_subtype == "html" { html_to_text(&decoded, max) } else { decoded }
}

/// The content of a part, transfer encoding and charset undone, markup kept.
pub fn decoded_part(part: &BodyPart, raw_body: &[u8], max: usize) -> String {
    let octets = decode_transfer(&part.transfer_encoding, raw_body, max);
    let charset = part.parameters.iter().find(|p| p.name == "charset").map(|p| p.value.as_str());
    decode_charset(charset, &octets)
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, parse_structure};
    use super::*;

    fn check(message: &[u8], expect: &str) {
        let structure = parse_structure(message, message.len() as u64, Limits::default());
        let root = structure.root.expect("a root");
        let body = &message[usize::try_from(root.body_start).expect("small")..];
        assert_eq!(part_text(&root, body, 100), expect);
    }

    #[test]
    fn transfer_encoding_and_charset_are_undone() {
        check(b"Content-Type: text/plain; charset=iso-8859-1\n\ncaf\xe9", "caf\u{e9}");
        check(b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw6k=", "\u{e9}");
        check(b"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<b>a=3Db</b>", "a=b");
    }
}
