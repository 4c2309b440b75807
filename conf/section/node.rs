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
    /// How long `posthouse drain` lets balancers see that the node is not ready before it closes its listeners.
    pub drain_notice: Span,
    /// In which `posthouse drain` lets idle sessions go one after the other, so that they do not all come back at once.
    pub drain_spread: Span,
    /// A session whose client says nothing for this long sleeps: it keeps its state and its socket, and gives all other memory back
    /// until a byte, a change of its mailbox or its time-out wakes it. `0s`: never; else `1ms` to `1d`.
    pub sleep_after: Span,
    /// Threads for blocking work: store reads, password hashing, file access.
    pub blocking_threads_max: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            data_dir: PathBuf::from("posthouse-data"),
            drain_limit: Span::secs(30),
            drain_notice: Span::secs(10),
            drain_spread: Span::secs(20),
            sleep_after: Span::secs(60),
            blocking_threads_max: 64,
        }
    }
}

impl Node {
    pub(super) fn complaint(&self) -> Complaint {
        if let Err(error) = posthouse_mail::Domain::parse(&self.hostname) {
            return Some(("node.hostname", format!("`{}`: {error}", self.hostname)));
        }
        let is_sound = self.sleep_after <= Span::days(1);
        (!is_sound).then(|| ("node.sleep_after", format!("{}: at most one day", self.sleep_after)))
    }
}
