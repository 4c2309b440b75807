//! Walks the store and proves its invariants, while others write to it too.
//!
//! Every row is read as it lies (`rows`): its seal, its key and its record. Then rows are compared with those that repeat
//! them, part by part and in chunks, so that no snapshot lives long. What a part finds is only a suspicion: the part is
//! walked again inside one transaction, where nothing moves, before it is reported. Where that takes longer than a
//! transaction may live, it is walked in chunks until the account stood still from first to last.

mod account;
pub(crate) mod blobs;
pub(crate) mod cluster;
mod directory;
mod finding;
pub(crate) mod rows;
mod transit;

use posthouse_mail::AccountId;

pub use finding::{Finding, Remedy, Report, Rule, Walked};

use crate::error::Error;
use crate::keys;
use crate::store::Store;
use crate::transaction::Transaction;
use account::{Part, Walk};

/// What is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Every body is read to its end, expanded and hashed; without it only its rows are proved.
    pub bodies: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { bodies: true }
    }
}

/// Walks in chunks of an account that is too large for one transaction and changes all the time.
const TRIES: usize = 4;
/// Rows looked at in one step.
const STEP: usize = 500;

/// Hears how far the walk has come.
pub type Progress<'a> = &'a mut (dyn FnMut(&Walked) + Send);

/// Proves every invariant.
pub async fn run(store: &Store, options: Options, progress: Progress<'_>) -> Result<Report, Error> {
    let mut report = Report::default();
    let entities = rows::walk(store, &mut report, progress).await?;
    let total = entities.accounts.len().max(1);
    for (number, id) in entities.accounts.iter().enumerate() {
        one_account(store, *id, &mut report).await?;
        report.walked.at(Walked::ROWS_DONE, Walked::ACCOUNTS_DONE, (number, total));
        progress(&report.walked);
    }
    directory::walk(store, &entities.domains, &mut report).await?;
    cluster::walk(store, &mut report).await?;
    transit::walk(store, &mut report).await?;
    blobs::walk(store, options, &mut report, progress).await?;
    report.walked.at(Walked::DONE, Walked::DONE, (1, 1));
    progress(&report.walked);
    Ok(report)
}

async fn one_account(store: &Store, id: AccountId, report: &mut Report) -> Result<(), Error> {
    report.walked.accounts += 1;
    let mut source = Source::new(store, Reads::Chunks);
    let mut found = Report::default();
    let parts = match Walk::open(&mut source, id, &mut found).await {
        Ok(Some(walk)) => walk.parts(),
        Ok(None) => Vec::new(),
        Err(error) => return report.absorb(&format!("account {id}"), Err(error)),
    };
    for part in parts {
        let found = proved(store, id, part).await?;
        report.merge(found);
    }
    Ok(())
}

/// Walks one part of an account; what it reports is so.
async fn proved(store: &Store, id: AccountId, part: Part) -> Result<Report, Error> {
    let first = walk_part(&mut Source::new(store, Reads::Chunks), id, part).await?;
    if first.is_whole() {
        return Ok(first);
    }
    let again = walk_part(&mut Source::new(store, Reads::OneTransaction), id, part).await?;
    if !again.is_unproved() {
        return Ok(again);
    }
    for _ in 0..TRIES {
        let before = store.snapshot().get(&keys::account(id)).await;
        let found = walk_part(&mut Source::new(store, Reads::Chunks), id, part).await?;
        if found.is_whole() || store.snapshot().get(&keys::account(id)).await == before {
            return Ok(found);
        }
    }
    Ok(again)
}

async fn walk_part(source: &mut Source, id: AccountId, part: Part) -> Result<Report, Error> {
    let mut found = Report::default();
    let outcome = match Walk::open(source, id, &mut found).await {
        Ok(Some(mut walk)) => walk.part(source, part).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    found.absorb(&format!("account {id}"), outcome)?;
    Ok(found)
}

/// How a walk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A fresh snapshot for each step, however long the whole takes.
    Chunks,
    /// One read version for all: what it compares was true at one instant.
    OneTransaction,
}

/// Where a walk reads.
pub(crate) struct Source {
    store: Store,
    txn: Transaction<'static>,
    reads: Reads,
}

impl Source {
    pub(crate) fn new(store: &Store, reads: Reads) -> Self {
        Self { store: store.clone(), txn: store.snapshot(), reads }
    }

    fn step(&mut self) -> &mut Transaction<'static> {
        if self.reads == Reads::Chunks {
            self.txn = self.store.snapshot();
        }
        &mut self.txn
    }
}

#[cfg(test)]
pub(crate) mod tests;
