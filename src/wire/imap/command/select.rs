//! SELECT and EXAMINE (RFC 3501 §6.3.1, §6.3.2).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{Parsed, Scanner};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    pub mailbox: MailboxName,
    /// EXAMINE.
    pub read_only: bool,
}

pub fn parse(scanner: &mut Scanner<'_>, read_only: bool) -> Parsed<Select> {
    // todo RFC 7162 §3.1.8: the parameters CONDSTORE and QRESYNC.
    Ok(Select { mailbox: scanner.mailbox()?, read_only })
}
