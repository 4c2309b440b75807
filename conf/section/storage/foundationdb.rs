//! `[storage.foundationdb]`: the cluster that keeps the store, for the engine `foundationdb`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::section::Complaint;
use crate::unit::Span;

/// The cluster that keeps the store, for the engine `foundationdb`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FoundationDb {
    /// The cluster file: where the coordinators are.
    pub cluster_file: PathBuf,
    /// FoundationDB's client library, of the cluster's release line, 7.3 or later; a bare name is looked for where the system
    /// keeps its libraries.
    pub library: PathBuf,
    /// Every key begins with this, so that a cluster can be shared; at most 64 octets.
    pub prefix: String,
    /// A read or commit that takes longer is given up and tried again; longer than the cluster's recovery from a lost server.
    pub timeout: Span,
    /// Rows watched at once.
    pub watches_max: u32,
}

impl Default for FoundationDb {
    fn default() -> Self {
        Self {
            cluster_file: PathBuf::from("/etc/foundationdb/fdb.cluster"),
            library: PathBuf::from("libfdb_c.so"),
            prefix: "posthouse/".to_owned(),
            timeout: Span::secs(10),
            watches_max: 100_000,
        }
    }
}

impl FoundationDb {
    /// Octets of a prefix.
    pub const PREFIX_MAX: usize = 64;

    pub(in crate::section) fn complaint(&self) -> Complaint {
        let is_too_long = self.prefix.len() > Self::PREFIX_MAX;
        is_too_long.then(|| ("storage.foundationdb.prefix", format!("longer than {} octets", Self::PREFIX_MAX)))
    }
}
