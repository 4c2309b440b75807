//! `[listen]`: where each protocol accepts connections: `address:port` in a list; an empty list closes it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where each protocol accepts connections: `address:port` in a list; an empty list closes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Mail from other servers (RFC 5321).
    pub smtp: Vec<SocketAddr>,
    /// Mail from our users, STARTTLS (RFC 6409).
    pub submission: Vec<SocketAddr>,
    /// Mail from our users, implicit TLS (RFC 8314 §3.3).
    pub submissions: Vec<SocketAddr>,
    /// IMAP with STARTTLS (RFC 9051).
    pub imap: Vec<SocketAddr>,
    /// IMAP with implicit TLS (RFC 8314 §3.2).
    pub imaps: Vec<SocketAddr>,
    /// POP3 with STLS (RFC 1939, RFC 2595).
    pub pop3: Vec<SocketAddr>,
    /// POP3 with implicit TLS (RFC 8314 §3.2).
    pub pop3s: Vec<SocketAddr>,
    /// `/metrics` and `/health`, plain HTTP.
    pub metrics: Vec<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            smtp: all(25),
            submission: all(587),
            submissions: all(465),
            imap: all(143),
            imaps: all(993),
            pop3: all(110),
            pop3s: all(995),
            metrics: vec![SocketAddr::from(([127, 0, 0, 1], 2090))],
        }
    }
}

fn all(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::from(([0, 0, 0, 0], port))]
}
