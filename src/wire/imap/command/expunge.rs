//! EXPUNGE (RFC 3501 §6.4.3) and UID EXPUNGE (RFC 4315 §2.1).

use crate::imap::scan::{Parsed, Scanner};
use crate::imap::sequence::{NumberKind, SequenceSet};

/// The Uids that UID EXPUNGE is confined to; `None` for plain EXPUNGE.
pub fn parse(scanner: &mut Scanner<'_>, kind: NumberKind) -> Parsed<Option<SequenceSet>> {
    match kind {
        NumberKind::Sequence => Ok(None),
        NumberKind::Uid => SequenceSet::parse(scanner).map(Some),
    }
}
