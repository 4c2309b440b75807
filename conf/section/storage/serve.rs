//! `[storage.serve]`: serving this node's embedded store to other nodes.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::section::Complaint;
use crate::unit::{Size, Span};

/// Serving this node's embedded store to other nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Addresses for other nodes, mutual TLS only; empty: the store is served to nobody.
    pub listen: Vec<SocketAddr>,
    /// Whether this node only serves its store and leaves the mail to the node that uses it.
    pub dedicated: bool,
    /// PEM file with the cluster's own authority, which signed both nodes' certificates.
    pub ca: PathBuf,
    /// PEM file with this node's certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub private_key: PathBuf,
    /// Connections at once.
    pub connections_max: usize,
    /// Octets of requests and answers under way on one connection; a client over it is not read from.
    pub window: Size,
    /// Transactions of all clients that hold a snapshot at once.
    pub snapshots_max: usize,
    /// Rows watched at once by one client.
    pub watches_max: usize,
    /// A connection without a sign of life is ended after this; longer than three of the clients' `keep_alive`.
    pub idle_timeout: Span,
    /// How long the outcome of a commit can be asked for; longer than the clients' `outcome_timeout`.
    pub outcome_ttl: Span,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            dedicated: false,
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            connections_max: 64,
            window: Size::mib(64),
            snapshots_max: 10_000,
            watches_max: 100_000,
            idle_timeout: Span::secs(20),
            outcome_ttl: Span::hours(1),
        }
    }
}

impl Serve {
    pub(in crate::section) fn complaint(&self, engine: Engine) -> Complaint {
        let complain = |key, reason: &str| Some((key, reason.to_owned()));
        if self.listen.is_empty() {
            let reason = "a node that only serves its store needs an address in storage.serve.listen";
            return if self.dedicated { complain("storage.serve.dedicated", reason) } else { None };
        }
        if engine != Engine::Embedded {
            return complain("storage.serve.listen", "only the engine `embedded` is served to others");
        }
        let files = [
            ("storage.serve.ca", &self.ca),
            ("storage.serve.certificate", &self.certificate),
            ("storage.serve.private_key", &self.private_key),
        ];
        super::missing(&files)
    }
}
