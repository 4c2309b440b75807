//! ENABLE (RFC 5161 §3.1).

use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};

/// The extensions a client wants on, in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enable(pub Vec<String>);

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Enable> {
    let mut names = vec![scanner.atom()?.to_ascii_uppercase()];
    while scanner.eat(b' ') {
        if names.len() >= LIST_MAX {
            return Err(ParseError::TooMany("extensions"));
        }
        names.push(scanner.atom()?.to_ascii_uppercase());
    }
    Ok(Enable(names))
}
