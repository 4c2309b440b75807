//! STATUS (RFC 3501 §6.3.10).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub mailbox: MailboxName,
    pub items: Vec<StatusItem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
}

impl StatusItem {
    pub const ALL: [Self; 5] = [Self::Messages, Self::Recent, Self::UidNext, Self::UidValidity, Self::Unseen];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
        }
    }
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Status> {
    let mailbox = scanner.mailbox()?;
    scanner.space()?;
    Ok(Status { mailbox, items: parse_items(scanner)? })
}

pub(super) fn parse_items(scanner: &mut Scanner<'_>) -> Parsed<Vec<StatusItem>> {
    let items = scanner.list(LIST_MAX, |s| {
        let word = s.word()?;
        // todo RFC 9051 §6.3.11: SIZE and DELETED.
        let known = StatusItem::ALL.into_iter().find(|item| item.as_str().eq_ignore_ascii_case(word));
        known.ok_or(ParseError::Expected("a status item"))
    })?;
    if items.is_empty() { Err(ParseError::Expected("a status item")) } else { Ok(items) }
}
