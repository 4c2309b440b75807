//! What was promised, against what is there: the judge of every scenario that kills something.
//!
//! It knows nothing of mail: a try is a name, and what the other side said about it. An answer that never came leaves two
//! outcomes open, an answer that came leaves one.

use std::collections::HashMap;
use std::fmt;

/// How far a try got, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Sent; no answer came.
    Tried,
    /// The other side promised to keep it.
    Acknowledged,
    /// Its removal was asked for; no answer came.
    Leaving,
    /// The other side promised that it is gone.
    Gone,
}

/// Everything that clients tried.
#[derive(Debug, Default)]
pub struct Ledger {
    tries: HashMap<String, Standing>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    Lost(String),
    Doubled(String, usize),
    /// Removed, and there again.
    Returned(String),
    /// Nobody tried this.
    Unknown(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(name) => write!(f, "lost: {name} was acknowledged"),
            Self::Doubled(name, copies) => write!(f, "doubled: {name} is there {copies} times"),
            Self::Returned(name) => write!(f, "returned: {name} was removed"),
            Self::Unknown(name) => write!(f, "unknown: nobody tried {name}"),
        }
    }
}

/// Counts for the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub tried: usize,
    pub acknowledged: usize,
    pub unanswered: usize,
    pub removed: usize,
}

impl Ledger {
    pub fn note(&mut self, name: &str, standing: Standing) {
        self.tries.insert(name.to_owned(), standing);
    }

    pub fn counts(&self) -> Counts {
        let count = |wanted: &[Standing]| self.tries.values().filter(|standing| wanted.contains(standing)).count();
        Counts {
            tried: self.tries.len(),
            acknowledged: count(&[Standing::Acknowledged, Standing::Leaving, Standing::Gone]),
            unanswered: count(&[Standing::Tried, Standing::Leaving]),
            removed: count(&[Standing::Gone]),
        }
    }

    /// Compares with how often each try was found.
    pub fn judge(&self, found: &HashMap<String, usize>) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (name, copies) in found {
            match self.tries.get(name) {
                None => violations.push(Violation::Unknown(name.clone())),
                Some(Standing::Gone) => violations.push(Violation::Returned(name.clone())),
                Some(_) if *copies > 1 => violations.push(Violation::Doubled(name.clone(), *copies)),
                Some(_) => {}
            }
        }
        let kept = self.tries.iter().filter(|(_, standing)| **standing == Standing::Acknowledged);
        let lost = kept.filter(|(name, _)| !found.contains_key(*name)).map(|(name, _)| Violation::Lost(name.clone()));
        violations.extend(lost);
        violations.sort();
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(standing: Option<Standing>, copies: usize, expect: &[&str]) {
        let mut ledger = Ledger::default();
        if let Some(standing) = standing {
            ledger.note("m", standing);
        }
        let found = HashMap::from_iter((copies > 0).then(|| ("m".to_owned(), copies)));
        let words: Vec<_> = ledger.judge(&found).iter().map(ToString::to_string).collect();
        assert!(words.iter().map(|text| text.split(':').next().unwrap_or_default()).eq(expect.iter().copied()));
    }

    #[test]
    fn acknowledged_is_exactly_once_and_unanswered_at_most_once() {
        check(Some(Standing::Acknowledged), 0, &["lost"]);
        check(Some(Standing::Acknowledged), 1, &[]);
        check(Some(Standing::Acknowledged), 2, &["doubled"]);
        check(Some(Standing::Tried), 0, &[]);
        check(Some(Standing::Tried), 1, &[]);
        check(Some(Standing::Tried), 2, &["doubled"]);
        check(None, 1, &["unknown"]);
    }

    #[test]
    fn what_was_removed_stays_away() {
        check(Some(Standing::Gone), 0, &[]);
        check(Some(Standing::Gone), 1, &["returned"]);
        check(Some(Standing::Leaving), 0, &[]);
        check(Some(Standing::Leaving), 1, &[]);
    }
}
