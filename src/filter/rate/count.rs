//! How many connections are open: in all, per client, per neighbourhood.
//!
//! The tables hold only who is connected now, so `limits.connections_max` bounds them too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use posthouse_conf::Limits;
use posthouse_net::Prefix;

use super::Refusal;

#[derive(Debug)]
pub(super) struct Connections {
    total_max: usize,
    per_client_max: usize,
    per_neighbourhood_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<Prefix, usize>,
    by_neighbourhood: HashMap<Prefix, usize>,
}

/// One open connection's place; dropping it gives the place back.
#[derive(Debug)]
#[must_use]
pub struct ConnectionGuard {
    connections: Arc<Connections>,
    /// `None` for an exempt client, which counts in the total only.
    client: Option<(Prefix, Prefix)>,
}

impl Connections {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            total_max: limits.connections_max,
            per_client_max: limits.connections_per_ip_max,
            per_neighbourhood_max: limits.connections_per_prefix_max,
            counts: Mutex::default(),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionGuard, Refusal> {
        let (client, neighbourhood) = (Prefix::client(address), Prefix::neighbourhood(address));
        let mut counts = self.counts();
        if counts.total >= self.total_max {
            return Err(Refusal::Connections);
        }
        if counts.by_client.get(&client).is_some_and(|count| *count >= self.per_client_max) {
            return Err(Refusal::ConnectionsPerAddress);
        }
        if counts.by_neighbourhood.get(&neighbourhood).is_some_and(|count| *count >= self.per_neighbourhood_max) {
            return Err(Refusal::ConnectionsPerPrefix);
        }
        Ok(self.count((client, neighbourhood), &mut counts))
    }

    /// A connection that was admitted elsewhere: counted, whatever the limits.
    pub(super) fn enter_moved(self: &Arc<Self>, address: IpAddr) -> ConnectionGuard {
        self.count((Prefix::client(address), Prefix::neighbourhood(address)), &mut self.counts())
    }

    fn count(self: &Arc<Self>, client: (Prefix, Prefix), counts: &mut Counts) -> ConnectionGuard {
        counts.total += 1;
        *counts.by_client.entry(client.0).or_default() += 1;
        *counts.by_neighbourhood.entry(client.1).or_default() += 1;
        ConnectionGuard { connections: Arc::clone(self), client: Some(client) }
    }

    pub(super) fn enter_exempt(self: &Arc<Self>) -> ConnectionGuard {
        self.counts().total += 1;
        ConnectionGuard { connections: Arc::clone(self), client: None }
    }

    pub(super) fn open(&self) -> usize {
        self.counts().total
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // No code that can panic runs under this lock.
        self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut counts = self.connections.counts();
        counts.total = counts.total.saturating_sub(1);
        if let Some((client, neighbourhood)) = &self.client {
            leave(&mut counts.by_client, client);
            leave(&mut counts.by_neighbourhood, neighbourhood);
        }
    }
}

fn leave(counts: &mut HashMap<Prefix, usize>, key: &Prefix) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_leaves_no_trace() {
        let connections = Arc::new(Connections::new(&Limits::default()));
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let guards: Vec<_> = (0..3).map(|_| connections.enter(address).expect("room")).collect();
        let exempt = connections.enter_exempt();
        assert_eq!(connections.open(), 4);
        drop((guards, exempt));
        let counts = connections.counts();
        assert!(counts.total == 0 && counts.by_client.is_empty() && counts.by_neighbourhood.is_empty());
    }
}
