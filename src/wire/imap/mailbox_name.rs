//! Mailbox names and the patterns of LIST and LSUB.
//!
//! A name is kept as UTF-8 with `/` between its levels; the wire form is modified UTF-7. INBOX is one name in every case
//! (RFC 3501 §5.1), so it is folded here, once.

use std::fmt;

use super::scan::{ParseError, Parsed};
use super::utf7;

/// Between the levels of a name.
pub const SEPARATOR: char = '/';
/// Octets of UTF-8 in a whole name.
pub const NAME_MAX: usize = 1000;
/// Levels of a name.
pub const LEVELS_MAX: usize = 32;
/// Octets in a pattern of LIST; the product with a name's length is the work of one match.
pub const PATTERN_MAX: usize = 1000;

const INBOX: &str = "INBOX";

/// The name of a mailbox, which may or may not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName(String);

impl MailboxName {
    pub fn inbox() -> Self {
        Self(INBOX.to_owned())
    }

    /// A name as the store has it.
    pub fn new(name: &str) -> Self {
        Self(fold_inbox(name))
    }

    /// Reads modified UTF-7; plain UTF-8 is taken too, since RFC 9051 §5.1 clients send it.
    pub fn from_wire(wire: &[u8]) -> Parsed<Self> {
        decode(wire, NAME_MAX).map(|name| Self(fold_inbox(&name)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_inbox(&self) -> bool {
        self.0 == INBOX
    }

    pub fn to_wire(&self) -> String {
        utf7::encode(&self.0)
    }

    /// The name as CREATE means it: a separator at its end announces children and is no part of the name (RFC 3501 §6.3.3).
    pub fn without_trailing_separator(&self) -> Self {
        Self(self.0.strip_suffix(SEPARATOR).unwrap_or(&self.0).to_owned())
    }

    /// Whether a mailbox of this name may be made: no empty level, no control character, no wildcard.
    pub fn is_creatable(&self) -> bool {
        let mut levels = 0;
        self.0.split(SEPARATOR).all(|level| {
            levels += 1;
            levels <= LEVELS_MAX
                && !level.is_empty()
                && !level.chars().any(|c| c.is_control() || matches!(c, '%' | '*'))
        })
    }

    /// The name one level up.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once(SEPARATOR).map(|(parent, _)| Self(parent.to_owned()))
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn decode(wire: &[u8], max: usize) -> Parsed<String> {
    let text = std::str::from_utf8(wire).map_err(|_| ParseError::MailboxName)?;
    let name = if text.is_ascii() { utf7::decode(text).ok_or(ParseError::MailboxName)? } else { text.to_owned() };
    if name.len() > max || name.contains(['\0', '\r', '\n']) { Err(ParseError::MailboxName) } else { Ok(name) }
}

fn fold_inbox(name: &str) -> String {
    let first = name.split(SEPARATOR).next().unwrap_or_default();
    if first.eq_ignore_ascii_case(INBOX) { format!("{INBOX}{}", &name[first.len()..]) } else { name.to_owned() }
}

/// The reference name and pattern of LIST or LSUB, joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPattern(Vec<char>);

impl ListPattern {
    /// RFC 3501 §6.3.8: our interpretation of a reference is to put it before the pattern.
    pub fn new(reference: &[u8], pattern: &[u8]) -> Parsed<Self> {
        let joined = decode(&[reference, pattern].concat(), PATTERN_MAX)?;
        let mut chars: Vec<char> = Vec::with_capacity(joined.len());
        for c in fold_inbox(&joined).chars() {
            match (chars.last(), c) {
                // Of neighbouring wildcards only the widest counts.
                (Some('*'), '*' | '%') | (Some('%'), '%') => {}
                (Some('%'), '*') => {
                    chars.pop();
                    chars.push('*');
                }
                _ => chars.push(c),
            }
        }
        Ok(Self(chars))
    }

    /// Whether the pattern matches, in time of at most pattern × name: a row of reachable pattern places a character.
    pub fn matches(&self, name: &MailboxName) -> bool {
        let inbox = name.is_inbox();
        let mut row = vec![false; self.0.len() + 1];
        row[0] = true;
        self.skip_wildcards(&mut row);
        for c in name.as_str().chars() {
            let mut next = vec![false; row.len()];
            for (place, &pattern) in self.0.iter().enumerate() {
                if !row[place] {
                    continue;
                }
                match pattern {
                    '*' => next[place] = true,
                    '%' => next[place] |= c != SEPARATOR,
                    // RFC 3501 §5.1: INBOX has no case.
                    _ => next[place + 1] |= pattern == c || (inbox && pattern.eq_ignore_ascii_case(&c)),
                }
            }
            self.skip_wildcards(&mut next);
            row = next;
        }
        row[self.0.len()]
    }

    /// A wildcard may stand for nothing.
    fn skip_wildcards(&self, row: &mut [bool]) {
        for (place, pattern) in self.0.iter().enumerate() {
            if row[place] && matches!(pattern, '*' | '%') {
                row[place + 1] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_rfc_3501_6_3_8_says() {
        for (pattern, name, expect) in [
            ("*", "a/b/c", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("%/%", "a/b", true),
            ("*c", "a/b/c", true),
            ("a*", "b", false),
            ("%%*", "a/b", true),
            ("inb%", "INBOX", true),
            ("inbox", "INBOX", true),
            ("Sent", "sent", false),
            ("", "a", false),
            ("Entw&APw-%", "Entwürfe", true),
        ] {
            let pattern = ListPattern::new(b"", pattern.as_bytes()).expect("a pattern");
            assert_eq!(pattern.matches(&MailboxName::new(name)), expect, "{pattern:?} {name}");
        }
        assert!(ListPattern::new(b"a/", b"%").expect("a pattern").matches(&MailboxName::new("a/b")));
    }

    #[test]
    fn many_wildcards_do_not_blow_up() {
        let pattern = ListPattern::new(b"", "a*".repeat(400).as_bytes()).expect("a pattern");
        assert!(!pattern.matches(&MailboxName::new(&format!("{}b", "a".repeat(380)))));
    }

    #[test]
    fn inbox_has_no_case_but_other_names_have() {
        assert!(MailboxName::from_wire(b"iNbOx").expect("a name").is_inbox());
        assert_eq!(MailboxName::from_wire(b"inbox/Sub").expect("a name").as_str(), "INBOX/Sub");
        assert_ne!(MailboxName::new("sent"), MailboxName::new("Sent"));
    }

    #[test]
    fn odd_names_cannot_be_made() {
        for (name, expect) in
            [("a/b", true), ("", false), ("a//b", false), ("/a", false), ("a\u{7}", false), ("a*", false)]
        {
            assert_eq!(MailboxName::new(name).is_creatable(), expect, "{name:?}");
        }
        assert!(!MailboxName::new(&"a/".repeat(40)).is_creatable());
        assert_eq!(MailboxName::from_wire(&[0xff]), Err(ParseError::MailboxName));
        assert_eq!(MailboxName::from_wire(b"a&b"), Err(ParseError::MailboxName));
    }
}
