//! `[cluster]`: the node's place among others.

use serde::{Deserialize, Serialize};

/// The node's place among others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The newest record format that this binary may write; a lower one makes it speak as the version before.
    pub format_max: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { format_max: 1 }
    }
}
