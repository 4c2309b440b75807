//! Backups: the whole site at a point in time, in a folder or a bucket, and back.
//!
//! A *target* holds any number of *points*. Bodies lie in packs, each body once; what an account was lies in rows objects
//! named by their content. A point names what it needs of both, so that a new one writes only what changed and any of them
//! can go. It is written last, whole: a run that was cut short leaves the points before it as they were, and what it had
//! written is found by the next run.
//!
//! Accounts are taken one by one, each as it was at one ModSeq (`account`); `restore` brings a whole site back, and `image`
//! is what the node restores a part from.

mod account;
mod bodies;
mod bundle;
mod damage;
pub mod image;
mod known;
mod lock;
mod object;
mod pack;
mod place;
mod point;
mod prune;
mod record;
pub mod restore;
mod run;
mod seal;
mod site;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use point::PointView;
pub use prune::{Pruned, prune};
pub use run::{Taken, run};
pub use target::{Access, Target};
pub use verify::{Verified, verify};

/// What a long command is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Bodies,
    Site,
    Accounts,
    Verify,
    Prune,
    Restore,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    pub done: u64,
    /// Of this phase.
    pub total: u64,
    pub accounts: u64,
    pub messages: u64,
    pub bodies: u64,
    /// Written to the target or read back from it.
    pub octets: u64,
}

impl Step {
    pub(crate) fn of(phase: Phase) -> Self {
        Self { phase, done: 0, total: 1, accounts: 0, messages: 0, bodies: 0, octets: 0 }
    }
}

/// Hears of each step.
pub type Progress<'a> = &'a mut (dyn FnMut(&Step) + Send);
