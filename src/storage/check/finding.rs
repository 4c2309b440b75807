//! What a walk found: the rule that is broken, where, and what to do about it.

use crate::error::Error;

/// Which invariant does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A row is not what was written there, or no such row can be.
    Row,
    /// Uids below UidNext, ids below the next id.
    Ids,
    /// Counters are those of what they count.
    Counters,
    /// An account's use is the sum of its emails.
    Quota,
    /// A message's ModSeq is at most its mailbox's, that at most its account's.
    ModSeq,
    /// Emails and memberships name each other and agree on flags, size and time.
    Membership,
    /// Every email stands in its thread and under its Message-IDs, and nothing else does.
    Thread,
    /// What is held has a reference row, and every reference has a holder.
    Reference,
    /// A body can be read and is what it was.
    Body,
    /// The change log tells of every message that is newer than its floor.
    ChangeLog,
    /// Names, parents and special uses of mailboxes agree.
    Tree,
    /// A done row can be what a repeat relies on, and none is lost.
    Done,
    /// Addresses, accounts and domains name each other.
    Directory,
    /// Spool rows are whole.
    Spool,
    /// Messages and work rows of the queue name each other; its counters are right.
    Queue,
    /// No damage was seen, but not all of it could be looked at.
    Unproved,
}

/// What an administrator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Other rows tell what it must be: `check --store --repair` writes that.
    Repair,
    /// Nothing else in the store tells it: it comes from a backup, or is made anew by hand.
    Restore,
    /// Look again while less is written.
    Again,
}

impl Remedy {
    pub fn words(self) -> &'static str {
        match self {
            Self::Repair => "stop the node and run check --store --repair",
            Self::Restore => "restore it from a backup, or set it anew; --repair keeps what is left usable",
            Self::Again => "check again when there is less to do",
        }
    }
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// Which account, mailbox, message or body.
    pub place: String,
    pub detail: String,
    pub remedy: Remedy,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}: {}", self.rule, self.place, self.detail)
    }
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Rows of any kind, each read once before anything is compared.
    pub rows: u64,
    /// Of these, what a repair could not read and laid aside.
    pub laid_aside: u64,
    /// How far of `DONE` the whole walk is, about.
    pub done: u64,
    pub accounts: u64,
    pub mailboxes: u64,
    pub emails: u64,
    pub bodies: u64,
    pub body_octets: u64,
    pub spooled: u64,
    pub queued: u64,
}

impl Walked {
    pub const DONE: u64 = 1000;
    /// Where the walk is when every row was read,
    pub(super) const ROWS_DONE: u64 = 300;
    /// and when every account was compared; bodies come last.
    pub(super) const ACCOUNTS_DONE: u64 = 600;

    /// Sets `done` between two marks.
    pub(super) fn at(&mut self, from: u64, to: u64, (place, of): (usize, usize)) {
        let [place, of] = [place, of.max(1)].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        self.done = from + (to - from).saturating_mul(place) / of;
    }
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub walked: Walked,
    pub findings: Vec<Finding>,
    /// There were more findings than are kept.
    pub truncated: bool,
}

/// Findings kept: enough to see what kind of damage it is.
const FINDINGS_MAX: usize = 1000;

impl Report {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    /// Something could not be looked at in one transaction.
    pub(super) fn is_unproved(&self) -> bool {
        self.findings.iter().any(|finding| finding.rule == Rule::Unproved)
    }

    pub(super) fn add(&mut self, rule: Rule, place: impl Into<String>, detail: impl Into<String>) {
        self.note(rule, Remedy::Repair, place, detail);
    }

    /// What no other row tells.
    pub(super) fn lost(&mut self, rule: Rule, place: impl Into<String>, detail: impl Into<String>) {
        self.note(rule, Remedy::Restore, place, detail);
    }

    pub(super) fn note(&mut self, rule: Rule, remedy: Remedy, place: impl Into<String>, detail: impl Into<String>) {
        if self.findings.len() >= FINDINGS_MAX {
            self.truncated = true;
            return;
        }
        let finding = Finding { rule, place: place.into(), detail: detail.into(), remedy };
        // A damaged row is met by every walk that reads it.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Takes over what a part found.
    pub(super) fn merge(&mut self, found: Self) {
        self.walked.mailboxes += found.walked.mailboxes;
        self.walked.emails += found.walked.emails;
        self.truncated |= found.truncated;
        for finding in found.findings {
            self.note(finding.rule, finding.remedy, finding.place, finding.detail);
        }
    }

    /// A row that cannot be read is a finding, a snapshot that grew too old leaves a doubt; any other error ends the walk.
    pub(super) fn absorb(&mut self, place: &str, outcome: Result<(), Error>) -> Result<(), Error> {
        match outcome {
            Err(Error::TooOld) => {
                let detail = "it is too large or too busy to be seen in one transaction";
                self.note(Rule::Unproved, Remedy::Again, place, detail);
                Ok(())
            }
            Err(Error::Corrupt(detail)) => {
                self.add(Rule::Row, place, detail);
                Ok(())
            }
            Err(error @ Error::NewerFormat { .. }) => {
                self.lost(Rule::Row, place, error.to_string());
                Ok(())
            }
            outcome => outcome,
        }
    }
}
