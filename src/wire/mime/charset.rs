//! Octets in some charset to text.
//!
//! Apart so that the fallback for unknown and missing charsets is one rule for bodies, encoded words and parameters.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Decodes by label. Without a label or with an unknown one: UTF-8 if it is that, else Windows-1252, which takes any octet.
pub fn decode_charset(label: Option<&str>, octets: &[u8]) -> String {
    // RFC 2231 §5: an encoded word's charset may carry a language after a star.
    let label = label.map(|label| label.split('*').next().unwrap_or(label).trim());
    let known = label.and_then(|label| Encoding::for_label(label.as_bytes()));
    match known {
        // Mail labelled US-ASCII often holds UTF-8; the label maps to Windows-1252, so look at the octets first.
        Some(encoding) if encoding != WINDOWS_1252 => encoding.decode_without_bom_handling(octets).0.into_owned(),
        Some(encoding) if label.is_some_and(|l| !l.eq_ignore_ascii_case("us-ascii")) => {
            encoding.decode_without_bom_handling(octets).0.into_owned()
        }
        _ => match UTF_8.decode_without_bom_handling_and_without_replacement(octets) {
            Some(text) => text.into_owned(),
            None => WINDOWS_1252.decode_without_bom_handling(octets).0.into_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_charsets_fall_back_without_loss() {
        assert_eq!(decode_charset(Some("iso-8859-1"), b"caf\xe9"), "café");
        assert_eq!(decode_charset(Some("utf-8*en"), "é".as_bytes()), "é");
        assert_eq!(decode_charset(Some("x-none"), b"caf\xe9"), "café");
        assert_eq!(decode_charset(None, "é".as_bytes()), "é");
        assert_eq!(decode_charset(Some("us-ascii"), "é".as_bytes()), "é");
        assert_eq!(decode_charset(Some("iso-2022-jp"), b"\x1b$B$3\x1b(B"), "こ");
    }
}
