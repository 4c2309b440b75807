//! LIST (RFC 3501 §6.3.8), with selection and return options (RFC 5258 §3, RFC 6154 §2, RFC 5819 §2).

use crate::imap::mailbox_name::ListPattern;
use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};

use super::status::{self, StatusItem};

/// Patterns of one LIST; each is held against each mailbox.
const PATTERNS_MAX: usize = 50;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// What the patterns ask for; `None` for the empty pattern, which asks for the separator (RFC 3501 §6.3.8).
    pub patterns: Option<Vec<ListPattern>>,
    pub select: SelectOptions,
    pub give: ReturnOptions,
    /// In the syntax of RFC 5258, where an empty pattern matches nothing.
    pub extended: bool,
}

/// Which mailboxes are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SelectOptions {
    pub subscribed: bool,
    pub special_use: bool,
    /// Taken and without effect: there are no remote mailboxes.
    pub remote: bool,
    pub recursive_match: bool,
}

/// What is told of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReturnOptions {
    pub subscribed: bool,
    pub children: bool,
    pub special_use: bool,
    pub status: Vec<StatusItem>,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<List> {
    let mut list = List::default();
    if scanner.peek() == Some(b'(') {
        list.extended = true;
        scanner.list(LIST_MAX, |s| list.select.parse_one(s))?;
        scanner.space()?;
        // RFC 5258 §3.1: RECURSIVEMATCH needs a selection that it can recurse for.
        if list.select.recursive_match && !list.select.subscribed && !list.select.special_use {
            return Err(ParseError::Expected("a selection option beside RECURSIVEMATCH"));
        }
    }
    let reference = scanner.astring()?;
    scanner.space()?;
    let patterns = if scanner.peek() == Some(b'(') {
        list.extended = true;
        scanner.list(PATTERNS_MAX, |s| list_mailbox(s).map(|p| p.into_owned()))?
    } else {
        vec![list_mailbox(scanner)?.into_owned()]
    };
    if scanner.eat(b' ') {
        list.extended = true;
        if !scanner.eat_word("RETURN") {
            return Err(ParseError::Expected("RETURN"));
        }
        scanner.space()?;
        scanner.list(LIST_MAX, |s| list.give.parse_one(s))?;
    }
    if list.extended || patterns.iter().any(|pattern| !pattern.is_empty()) {
        let join = |pattern: &Vec<u8>| ListPattern::new(&reference, pattern);
        list.patterns = Some(patterns.iter().map(join).collect::<Parsed<_>>()?);
    }
    Ok(list)
}

/// RFC 3501 §9 `list-mailbox`: an astring whose atoms may have wildcards.
pub(super) fn list_mailbox<'a>(scanner: &mut Scanner<'a>) -> Parsed<std::borrow::Cow<'a, [u8]>> {
    if matches!(scanner.peek(), Some(b'"' | b'{')) {
        return scanner.string();
    }
    let is_list_char = |b| crate::imap::scan::is_astring_char(b) || b == b'%' || b == b'*';
    let atom = scanner.take_while(is_list_char);
    if atom.is_empty() { Err(ParseError::Expected("a mailbox pattern")) } else { Ok(atom.into()) }
}

impl SelectOptions {
    fn parse_one(&mut self, scanner: &mut Scanner<'_>) -> Parsed<()> {
        match scanner.word()?.to_ascii_uppercase().as_str() {
            "SUBSCRIBED" => self.subscribed = true,
            "SPECIAL-USE" => self.special_use = true,
            "REMOTE" => self.remote = true,
            "RECURSIVEMATCH" => self.recursive_match = true,
            // RFC 5258 §3: an unknown selection option is BAD.
            _ => return Err(ParseError::Expected("a known selection option")),
        }
        Ok(())
    }
}

impl ReturnOptions {
    fn parse_one(&mut self, scanner: &mut Scanner<'_>) -> Parsed<()> {
        match scanner.word()?.to_ascii_uppercase().as_str() {
            "SUBSCRIBED" => self.subscribed = true,
            "CHILDREN" => self.children = true,
            "SPECIAL-USE" => self.special_use = true,
            "STATUS" => {
                scanner.space()?;
                self.status = status::parse_items(scanner)?;
            }
            _ => return Err(ParseError::Expected("a known return option")),
        }
        Ok(())
    }
}
