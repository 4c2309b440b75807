//! LSUB (RFC 3501 §6.3.9).

use crate::imap::mailbox_name::ListPattern;
use crate::imap::scan::{Parsed, Scanner};

use super::list::list_mailbox;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsub {
    pub pattern: ListPattern,
    /// The pattern ends in `%`: a parent that is not subscribed is shown for its subscribed children (RFC 3501 §6.3.9).
    pub shows_parents: bool,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Lsub> {
    let reference = scanner.astring()?;
    scanner.space()?;
    let pattern = list_mailbox(scanner)?;
    Ok(Lsub { pattern: ListPattern::new(&reference, &pattern)?, shows_parents: pattern.contains(&b'%') })
}
