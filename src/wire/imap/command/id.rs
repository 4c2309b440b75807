//! ID (RFC 2971 §3.1): who the client says it is.

use crate::imap::scan::{ParseError, Parsed, Scanner};

/// RFC 2971 §3.3: at most 30 fields, names of at most 30 and values of at most 1024 octets.
const FIELDS_MAX: usize = 30;
const NAME_MAX: usize = 30;
const VALUE_MAX: usize = 1024;

/// Field names with their values, as sent; empty for NIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(pub Vec<(String, Option<String>)>);

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Id> {
    if scanner.eat_word("NIL") {
        return Ok(Id(Vec::new()));
    }
    scanner
        .list(FIELDS_MAX, |s| {
            let name = text(&s.string()?, NAME_MAX)?;
            s.space()?;
            let value = s.nstring()?.map(|value| text(&value, VALUE_MAX)).transpose()?;
            Ok((name, value))
        })
        .map(Id)
}

fn text(bytes: &[u8], max: usize) -> Parsed<String> {
    if bytes.len() > max {
        return Err(ParseError::Expected("a shorter ID field"));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
