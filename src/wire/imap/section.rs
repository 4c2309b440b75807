//! Section specs of FETCH: `BODY[1.2.HEADER.FIELDS (From To)]<0.100>` (RFC 3501 §6.4.5).
//!
//! Apart from the FETCH command, because the answer prints the same spec again.

use crate::mime::{FieldFilter, Section, SectionText};

use super::response::text::put_astring;
use super::scan::{LIST_MAX, ParseError, Parsed, Scanner};

/// Levels of a part's path; deeper parts than `wire/mime` keeps exist for nobody.
pub const PATH_MAX: usize = 100;

/// Reads from after `[` to after `]`.
pub fn parse_section(scanner: &mut Scanner<'_>) -> Parsed<Section> {
    let mut path = Vec::new();
    while scanner.peek().is_some_and(|b| b.is_ascii_digit()) {
        if path.len() >= PATH_MAX {
            return Err(ParseError::TooMany("levels in a section"));
        }
        match scanner.number()? {
            0 => return Err(ParseError::Expected("a part number above zero")),
            number => path.push(number),
        }
        if !scanner.eat(b'.') {
            scanner.byte(b']', "the end of the section")?;
            return Ok(Section { path, text: None });
        }
        if !scanner.peek().is_some_and(|b| b.is_ascii_alphanumeric()) {
            return Err(ParseError::Expected("a part number or a section text"));
        }
    }
    let whole = path.is_empty() && scanner.peek() == Some(b']');
    let text = if whole { None } else { Some(parse_text(scanner, path.is_empty())?) };
    scanner.byte(b']', "the end of the section")?;
    Ok(Section { path, text })
}

/// The spec with its brackets.
pub fn put_section(out: &mut Vec<u8>, section: &Section) {
    out.push(b'[');
    let path: Vec<String> = section.path.iter().map(u32::to_string).collect();
    out.extend_from_slice(path.join(".").as_bytes());
    if !path.is_empty() && section.text.is_some() {
        out.push(b'.');
    }
    match &section.text {
        None => {}
        Some(SectionText::Header) => out.extend_from_slice(b"HEADER"),
        Some(SectionText::Text) => out.extend_from_slice(b"TEXT"),
        Some(SectionText::Mime) => out.extend_from_slice(b"MIME"),
        Some(SectionText::HeaderFields(filter)) => put_filter(out, filter),
    }
    out.push(b']');
}

fn put_filter(out: &mut Vec<u8>, filter: &FieldFilter) {
    let (word, names) = match filter {
        FieldFilter::Only(names) => ("HEADER.FIELDS (", names),
        FieldFilter::Except(names) => ("HEADER.FIELDS.NOT (", names),
    };
    out.extend_from_slice(word.as_bytes());
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        put_astring(out, name.as_bytes());
    }
    out.push(b')');
}

fn parse_text(scanner: &mut Scanner<'_>, whole_message: bool) -> Parsed<SectionText> {
    let word = scanner.word()?.to_ascii_uppercase();
    match word.as_str() {
        "HEADER" => Ok(SectionText::Header),
        "TEXT" => Ok(SectionText::Text),
        // RFC 3501 §6.4.5: MIME must be prefixed by a part number.
        "MIME" if !whole_message => Ok(SectionText::Mime),
        "HEADER.FIELDS" | "HEADER.FIELDS.NOT" => {
            scanner.space()?;
            let names = scanner.list(LIST_MAX, Scanner::astring_utf8)?;
            if names.is_empty() {
                return Err(ParseError::Expected("a header field name"));
            }
            let filter = if word.ends_with("NOT") { FieldFilter::Except(names) } else { FieldFilter::Only(names) };
            Ok(SectionText::HeaderFields(filter))
        }
        _ => Err(ParseError::Expected("a section text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_prints_as_it_was_read() {
        for (input, expect) in [
            ("]", Some("[]")),
            ("header]", Some("[HEADER]")),
            ("TEXT]", Some("[TEXT]")),
            ("1]", Some("[1]")),
            ("1.2.3]", Some("[1.2.3]")),
            ("1.MIME]", Some("[1.MIME]")),
            ("2.header.fields (From \"X Y\")]", Some("[2.HEADER.FIELDS (From \"X Y\")]")),
            ("HEADER.FIELDS.NOT (Received)]", Some("[HEADER.FIELDS.NOT (Received)]")),
            ("MIME]", None),
            ("HEADER.FIELDS ()]", None),
            ("0]", None),
            ("1.]", None),
            ("1..2]", None),
            ("1", None),
            ("FOO]", None),
            ("4294967296]", None),
        ] {
            let section = parse_section(&mut Scanner::new(input.as_bytes())).ok().map(|section| {
                let mut out = Vec::new();
                put_section(&mut out, &section);
                String::from_utf8(out).expect("ASCII")
            });
            assert_eq!(section.as_deref(), expect, "{input}");
        }
        assert!(parse_section(&mut Scanner::new(("1.".repeat(100_000) + "1]").as_bytes())).is_err());
    }
}
