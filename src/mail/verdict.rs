//! What the filter says of a message, and why.

use crate::reply::Reply;

/// What to do with a message. Tagging and greylisting are evidence or a way to defer, not actions of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Accept,
    Junk,
    Quarantine,
    Defer,
    Reject,
    Discard,
}

/// One stage's finding, with its weight in the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The stage that found it: `spf`, `dkim`, `rate`.
    pub stage: &'static str,
    /// What it found, in words of that stage: `fail`, `pass`, `listed`.
    pub finding: String,
    pub score: f64,
}

/// The filter's last word.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub action: Action,
    pub evidence: Vec<Evidence>,
    /// What the client hears when the action is `Defer` or `Reject`.
    pub reply: Option<Reply>,
}

impl Verdict {
    /// Nothing against it.
    pub fn accept() -> Self {
        Self { action: Action::Accept, evidence: Vec::new(), reply: None }
    }

    pub fn score(&self) -> f64 {
        self.evidence.iter().map(|e| e.score).sum()
    }
}
