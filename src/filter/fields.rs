//! Header fields as they stand on the wire: where each begins, where its body begins, where it ends.
//!
//! Apart from MIME parsing on purpose: signatures and the removal of forged fields need the raw octets with their folding,
//! not decoded values.

use std::ops::Range;

/// One field of a header section (RFC 5322 §2.2), folding kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Without the colon, as written; spaces before the colon (RFC 5322 §4.5.8, obsolete) stay.
    pub name: &'a [u8],
    /// After the colon, the final CRLF included.
    pub value: &'a [u8],
    /// The whole field within the header section.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether this is the field of a name, without case (RFC 5322 §1.2.2).
    pub fn is(&self, name: &str) -> bool {
        self.name.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a header section, in order; lines that are no field are passed over.
pub fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < header.len() {
            let range = at..field_end(header, at);
            at = range.end;
            let raw = &header[range.clone()];
            if raw == b"\r\n" || raw == b"\n" {
                at = header.len();
                return None;
            }
            if let Some(colon) = raw.iter().position(|b| *b == b':').filter(|colon| *colon > 0) {
                return Some(Field { name: &raw[..colon], value: &raw[colon + 1..], range });
            }
        }
        None
    })
}

/// Where the field that starts at `from` ends: after the first line break that no white space follows (RFC 5322 §2.2.3).
pub(crate) fn field_end(header: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(break_at) = header[at..].iter().position(|b| *b == b'\n') {
        at += break_at + 1;
        let blank_line = header[from..at].trim_ascii().is_empty();
        if blank_line || !matches!(header.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    header.len()
}

/// Where the body begins: after the first empty line; `None` while it has not come (RFC 5322 §2.1).
pub fn body_start(message: &[u8]) -> Option<usize> {
    body_start_beyond(message, 0)
}

/// The same for a message that was searched before, when it had only `searched` octets.
pub(crate) fn body_start_beyond(message: &[u8], searched: usize) -> Option<usize> {
    if message.starts_with(b"\r\n") {
        return Some(2);
    }
    // The empty line may straddle the two parts.
    let mut at = searched.saturating_sub(3);
    while let Some(found) = message[at..].iter().position(|b| *b == b'\n') {
        at += found + 1;
        if message[at..].starts_with(b"\r\n") {
            return Some(at + 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5322_2_2_3_a_folded_field_is_one_field() {
        let header = b"A: 1\r\n 2\r\n\t3\r\nnot a field\r\nB:x\r\nC :y\r\n\r\nD: body\r\n";
        let found: Vec<(String, String)> = fields(header)
            .map(|f| (String::from_utf8_lossy(f.name).into(), String::from_utf8_lossy(f.value).into()))
            .collect();
        let expect = [("A", " 1\r\n 2\r\n\t3\r\n"), ("B", "x\r\n"), ("C ", "y\r\n")];
        assert_eq!(found, expect.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(fields(header).last().expect("three fields").is("c"));
    }

    #[test]
    fn the_body_starts_after_the_first_empty_line() {
        assert_eq!(body_start(b"A: 1\r\n\r\nx"), Some(8));
        assert_eq!(body_start(b"\r\nx"), Some(2));
        assert_eq!(body_start(b"A: 1\r\nB: 2\r\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn fields_never_overlap_and_never_panic(header in proptest::collection::vec(proptest::sample::select(b"A: \t\r\n".to_vec()), 0..60)) {
            let mut end = 0;
            for field in fields(&header) {
                proptest::prop_assert!(field.range.start >= end && field.range.end <= header.len());
                end = field.range.end;
            }
        }
    }
}
