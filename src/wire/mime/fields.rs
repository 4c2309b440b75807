//! The fields of a raw header (RFC 5322 §2.2): where each begins and ends, its name, its value unfolded.
//!
//! Apart because everything that looks into a header starts here: structure, ENVELOPE, `HEADER.FIELDS`, completion of
//! submitted mail, filters.

use std::ops::Range;

use memchr::memchr;

/// One field as it stands in the raw header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name without the colon. Empty for a line that is no field: without a colon, or with a name that is no token.
    pub name: &'a [u8],
    /// What follows the colon, still folded, without the last line break.
    pub raw_value: &'a [u8],
    /// The whole field in the header, its last line break included.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether the field has this name (RFC 5322 §1.2.2: names are compared without case).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line, without white space around it.
    pub fn value(&self) -> Vec<u8> {
        unfold(self.raw_value)
    }

    /// The value on one line as text; what is not UTF-8 is read as Windows-1252.
    pub fn text(&self) -> String {
        super::charset::decode_charset(None, &self.value())
    }
}

/// Walks the fields of a header up to its blank line or its end.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    header: &'a [u8],
    position: usize,
}

/// The fields of `header`, which may go on with a body after its blank line.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { header, position: 0 }
}

/// The first field of this name.
pub fn find<'a>(header: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(header).find(|field| field.is(name))
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.position;
        let rest = self.header.get(start..)?;
        if rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return None;
        }
        let end = start + field_length(rest);
        self.position = end;
        let field = &self.header[start..end];
        let (name, raw_value) = split_field(field);
        Some(Field { name, raw_value, range: start..end })
    }
}

/// The octets of the first field: its line and the lines that continue it (RFC 5322 §2.2.3: they begin with white space).
fn field_length(rest: &[u8]) -> usize {
    let mut end = 0;
    while let Some(lf) = memchr(b'\n', &rest[end..]) {
        end += lf + 1;
        if !matches!(rest.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    rest.len()
}

/// Name and raw value of a field; an empty name where the line is none.
fn split_field(field: &[u8]) -> (&[u8], &[u8]) {
    let body = strip_line_break(field);
    let first_line = memchr(b'\n', body).unwrap_or(body.len());
    let Some(colon) = memchr(b':', &body[..first_line]) else {
        return (&[], body);
    };
    // RFC 5322 §4.5: obsolete fields may have white space before the colon.
    let name = body[..colon].trim_ascii_end();
    // RFC 5322 §2.2: a name is printable US-ASCII.
    if name.is_empty() || !name.iter().all(|b| (33..=126).contains(b)) {
        return (&[], body);
    }
    (name, &body[colon + 1..])
}

fn strip_line_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// RFC 5322 §2.2.3: takes the line breaks out; the white space that follows them stays. NUL goes too (RFC 9051 §4.3: no
/// string may hold it), and white space at both ends.
pub fn unfold(raw: &[u8]) -> Vec<u8> {
    let raw = raw.trim_ascii();
    raw.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect()
}

/// Which fields of a header `HEADER.FIELDS` and `HEADER.FIELDS.NOT` choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldFilter {
    Only(Vec<String>),
    Except(Vec<String>),
}

impl FieldFilter {
    fn chooses(&self, field: &Field<'_>) -> bool {
        match self {
            Self::Only(names) => names.iter().any(|name| field.is(name)),
            Self::Except(names) => !names.iter().any(|name| field.is(name)),
        }
    }
}

/// The chosen fields as they stand, in their order, and the blank line (RFC 9051 §6.4.5.1: always included).
pub fn filter_fields(header: &[u8], filter: &FieldFilter) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields(header).filter(|field| filter.chooses(field)) {
        out.extend_from_slice(&header[field.range]);
        if !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expect: &[(&str, &str)]) {
        let found: Vec<_> = fields(header.as_bytes())
            .map(|f| (String::from_utf8_lossy(f.name).into_owned(), String::from_utf8_lossy(&f.value()).into_owned()))
            .collect();
        let expect: Vec<_> = expect.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(found, expect, "{header:?}");
    }

    #[test]
    fn rfc5322_2_2_3_folded_lines_belong_to_their_field() {
        check("A: 1\r\n 2\r\n\t3\r\nB: 4\r\n\r\nC: 5\r\n", &[("A", "1 2\t3"), ("B", "4")]);
        check("A: 1\n 2\nB:4", &[("A", "1 2"), ("B", "4")]);
        check("A:\r\n 1\r\n", &[("A", "1")]);
        check("", &[]);
        check("\r\nA: 1\r\n", &[]);
    }

    #[test]
    fn lines_that_are_no_field_have_no_name() {
        check("no colon\r\nA: 1\r\n", &[("", "no colon"), ("A", "1")]);
        check("From x at 10:00\r\nA : 1\r\n", &[("", "From x at 10:00"), ("A", "1")]);
        check(": x\r\n", &[("", ": x")]);
    }

    #[test]
    fn rfc9051_6_4_5_1_header_fields_end_with_a_blank_line() {
        let header = b"To: a\r\nSubject: b\r\n c\r\nto: d\r\n\r\n";
        let only = FieldFilter::Only(vec!["TO".into()]);
        assert_eq!(filter_fields(header, &only), b"To: a\r\nto: d\r\n\r\n");
        let except = FieldFilter::Except(vec!["TO".into()]);
        assert_eq!(filter_fields(header, &except), b"Subject: b\r\n c\r\n\r\n");
        let none = FieldFilter::Only(vec!["X".into()]);
        assert_eq!(filter_fields(header, &none), b"\r\n");
    }
}
