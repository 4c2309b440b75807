//! `[storage]`: the store. What only one engine needs has a table of its own inside the section.

mod foundationdb;
mod object_store;
mod serve;
mod served;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::{Size, Span};

pub use foundationdb::FoundationDb;
pub use object_store::ObjectStore;
pub use serve::Serve;
pub use served::Served;

/// The longest body that a store keeps: its row holds the list of its parts.
pub const BODY_MAX: Size = Size::mib(256);

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Which engine: `embedded` keeps everything on this machine, `served` uses the store of another node, `foundationdb` a
    /// FoundationDB cluster.
    pub engine: Engine,
    /// Holds the keys that bodies are encrypted under; empty: `storage.keys` in the folder of the store. Keep a copy elsewhere.
    pub key_file: PathBuf,
    /// Page cache of the ordered index.
    pub cache: Size,
    /// Size of a body segment before the next is opened.
    pub segment_max: Size,
    /// Octets of transactions committed with one sync.
    pub group_max: Size,
    /// Octets of the journal after which its rows are moved into the index; twice as much at most.
    pub journal_max: Size,
    /// The rows of the journal are moved into the index after this at the latest.
    pub checkpoint_interval: Span,
    /// Transactions waiting for the commit thread; further ones wait, callers hold their own limits.
    pub commit_queue_max: usize,
    /// Bodies up to this size are kept in their row instead of a segment.
    pub inline_blob_max: Size,
    /// A staged body that no row refers to is swept after this.
    pub staged_ttl: Span,
    /// A body is freed this long after its last reference is gone.
    pub blob_retention: Span,
    /// Body reads and writes at once on the blocking pool, and as many long scans.
    pub blocking_max: usize,
    /// Times that a transaction is run when it meets conflicts.
    pub transaction_tries_max: usize,
    /// A transaction is not run again after this.
    pub transaction_timeout: Span,
    /// How long tombstones stay in the change log.
    pub change_log_ttl: Span,
    /// How long the proof of a delivery or change stays; longer than any message waits in spool or queue.
    pub done_ttl: Span,
    /// How often a node frees what is no longer needed.
    pub sweep_interval: Span,
    /// Every body is read and verified once in this time, in the background.
    pub scrub_interval: Span,
    /// Octets a second that work in the background on bodies reads: verifying, emptying old segments, moving large bodies.
    pub background_rate: Size,
    /// Segment files open at once.
    pub open_files_max: usize,
    /// Where several processes can reach the store: its owner counts as gone when it gave no sign of life for this long.
    pub owner_lease: Span,
    pub foundationdb: FoundationDb,
    pub served: Served,
    pub serve: Serve,
    pub object_store: ObjectStore,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            engine: Engine::Embedded,
            key_file: PathBuf::new(),
            cache: Size::mib(64),
            segment_max: Size::mib(256),
            group_max: Size::mib(32),
            journal_max: Size::mib(32),
            checkpoint_interval: Span::secs(30),
            commit_queue_max: 4096,
            inline_blob_max: Size::kib(1),
            staged_ttl: Span::hours(24),
            blob_retention: Span::hours(24),
            blocking_max: 16,
            transaction_tries_max: 64,
            transaction_timeout: Span::secs(20),
            change_log_ttl: Span::days(30),
            done_ttl: Span::days(14),
            sweep_interval: Span::hours(1),
            scrub_interval: Span::days(30),
            background_rate: Size::mib(8),
            open_files_max: 128,
            owner_lease: Span::secs(10),
            foundationdb: FoundationDb::default(),
            served: Served::default(),
            serve: Serve::default(),
            object_store: ObjectStore::default(),
        }
    }
}

/// A limit of messages that no store could keep.
pub(super) fn complain_of_body(key: &'static str, max: Size) -> Complaint {
    (max > BODY_MAX).then(|| (key, format!("{max}: a store keeps messages of at most {BODY_MAX}")))
}

impl Storage {
    pub(super) fn complaint(&self) -> Complaint {
        self.object_store.complaint().or_else(|| self.serve.complaint(self.engine)).or_else(|| match self.engine {
            Engine::Served => self.served.complaint(),
            Engine::FoundationDb => self.foundationdb.complaint(),
            Engine::Embedded => None,
        })
    }
}

/// The first file that is not named. Connections between nodes are mutual TLS or none.
fn missing(files: &[(&'static str, &PathBuf)]) -> Complaint {
    let unnamed = files.iter().find(|(_, file)| file.as_os_str().is_empty());
    unnamed.map(|(key, _)| (*key, "names no file; `posthouse certificate` makes what nodes need".to_owned()))
}

/// Which engine keeps the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Embedded,
    Served,
    FoundationDb,
}
