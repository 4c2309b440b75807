//! Mends a store that `check` found damaged: writes what other rows tell, and says what it did.
//!
//! It runs where nobody else writes, under the fence of each shard that it touches. Nothing is thrown away: a row that
//! cannot be read is laid aside under `keys::lost` as it was, and what can be made of its neighbours takes its place. Mail
//! whose rows are gone but whose body is there comes back, if need be without its flags, in INBOX. Each pass begins with a
//! check, so that one mending may uncover the next, and ends when the store is whole or nothing more can be done.

mod account;
mod blobs;
mod cluster;
mod directory;
mod pen;
mod rows;
mod transit;

use posthouse_mail::UnixMillis;
use posthouse_mail::structure::MessageStructure;

use crate::check::{self, Options, Progress, Report};
use crate::error::Error;
use crate::store::Store;
use pen::Pen;

/// One thing that was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Which row, account, mailbox, message or body.
    pub place: String,
    pub what: String,
}

/// What a repair did, and what the last check still found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub mended: Vec<Mended>,
    pub report: Report,
}

/// Reads the structure of a message whose row is lost.
pub type Parse<'a> = &'a (dyn Fn(&[u8]) -> MessageStructure + Send + Sync);

/// Checks before it gives up: damage of one kind is mended in two.
const PASSES: usize = 6;

/// Mends what can be mended. The caller sees to it that nobody else writes.
pub async fn run(store: &Store, now: UnixMillis, parse: Parse<'_>, progress: Progress<'_>) -> Result<Outcome, Error> {
    let mut pen = Pen::new(store, now);
    let mut report = check::run(store, Options { bodies: false }, progress).await?;
    for _ in 0..PASSES {
        let before = pen.mended.len();
        if report.is_whole() {
            break;
        }
        let entities = rows::mend(&mut pen).await?;
        cluster::mend(&mut pen).await?;
        directory::mend_domains(&mut pen, &entities.domains).await?;
        let known = account::Known::load(store).await?;
        for id in &entities.accounts {
            account::mend(&mut pen, *id, &known, parse).await?;
        }
        directory::mend(&mut pen, &entities).await?;
        transit::mend(&mut pen, &entities).await?;
        blobs::mend(&mut pen).await?;
        if pen.mended.len() == before {
            break;
        }
        report = check::run(store, Options { bodies: false }, progress).await?;
    }
    Ok(Outcome { mended: pen.mended, report })
}

#[cfg(test)]
mod tests;
