//! What a node as a whole is at: it stays, sessions of an upgrade still arrive, an upgrade takes them away, or it drains.
//!
//! Apart because an upgrade and a drain begin in different places, and each would spoil the other: a drain ends listening sockets that
//! the new process holds too. So each claims the node first, and whoever comes second is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to clone; all clones are of one node.
#[derive(Clone, Default)]
pub(crate) struct Departure(Arc<Mutex<Way>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Stays,
    /// The end of an upgrade, in the node that takes over.
    Arrives,
    Upgrades,
    /// There is no way back from here.
    Drains,
    /// It is at its end; who was connected to it may still ask.
    Closed,
}

/// The node is claimed for an upgrade; dropped, it stays.
#[must_use]
pub(crate) struct Upgrading(Departure);

impl Drop for Upgrading {
    fn drop(&mut self) {
        self.0.pass(Way::Upgrades, Way::Stays);
    }
}

impl Departure {
    /// Claims it for an upgrade.
    pub(super) fn upgrade(&self) -> Result<Upgrading, String> {
        let mut way = self.way();
        if *way != Way::Stays {
            return Err(way.in_words().to_owned());
        }
        *way = Way::Upgrades;
        Ok(Upgrading(self.clone()))
    }

    /// Claims it for a drain, as often as anybody asks.
    pub(super) fn drain(&self) -> Result<(), String> {
        let mut way = self.way();
        if !matches!(*way, Way::Stays | Way::Drains) {
            return Err(way.in_words().to_owned());
        }
        *way = Way::Drains;
        Ok(())
    }

    /// The node ends, whatever else was meant to happen.
    pub(super) fn end(&self) {
        *self.way() = Way::Drains;
    }

    /// Nothing of the node is left to be claimed.
    pub(super) fn close(&self) {
        *self.way() = Way::Closed;
    }

    /// Sessions of another process come in, until `arrived`.
    pub(super) fn arrive(&self) {
        self.pass(Way::Stays, Way::Arrives);
    }

    pub(super) fn arrived(&self) {
        self.pass(Way::Arrives, Way::Stays);
    }

    fn pass(&self, from: Way, to: Way) {
        let mut way = self.way();
        if *way == from {
            *way = to;
        }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Why it cannot be claimed.
    fn in_words(self) -> &'static str {
        match self {
            Self::Stays => "the node stays",
            Self::Arrives | Self::Upgrades => "an upgrade is under way already",
            Self::Drains => "a drain is under way, or over: stop a drained node and start it",
            Self::Closed => "this node has just ended, another may have its place: ask again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leaves_by_one_way_at_a_time() {
        let departure = Departure::default();
        let upgrade = departure.upgrade().expect("it stays");
        assert!(departure.upgrade().is_err() && departure.drain().is_err());
        drop(upgrade);
        departure.arrive();
        assert!(departure.upgrade().is_err() && departure.drain().is_err());
        departure.arrived();
        drop(departure.upgrade().expect("it stays"));
        departure.drain().expect("it stays");
        departure.drain().expect("it waits for the same drain");
        assert!(departure.upgrade().is_err());
        departure.arrived();
        assert!(departure.upgrade().is_err(), "there is no way back");
        let departure = Departure::default();
        let upgrade = departure.upgrade().expect("it stays");
        departure.close();
        drop(upgrade);
        assert!(departure.upgrade().is_err() && departure.drain().is_err(), "it is closed");
    }
}
