//! Names of mailboxes: levels joined by `/`, INBOX without case.

use super::NameLimits;
use crate::error::Error;

/// Between levels (RFC 9051 §5.1.1).
pub const SEPARATOR: &str = "/";

/// More levels than any configuration allows; what damage could make endless ends here.
pub(crate) const DEPTH_BOUND: usize = 1000;

/// The one spelling of a path: no separator at its end, INBOX in capitals. `None`: it cannot be a mailbox.
pub fn canonical(path: &str) -> Option<String> {
    // RFC 9051 §6.3.4: a trailing separator only announces children.
    let path = path.strip_suffix(SEPARATOR).unwrap_or(path);
    let levels: Vec<&str> = path.split(SEPARATOR).collect();
    let well_formed = levels.iter().all(|level| !level.is_empty() && *level != "." && *level != "..");
    if !well_formed || path.chars().any(char::is_control) || levels.len() > DEPTH_BOUND {
        return None;
    }
    let (first, rest) = levels.split_first()?;
    // RFC 9051 §5.1: INBOX is special in any case; a child of it has it as its first level.
    let first = if first.eq_ignore_ascii_case("INBOX") { "INBOX" } else { first };
    Some(std::iter::once(first).chain(rest.iter().copied()).collect::<Vec<_>>().join(SEPARATOR))
}

/// A path for a new mailbox, within the limits.
pub(crate) fn check_new(path: &str, limits: NameLimits) -> Result<String, Error> {
    let path = canonical(path).ok_or(Error::Invalid("a mailbox cannot have this name"))?;
    if path.chars().count() > limits.name_max {
        return Err(Error::Limit { what: "characters in a mailbox name" });
    }
    if path.split(SEPARATOR).count() > limits.depth_max {
        return Err(Error::Limit { what: "levels in a mailbox name" });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Option<&str>) {
        assert_eq!(canonical(path).as_deref(), expect, "{path:?}");
    }

    #[test]
    fn rfc9051_5_1_inbox_has_no_case() {
        check("inbox", Some("INBOX"));
        check("Inbox/Work", Some("INBOX/Work"));
        check("Work/inbox", Some("Work/inbox"));
        check("Lists/", Some("Lists"));
        check("Grüße", Some("Grüße"));
    }

    #[test]
    fn empty_levels_and_controls_are_no_names() {
        for path in ["", "/", "a//b", "/a", "a/../b", "a\u{0}b", "a\r\nb"] {
            check(path, None);
        }
    }
}
