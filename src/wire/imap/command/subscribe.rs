//! SUBSCRIBE and UNSUBSCRIBE (RFC 3501 §6.3.6, §6.3.7).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{Parsed, Scanner};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub mailbox: MailboxName,
    pub on: bool,
}

pub fn parse(scanner: &mut Scanner<'_>, on: bool) -> Parsed<Subscribe> {
    Ok(Subscribe { mailbox: scanner.mailbox()?, on })
}
