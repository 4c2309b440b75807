//! xtext, the encoding of DSN parameter values; apart because server, client and reports all need it (RFC 3461 §4).

use std::fmt::Write as _;

/// Reads xtext; `None` when a `+` is not followed by two upper-case hex digits, or when what comes out is no UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let high = hex_digit(bytes.next()?)?;
                let low = hex_digit(bytes.next()?)?;
                out.push(high << 4 | low);
            }
            b'=' => return None,
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// Writes xtext: all but `!` to `~` without `+` and `=` becomes `+` and two hex digits.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "+{byte:02X}");
        }
    }
    out
}

/// RFC 3461 §4: `hexchar` has upper-case digits only.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3461_4_plus_and_equals_are_written_in_hex() {
        assert_eq!(encode("a+b=c d"), "a+2Bb+3Dc+20d");
        assert_eq!(decode("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        assert_eq!(decode("a+2b"), None);
        assert_eq!(decode("a+2"), None);
        assert_eq!(decode("+FF"), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "\\PC{0,40}") {
            proptest::prop_assert_eq!(decode(&encode(&text)), Some(text));
        }
    }
}
