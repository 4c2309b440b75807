//! RENAME (RFC 3501 §6.3.5).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{Parsed, Scanner};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub from: MailboxName,
    pub to: MailboxName,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Rename> {
    let from = scanner.mailbox()?;
    scanner.space()?;
    Ok(Rename { from, to: scanner.mailbox()? })
}
