//! DELETE (RFC 3501 §6.3.4).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{Parsed, Scanner};

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<MailboxName> {
    scanner.mailbox()
}
