//! `[tls]`: the server's certificate and key.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::Span;

/// The server's certificate and key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate chain; empty: none, and the TLS ports stay closed.
    pub certificate: PathBuf,
    /// PEM file with the private key of that certificate.
    pub private_key: PathBuf,
    /// A handshake that takes longer ends the connection.
    pub handshake_timeout: Span,
    /// How long a key seals session tickets (RFC 8446 §4.6.1), and then goes on to open them; at most seven days.
    pub ticket_lifetime: Span,
    /// Handshakes under way at once; further ones wait, within the time-out.
    pub handshakes_max: usize,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            handshake_timeout: Span::secs(10),
            ticket_lifetime: Span::secs(12 * 3600),
            handshakes_max: 1024,
        }
    }
}

impl Tls {
    pub(super) fn complaint(&self) -> Complaint {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
        if !(Duration::from_secs(60)..=WEEK).contains(&self.ticket_lifetime.get()) {
            return Some(("tls.ticket_lifetime", "it is between one minute and seven days".to_owned()));
        }
        let halves = self.certificate.as_os_str().is_empty() != self.private_key.as_os_str().is_empty();
        halves.then(|| ("tls", "certificate and private_key go together".to_owned()))
    }
}
