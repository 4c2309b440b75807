//! `[limits]`: admission before a byte is read, by client address. Counting is local and never waits on store or network.

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::Span;

/// Admission before a byte is read, by client address. Counting is local and never waits on store or network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Addresses or prefixes (`127.0.0.0/8`) that no limit of this section applies to.
    pub exempt: Vec<String>,
    /// Connections that wait in the kernel at one listener until they are taken.
    pub accept_backlog: u32,
    /// Connections of all protocols together.
    pub connections_max: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_ip_max: usize,
    /// Connections from one wider prefix (IPv4 /24, IPv6 /48).
    pub connections_per_prefix_max: usize,
    /// New connections per address and minute.
    pub connects_per_minute_max: u32,
    /// Messages per address and minute on port 25; then 450.
    pub messages_per_minute_max: u32,
    /// Failed logins per address and hour; then logins from there are refused unseen.
    pub failed_logins_per_hour_max: u32,
    /// Failed logins per account and hour, from all addresses.
    pub failed_logins_per_account_per_hour_max: u32,
    /// Addresses that each limiter remembers; when full, new ones share their wider prefix.
    pub keys_max: usize,
    /// How often limiters forget addresses that are back at full allowance.
    pub sweep_interval: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            exempt: Vec::new(),
            accept_backlog: 1024,
            connections_max: 20000,
            connections_per_ip_max: 50,
            connections_per_prefix_max: 500,
            connects_per_minute_max: 120,
            messages_per_minute_max: 300,
            failed_logins_per_hour_max: 30,
            failed_logins_per_account_per_hour_max: 100,
            keys_max: 100000,
            sweep_interval: Span::mins(1),
        }
    }
}

impl Limits {
    pub(super) fn complaint(&self) -> Complaint {
        let wrong = self.exempt.iter().find(|text| !is_prefix(text))?;
        Some(("limits.exempt", format!("`{wrong}` is not an address or prefix such as 127.0.0.0/8")))
    }
}

pub(super) fn is_prefix(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return false;
    };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max))
}
