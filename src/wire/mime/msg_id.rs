//! Message identifiers in Message-ID, In-Reply-To and References (RFC 5322 §3.6.4).
//!
//! Apart because In-Reply-To once held free text (RFC 5322 §4.5.4): only what stands in angle brackets counts.

use memchr::memchr;

/// The identifiers of an unfolded value, without brackets, in their order; bounded in number and length.
pub fn msg_ids(value: &[u8]) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while let Some(open) = memchr(b'<', rest) {
        rest = &rest[open + 1..];
        let Some(close) = memchr(b'>', rest) else { break };
        // A bracket that opens again means that the one before never closed.
        let inner = &rest[..close];
        let inner = inner.iter().rposition(|b| *b == b'<').map_or(inner, |at| &inner[at + 1..]);
        rest = &rest[close + 1..];
        // RFC 5322 §4.5.4: obsolete identifiers may hold white space, which means nothing.
        let id: Vec<u8> = inner.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        if !id.is_empty() && id.len() <= ID_MAX {
            ids.push(String::from_utf8_lossy(&id).into_owned());
        }
        if ids.len() >= IDS_MAX {
            break;
        }
    }
    ids
}

/// RFC 5322 §2.1.1: no line is longer, hence no identifier.
const ID_MAX: usize = 998;
/// References of a very long thread.
const IDS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_brackets_counts() {
        assert_eq!(msg_ids(b"<a@b> <c@d>"), ["a@b", "c@d"]);
        assert_eq!(msg_ids(b"Your message of Monday <a@b> and \"x\""), ["a@b"]);
        assert_eq!(msg_ids(b"<a <b@c> <> < d @e >"), ["b@c", "d@e"]);
        assert_eq!(msg_ids(b"a@b"), Vec::<String>::new());
        assert_eq!(msg_ids(&b"<".repeat(100_000)), Vec::<String>::new());
    }
}
