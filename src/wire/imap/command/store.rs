//! STORE (RFC 3501 §6.4.6).

use posthouse_mail::FlagSet;

use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};
use crate::imap::sequence::{NumberKind, SequenceSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub kind: NumberKind,
    pub set: SequenceSet,
    pub change: FlagChange,
    pub silent: bool,
    pub flags: FlagSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    Add,
    Remove,
    Replace,
}

pub fn parse(scanner: &mut Scanner<'_>, kind: NumberKind) -> Parsed<Store> {
    let set = SequenceSet::parse(scanner)?;
    scanner.space()?;
    let change = match (scanner.eat(b'+'), scanner.eat(b'-')) {
        (true, false) => FlagChange::Add,
        (false, true) => FlagChange::Remove,
        (false, false) => FlagChange::Replace,
        (true, true) => return Err(ParseError::Expected("FLAGS")),
    };
    let silent = match scanner.word()?.to_ascii_uppercase().as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(ParseError::Expected("FLAGS")),
    };
    scanner.space()?;
    Ok(Store { kind, set, change, silent, flags: parse_flags(scanner)? })
}

/// RFC 3501 §9 `store-att-flags`: a list, or flags without parentheses.
fn parse_flags(scanner: &mut Scanner<'_>) -> Parsed<FlagSet> {
    if scanner.peek() == Some(b'(') {
        return Ok(scanner.list(LIST_MAX, Scanner::flag)?.into_iter().collect());
    }
    let mut flags = FlagSet::from([scanner.flag()?]);
    while scanner.eat(b' ') {
        if flags.len() >= LIST_MAX {
            return Err(ParseError::TooMany("flags"));
        }
        flags.insert(scanner.flag()?);
    }
    Ok(flags)
}
