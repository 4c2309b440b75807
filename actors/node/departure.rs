//! What a node as a whole is at: it stays, sessions of an upgrade still arrive, an upgrade takes them away, or it drains; and
//! whether it was told to end.
//!
//! Apart because an upgrade and a drain begin in different places, and each would spoil the other: a drain ends listening sockets that
//! the new process holds too. So each claims the node first, and whoever comes second is told. A command to end the node is not
//! refused but kept: whatever the node becomes by the upgrade under way obeys it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to clone; all clones are of one node.
#[derive(Clone, Default)]
pub(crate) struct Departure {
    way: Arc<Mutex<Way>>,
    told_to_end: Arc<AtomicBool>,
}

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

    /// Keeps an administrator's word that the node is to end.
    pub(super) fn tell_to_end(&self) -> Result<(), String> {
        let way = self.way();
        if *way == Way::Closed {
            return Err(way.in_words().to_owned());
        }
        self.told_to_end.store(true, Ordering::Release);
        Ok(())
    }

    /// Of a node that is closed this is the last word.
    pub(super) fn was_told_to_end(&self) -> bool {
        self.told_to_end.load(Ordering::Acquire)
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
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_command_to_end_is_kept_until_the_node_is_closed() {
        let departure = Departure::default();
        let _upgrade = departure.upgrade().expect("it stays");
        assert!(!departure.was_told_to_end());
        departure.tell_to_end().expect("it is kept");
        departure.close();
        assert!(departure.was_told_to_end() && departure.tell_to_end().is_err());
    }
}
