//! Flags of a message: the system flags of RFC 9051 §2.3.2 and keywords.

use std::collections::BTreeSet;
use std::fmt;

/// Octets in a keyword that we keep; a longer one is refused.
pub const KEYWORD_MAX: usize = 128;

/// One flag. Keywords compare without case and keep the spelling that came first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    Seen,
    Answered,
    Flagged,
    Deleted,
    Draft,
    Keyword(Keyword),
}

/// A keyword, an IMAP atom such as `$Forwarded`.
#[derive(Clone)]
pub struct Keyword(String);

impl Keyword {
    /// `None` when the text is no RFC 9051 §9 `flag-keyword` (an atom) or is too long.
    pub fn new(text: &str) -> Option<Self> {
        let is_atom = |b: u8| b > 0x20 && b < 0x7f && !b"(){%*\"\\]".contains(&b);
        let fits = !text.is_empty() && text.len() <= KEYWORD_MAX;
        (fits && text.bytes().all(is_atom)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|b| b.to_ascii_lowercase())
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

impl std::hash::Hash for Keyword {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.folded().for_each(|b| b.hash(state));
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Flag {
    /// Reads the IMAP form. `\Recent` and unknown system flags are `None`: no client may set them.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(system) = text.strip_prefix('\\') else {
            return Keyword::new(text).map(Self::Keyword);
        };
        [Self::Seen, Self::Answered, Self::Flagged, Self::Deleted, Self::Draft]
            .into_iter()
            .find(|flag| flag.as_str()[1..].eq_ignore_ascii_case(system))
    }

    /// The IMAP form.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
            Self::Keyword(keyword) => keyword.as_str(),
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The flags of one message, sorted.
pub type FlagSet = BTreeSet<Flag>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_compare_without_case() {
        assert_eq!(Flag::parse("\\SEEN"), Some(Flag::Seen));
        assert_eq!(Flag::parse("$Forwarded"), Flag::parse("$forwarded"));
        let set: FlagSet = ["$A", "$a", "$B"].iter().filter_map(|t| Flag::parse(t)).collect();
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn recent_and_unknown_system_flags_cannot_be_set() {
        assert_eq!(Flag::parse("\\Recent"), None);
        assert_eq!(Flag::parse("\\Odd"), None);
        assert_eq!(Flag::parse("a b"), None);
        assert_eq!(Flag::parse(&"x".repeat(KEYWORD_MAX + 1)), None);
    }
}
