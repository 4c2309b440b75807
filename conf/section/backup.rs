//! `[backup]`: how backups are taken and read.

mod object_store;

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::{Size, Span};

pub use object_store::ObjectStore;

/// How backups are taken and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// Size of a pack of bodies before the next is begun.
    pub pack_max: Size,
    /// Bodies read at once, a mebibyte of each.
    pub read_ahead: usize,
    /// Messages of an account read in one snapshot.
    pub rows_at_once: usize,
    /// Changed messages read in an account's last snapshot; more are read in rounds before it.
    pub replay_max: usize,
    /// Rounds over an account's changes before its backup is given up.
    pub rounds_max: usize,
    /// Bodies whose places in a backup are held in memory at once; of ten times as many only the packs.
    pub index_max: usize,
    /// What is read back after a backup: `everything` of the point, what was `written`, or `nothing`.
    pub verify: Verify,
    /// Longest wait for one read or write of the target.
    pub timeout: Span,
    /// A lock on the target that was not renewed for so long, or for as long as its holder asks, is taken over.
    pub lock_ttl: Span,
    pub object_store: ObjectStore,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            pack_max: Size::mib(64),
            read_ahead: 8,
            rows_at_once: 500,
            replay_max: 500,
            rounds_max: 1000,
            index_max: 1_000_000,
            verify: Verify::Everything,
            timeout: Span::mins(2),
            lock_ttl: Span::mins(15),
            object_store: ObjectStore::default(),
        }
    }
}

impl Backup {
    pub(super) fn complaint(&self) -> Complaint {
        self.object_store.complaint()
    }
}

/// What is read back after a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    Everything,
    Written,
    Nothing,
}
