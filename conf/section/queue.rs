//! `[queue]`: sending mail to other servers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::{Size, Span};

/// Sending mail to other servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// The port at remote MX hosts.
    pub remote_port: u16,
    /// `host:port` that all remote mail goes through, with TLS from the first octet on port 465; empty: MX lookup.
    pub smarthost: String,
    /// User for AUTH PLAIN at the smarthost, whose certificate must then be valid by the system's roots; empty: none.
    pub smarthost_user: String,
    /// File with that user's password.
    pub smarthost_password_file: PathBuf,
    /// Waits between attempts; the last one repeats until `expire_after` (RFC 5321 §4.5.4.1).
    pub schedule: Vec<Span>,
    /// Each wait is made longer or shorter by up to this share.
    pub jitter_percent: u32,
    /// A message that could not be delivered by then is returned (RFC 5321 §4.5.4.1).
    pub expire_after: Span,
    /// The sender hears of the delay after this; `0ms`: never.
    pub delay_notice_after: Span,
    /// Attempts under way at once for one destination domain.
    pub connections_per_domain_max: usize,
    /// Attempts under way at once on this node.
    pub relays_max: usize,
    /// Recipients in one SMTP transaction (RFC 5321 §4.5.3.1.8).
    pub recipients_per_transaction_max: usize,
    /// Messages sent over one connection.
    pub messages_per_connection_max: usize,
    /// MX hosts tried in one attempt.
    pub mx_hosts_max: usize,
    /// Addresses tried for one MX host.
    pub addresses_per_host_max: usize,
    /// Longest wait for a TCP connection (RFC 5321 §4.5.3.2).
    pub connect_timeout: Span,
    /// Longest wait for the greeting (RFC 5321 §4.5.3.2.1).
    pub greeting_timeout: Span,
    /// Longest wait for a reply (RFC 5321 §4.5.3.2.2).
    pub command_timeout: Span,
    /// Longest wait for the reply to the end of data (RFC 5321 §4.5.3.2.6).
    pub data_timeout: Span,
    /// A connection is kept this long for the next message.
    pub idle_connection_ttl: Span,
    /// `opportunistic` uses STARTTLS where offered, `none` never does, `required` defers where it is missing (RFC 3207).
    pub tls: TlsPolicy,
    /// Whether an MX may resolve to a loopback address; our own listeners are refused in any case.
    pub loopback_allowed: bool,
    /// A queue actor without work leaves memory after this.
    pub passivate_after: Span,
    /// How often the store is searched for due work whose queue sleeps; also the age of the depth metrics.
    pub scan_interval: Span,
    /// Requests waiting at one queue actor; further ones are refused as temporary.
    pub inbox_max: usize,
    /// Distributors that finish accepted messages.
    pub spool_workers: usize,
    /// Accepted messages that wait for a distributor in memory; further ones are found in the store.
    pub spool_waiting_max: usize,
    /// A message whose distribution failed is taken up again after this.
    pub spool_retry: Span,
    /// Octets of the original message in a report; a larger one is returned as its header (RFC 3461 §4.3).
    pub dsn_return_max: Size,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            remote_port: 25,
            smarthost: String::new(),
            smarthost_user: String::new(),
            smarthost_password_file: PathBuf::new(),
            schedule: vec![
                Span::mins(1),
                Span::mins(5),
                Span::mins(15),
                Span::mins(30),
                Span::hours(1),
                Span::hours(2),
                Span::hours(4),
            ],
            jitter_percent: 20,
            expire_after: Span::days(5),
            delay_notice_after: Span::hours(4),
            connections_per_domain_max: 10,
            relays_max: 200,
            recipients_per_transaction_max: 100,
            messages_per_connection_max: 50,
            mx_hosts_max: 10,
            addresses_per_host_max: 4,
            connect_timeout: Span::secs(30),
            greeting_timeout: Span::mins(5),
            command_timeout: Span::mins(5),
            data_timeout: Span::mins(10),
            idle_connection_ttl: Span::secs(5),
            tls: TlsPolicy::Opportunistic,
            loopback_allowed: true,
            passivate_after: Span::secs(30),
            scan_interval: Span::secs(30),
            inbox_max: 1024,
            spool_workers: 8,
            spool_waiting_max: 10000,
            spool_retry: Span::secs(5),
            dsn_return_max: Size::kib(64),
        }
    }
}

/// When a relay speaks TLS (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    Opportunistic,
    None,
    Required,
}

impl Queue {
    pub(super) fn complaint(&self) -> Complaint {
        if self.schedule.is_empty() {
            return Some(("queue.schedule", "at least one wait is needed".to_owned()));
        }
        if self.jitter_percent > 90 {
            return Some(("queue.jitter_percent", format!("{} is over 90", self.jitter_percent)));
        }
        let bad = !self.smarthost.is_empty()
            && self
                .smarthost
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err());
        bad.then(|| ("queue.smarthost", format!("`{}` is not host:port", self.smarthost)))
    }
}
