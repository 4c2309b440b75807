//! Where sessions of another process come in: each protocol's factory and the way to its listener.
//!
//! A session that arrives becomes a child of the listener that would have accepted it, and counts where it would count: also
//! while it waits for that listener, which starts whoever waits before it ends.

use std::sync::{Arc, Mutex, PoisonError};

use posthouse_filter::rate::Admission;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::listener::SessionFactory;
use crate::session::{Calls, Parked, Protocol, ResumeError, Resumed};

#[derive(Default)]
pub(crate) struct Arrivals {
    ways: Mutex<Vec<Way>>,
}

/// The sessions were admitted by another process: the channel holds no more than that one had.
struct Way {
    factory: Arc<dyn SessionFactory>,
    sender: UnboundedSender<Resumed>,
    calls: Calls,
}

/// A session that was checked and has not begun. Dropped, it leaves its connection as it is.
pub(super) struct Arrival {
    protocol: Protocol,
    session: Resumed,
}

impl Arrivals {
    /// Opens a way to a listener.
    pub(super) fn open(&self, factory: Arc<dyn SessionFactory>, calls: Calls) -> UnboundedReceiver<Resumed> {
        let (sender, receiver) = unbounded_channel();
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).push(Way { factory, sender, calls });
        receiver
    }

    /// Reads a session and proves that it can go on; begins nothing.
    pub(super) fn prepare(&self, admission: &Admission, parked: Parked) -> Result<Arrival, ResumeError> {
        let protocol = parked.protocol;
        let factory = self.way(protocol, |way| way.factory.clone());
        let factory = factory.ok_or(ResumeError::Protocol(protocol.as_str()))?;
        Ok(Arrival { protocol, session: factory.resume(parked, admission)? })
    }

    /// Lets it go on.
    pub(super) fn admit(&self, arrival: Arrival) {
        let way = self.way(arrival.protocol, |way| (way.sender.clone(), way.calls.clone()));
        if let Some((sender, calls)) = way {
            // A listener that is gone is gone with its node.
            let _ = sender.send(arrival.session.counted(&calls));
        }
    }

    fn way<T>(&self, protocol: Protocol, of: impl FnOnce(&Way) -> T) -> Option<T> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.iter().find(|way| way.factory.protocol() == protocol).map(of)
    }
}
