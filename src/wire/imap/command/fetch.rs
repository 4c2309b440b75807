//! FETCH (RFC 3501 §6.4.5): items, macros, sections and partials.

use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};
use crate::imap::section::parse_section;
use crate::imap::sequence::{NumberKind, SequenceSet};
use crate::mime::{Section, SectionText};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub kind: NumberKind,
    pub set: SequenceSet,
    /// Macros expanded, UID added for UID FETCH (RFC 3501 §6.4.8), in the order asked, each once.
    pub items: Vec<FetchItem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchItem {
    Envelope,
    Flags,
    InternalDate,
    Rfc822Size,
    /// BODY without section: BODYSTRUCTURE without extension data.
    Body,
    BodyStructure,
    Uid,
    Content(Content),
}

/// Octets of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub section: Section,
    /// `\Seen` is not set.
    pub peek: bool,
    pub partial: Option<Partial>,
    /// `RFC822`, `RFC822.HEADER` or `RFC822.TEXT`, which the answer names instead of the section.
    pub alias: Option<&'static str>,
}

/// `<first.count>`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    pub first: u64,
    /// Never zero.
    pub count: u64,
}

impl Fetch {
    /// Whether the command sets `\Seen` (RFC 3501 §6.4.5 on BODY[…]).
    pub fn marks_seen(&self) -> bool {
        self.items.iter().any(|item| matches!(item, FetchItem::Content(content) if !content.peek))
    }
}

pub fn parse(scanner: &mut Scanner<'_>, kind: NumberKind) -> Parsed<Fetch> {
    let set = SequenceSet::parse(scanner)?;
    scanner.space()?;
    let asked = if scanner.peek() == Some(b'(') {
        let items = scanner.list(LIST_MAX, parse_item)?;
        if items.is_empty() {
            return Err(ParseError::Expected("a data item"));
        }
        items
    } else {
        match parse_macro(scanner) {
            Some(items) => items,
            None => vec![parse_item(scanner)?],
        }
    };
    let uid = (kind == NumberKind::Uid).then_some(FetchItem::Uid);
    let mut items: Vec<FetchItem> = Vec::with_capacity(asked.len() + 1);
    for item in uid.into_iter().chain(asked) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(Fetch { kind, set, items })
}

fn parse_macro(scanner: &mut Scanner<'_>) -> Option<Vec<FetchItem>> {
    use FetchItem::{Body, Envelope, Flags, InternalDate, Rfc822Size};
    [
        ("ALL", vec![Flags, InternalDate, Rfc822Size, Envelope]),
        ("FAST", vec![Flags, InternalDate, Rfc822Size]),
        ("FULL", vec![Flags, InternalDate, Rfc822Size, Envelope, Body]),
    ]
    .into_iter()
    .find_map(|(name, items)| scanner.eat_word(name).then_some(items))
}

fn parse_item(scanner: &mut Scanner<'_>) -> Parsed<FetchItem> {
    let word = scanner.word()?.to_ascii_uppercase();
    let alias = |name, text, peek| {
        let section = Section { path: Vec::new(), text };
        FetchItem::Content(Content { section, peek, partial: None, alias: Some(name) })
    };
    Ok(match word.as_str() {
        "ENVELOPE" => FetchItem::Envelope,
        "FLAGS" => FetchItem::Flags,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822.SIZE" => FetchItem::Rfc822Size,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "UID" => FetchItem::Uid,
        "RFC822" => alias("RFC822", None, false),
        "RFC822.HEADER" => alias("RFC822.HEADER", Some(SectionText::Header), true),
        "RFC822.TEXT" => alias("RFC822.TEXT", Some(SectionText::Text), false),
        "BODY" | "BODY.PEEK" if scanner.eat(b'[') => {
            let section = parse_section(scanner)?;
            let partial = parse_partial(scanner)?;
            FetchItem::Content(Content { section, peek: word != "BODY", partial, alias: None })
        }
        "BODY" => FetchItem::Body,
        _ => return Err(ParseError::Expected("a data item")),
    })
}

fn parse_partial(scanner: &mut Scanner<'_>) -> Parsed<Option<Partial>> {
    if !scanner.eat(b'<') {
        return Ok(None);
    }
    let first = scanner.number64()?;
    scanner.byte(b'.', "a dot in the partial")?;
    let count = scanner.number64()?;
    scanner.byte(b'>', "the end of the partial")?;
    if count == 0 {
        return Err(ParseError::Expected("a count above zero"));
    }
    Ok(Some(Partial { first, count }))
}
