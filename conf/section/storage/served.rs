//! `[storage.served]`: the node that serves the store, for the engine `served`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::section::Complaint;
use crate::unit::Span;

/// The node that serves the store, for the engine `served`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Served {
    /// Where that node's `storage.serve.listen` is reached: `host:port`.
    pub server: String,
    /// The name in that node's certificate; empty: the host of `server`.
    pub name: String,
    /// PEM file with the cluster's own authority, which signed both nodes' certificates.
    pub ca: PathBuf,
    /// PEM file with this node's certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub private_key: PathBuf,
    /// How long the start of this node waits for that one.
    pub open_timeout: Span,
    /// Longest wait for a connection, its TLS or its greeting.
    pub connect_timeout: Span,
    /// Longest wait for the answer to a read, connecting anew included.
    pub call_timeout: Span,
    /// How long the outcome of a commit is asked for; then it is unknown, and the transaction looks for its own trace.
    pub outcome_timeout: Span,
    /// Time between signs of life; a connection that gives none for three of them is made anew.
    pub keep_alive: Span,
    /// Requests without an answer at once; further ones wait.
    pub calls_max: usize,
    /// Rows watched at once.
    pub watches_max: usize,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            server: String::new(),
            name: String::new(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            open_timeout: Span::secs(30),
            connect_timeout: Span::secs(5),
            call_timeout: Span::secs(10),
            outcome_timeout: Span::secs(15),
            keep_alive: Span::secs(5),
            calls_max: 1024,
            watches_max: 100_000,
        }
    }
}

impl Served {
    pub(in crate::section) fn complaint(&self) -> Complaint {
        if self.address().is_none() {
            return Some(("storage.served.server", "the engine `served` needs a server, as `host:port`".to_owned()));
        }
        let files = [
            ("storage.served.ca", &self.ca),
            ("storage.served.certificate", &self.certificate),
            ("storage.served.private_key", &self.private_key),
        ];
        super::missing(&files)
    }

    /// Host and port of the server; an IPv6 address stands in brackets.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.server.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then_some(())?;
        Some((host, port.parse().ok()?))
    }

    /// The name that the server's certificate has to carry.
    pub fn host(&self) -> &str {
        match (self.name.as_str(), self.address()) {
            ("", Some((host, _))) => host,
            (name, _) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_host_and_port() {
        let at = |server: &str| Served { server: server.to_owned(), ..Served::default() };
        assert_eq!(at("store.example:4190").address(), Some(("store.example", 4190)));
        assert_eq!(at("[::1]:4190").address(), Some(("::1", 4190)));
        assert_eq!(at("store.example").address(), None);
        assert_eq!(at(":4190").address(), None);
        assert_eq!(at("store.example:4190").host(), "store.example");
    }
}
