//! Content transfer encodings (RFC 2045 §6): base64 and quoted-printable to octets.
//!
//! Both read on past whatever is not of the encoding, as RFC 2045 §6.8 asks and real mail needs.

/// Undoes the named transfer encoding; `7bit`, `8bit`, `binary` and unknown ones are left as they are (RFC 2045 §6.2).
pub fn decode_transfer(encoding: &str, body: &[u8], max: usize) -> Vec<u8> {
    if encoding.eq_ignore_ascii_case("base64") {
        decode_base64(body, max)
    } else if encoding.eq_ignore_ascii_case("quoted-printable") {
        decode_quoted_printable(body, max)
    } else {
        body[..body.len().min(max)].to_vec()
    }
}

/// RFC 2045 §6.8: octets outside the alphabet are passed over; padding ends a quantum, and what follows starts a new one.
pub fn decode_base64(body: &[u8], max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity((body.len() / 4 * 3).min(max));
    let mut bits: u32 = 0;
    let mut held = 0;
    for byte in body {
        if out.len() >= max {
            break;
        }
        if *byte == b'=' {
            held = 0;
            bits = 0;
            continue;
        }
        let Some(value) = base64_value(*byte) else { continue };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(((bits >> held) & 0xff) as u8);
        }
    }
    out
}

fn base64_value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// RFC 2045 §6.7: `=XX`, soft line breaks, white space at line ends dropped; a `=` that starts nothing stays.
pub fn decode_quoted_printable(body: &[u8], max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len().min(max));
    for line in body.split_inclusive(|b| *b == b'\n') {
        if out.len() >= max {
            break;
        }
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let line_break = &line[content.len()..];
        // RFC 2045 §6.7 rule 3: white space at the end of a line was added on the way.
        let content = content.trim_ascii_end();
        let soft = content.ends_with(b"=");
        decode_quoted(content.strip_suffix(b"=").unwrap_or(content), &mut out);
        if !soft {
            out.extend_from_slice(line_break);
        }
    }
    out.truncate(max);
    out
}

/// The `=XX` of one line or one encoded word.
pub(super) fn decode_quoted(content: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(byte) = content.get(i) {
        let pair = content.get(i + 1).zip(content.get(i + 2)).and_then(|(a, b)| Some((hex(*a)?, hex(*b)?)));
        match (byte, pair) {
            (b'=', Some((high, low))) => {
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

pub(super) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2045_6_8_base64_passes_over_foreign_octets() {
        assert_eq!(decode_base64(b"aGVs\r\nbG8=", 100), b"hello");
        assert_eq!(decode_base64(b"a G!V*sbG8", 100), b"hello");
        assert_eq!(decode_base64(b"YQ==YQ==", 100), b"aa");
        assert_eq!(decode_base64(b"aGVsbG8=", 2), b"he");
    }

    #[test]
    fn rfc2045_6_7_quoted_printable() {
        assert_eq!(decode_quoted_printable(b"a=3Db=\r\nc  \r\nd=", 100), b"a=bc\r\nd");
        assert_eq!(decode_quoted_printable(b"=zz=3", 100), b"=zz=3");
    }
}
