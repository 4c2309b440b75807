//! Walks the store and proves its invariants, while others write to it too.
//!
//! Each step reads one snapshot, so that what it compares belongs together. What spans several steps (an account's sums)
//! counts as proved only if the account row stood still from first to last; otherwise it is walked again, at last in a
//! single snapshot. So a finding is damage, never somebody's write in between.

mod account;
mod blobs;
mod directory;
mod transit;

use posthouse_mail::AccountId;

use crate::error::Error;
use crate::keys;
use crate::shard::ShardId;
use crate::store::Store;
use crate::transaction::Transaction;

/// Which invariant does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A row cannot be read.
    Row,
    /// Uids below UidNext, ids below the next id.
    Ids,
    /// A mailbox's counters are those of its messages.
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
    /// A done row can be what a repeat relies on.
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

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// Which account, mailbox, message or body.
    pub place: String,
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}: {}", self.rule, self.place, self.detail)
    }
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Of `ShardId::COUNT`; each is walked before mail under way and bodies are.
    pub shards: u64,
    pub accounts: u64,
    pub mailboxes: u64,
    pub emails: u64,
    pub bodies: u64,
    pub body_octets: u64,
    pub spooled: u64,
    pub queued: u64,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub walked: Walked,
    pub findings: Vec<Finding>,
    /// There were more findings than are kept.
    pub truncated: bool,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, rule: Rule, place: impl Into<String>, detail: impl Into<String>) {
        if self.findings.len() >= FINDINGS_MAX {
            self.truncated = true;
            return;
        }
        self.findings.push(Finding { rule, place: place.into(), detail: detail.into() });
    }

    /// A row that cannot be read is a finding, a snapshot that grew too old leaves a doubt; any other error ends the walk.
    fn absorb(&mut self, place: &str, outcome: Result<(), Error>) -> Result<(), Error> {
        match outcome {
            Err(Error::TooOld) => {
                self.add(Rule::Unproved, place, "it is too large or too busy to be seen in one snapshot");
                Ok(())
            }
            Err(Error::Corrupt(detail)) => {
                self.add(Rule::Row, place, detail);
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// Findings kept: enough to see what kind of damage it is.
const FINDINGS_MAX: usize = 1000;
/// Walks of an account that changes all the time before it is walked in one snapshot.
const TRIES: usize = 4;

/// Hears how far the walk has come.
pub type Progress<'a> = &'a mut (dyn FnMut(&Walked) + Send);

/// Proves every invariant.
pub async fn run(store: &Store, progress: Progress<'_>) -> Result<Report, Error> {
    let mut report = Report::default();
    for number in 0..ShardId::COUNT {
        let shard = ShardId::new(number).expect("every number below COUNT is a shard");
        report.walked.shards = u64::from(number) + 1;
        for id in crate::account::in_shard(store, shard).await? {
            one_account(store, id, &mut report).await?;
            progress(&report.walked);
        }
    }
    let outcome = directory::walk(store, &mut report).await;
    report.absorb("addresses", outcome)?;
    let outcome = transit::walk(store, &mut report).await;
    report.absorb("mail under way", outcome)?;
    progress(&report.walked);
    let outcome = blobs::walk(store, &mut report, progress).await;
    report.absorb("bodies", outcome)?;
    Ok(report)
}

async fn one_account(store: &Store, id: AccountId, report: &mut Report) -> Result<(), Error> {
    for attempt in 1..=TRIES {
        let mut source = Source { store: store.clone(), txn: store.snapshot(), renews: attempt < TRIES };
        let mut found = Report::default();
        let before = source.txn.get(&keys::account(id)).await?;
        let outcome = account::walk(&mut source, id, &mut found).await;
        found.absorb(&format!("account {id}"), outcome)?;
        let stood_still = !source.renews || store.snapshot().get(&keys::account(id)).await? == before;
        if found.is_whole() || stood_still || attempt == TRIES {
            report.walked.accounts += 1;
            report.walked.mailboxes += found.walked.mailboxes;
            report.walked.emails += found.walked.emails;
            found.findings.into_iter().for_each(|finding| report.add(finding.rule, finding.place, finding.detail));
            return Ok(());
        }
    }
    Ok(())
}

/// Where a walk reads: a fresh snapshot for each step, or one for all.
struct Source {
    store: Store,
    txn: Transaction<'static>,
    renews: bool,
}

impl Source {
    fn step(&mut self) -> &mut Transaction<'static> {
        if self.renews {
            self.txn = self.store.snapshot();
        }
        &mut self.txn
    }
}

/// Rows looked at in one step.
const STEP: usize = 500;

#[cfg(test)]
mod tests;
