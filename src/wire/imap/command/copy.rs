//! COPY (RFC 3501 §6.4.7) and MOVE (RFC 6851 §3).

use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{Parsed, Scanner};
use crate::imap::sequence::{NumberKind, SequenceSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub kind: NumberKind,
    pub set: SequenceSet,
    pub target: MailboxName,
    /// MOVE: the originals go.
    pub remove: bool,
}

pub fn parse(scanner: &mut Scanner<'_>, kind: NumberKind, remove: bool) -> Parsed<Copy> {
    let set = SequenceSet::parse(scanner)?;
    scanner.space()?;
    Ok(Copy { kind, set, target: scanner.mailbox()?, remove })
}
