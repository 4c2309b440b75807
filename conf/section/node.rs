//! `[node]`: who this node is, and where its files lie.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::Span;

/// Who this node is, and where its files lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The name in greetings, EHLO and Received fields; it should have A or AAAA and PTR records (RFC 5321 §4.1.1.1).
    pub hostname: String,
    /// The folder of the store, keys and the admin socket.
    pub data_dir: PathBuf,
    /// How long a stopping node lets a command, a DATA or a delivery in progress finish.
    pub drain_limit: Span,
    /// Threads for blocking work: store reads, password hashing, file access.
    pub blocking_threads_max: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            data_dir: PathBuf::from("posthouse-data"),
            drain_limit: Span::secs(30),
            blocking_threads_max: 64,
        }
    }
}

impl Node {
    pub(super) fn complaint(&self) -> Complaint {
        let named = posthouse_mail::Domain::parse(&self.hostname);
        named.err().map(|error| ("node.hostname", format!("`{}`: {error}", self.hostname)))
    }
}
