//! CREATE (RFC 3501 §6.3.3), with the parameter USE of RFC 6154 §3.

use posthouse_mail::SpecialUse;

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{LIST_MAX, ParseError, Parsed, Scanner};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    pub mailbox: MailboxName,
    /// Uses asked for; `None` stands for one that this server does not know.
    pub uses: Vec<Option<SpecialUse>>,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Create> {
    let mailbox = scanner.mailbox()?;
    let mut uses = Vec::new();
    if scanner.eat(b' ') {
        scanner.byte(b'(', "create parameters")?;
        if !scanner.eat_word("USE") {
            return Err(ParseError::Expected("USE"));
        }
        scanner.space()?;
        uses = scanner.list(LIST_MAX, special_use)?;
        scanner.byte(b')', "the end of the create parameters")?;
    }
    Ok(Create { mailbox, uses })
}

fn special_use(scanner: &mut Scanner<'_>) -> Parsed<Option<SpecialUse>> {
    scanner.byte(b'\\', "a special use")?;
    let name = scanner.atom()?;
    let uses = SpecialUse::DEFAULTS.iter().map(|(known, _)| *known);
    Ok(uses.into_iter().find(|known| known.attribute().is_some_and(|a| a[1..].eq_ignore_ascii_case(name))))
}
