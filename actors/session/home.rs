//! A listener as its sessions know it: who supervises them, who counts them, and who keeps those that sleep.
//!
//! Apart from the listener so that a session can be laid down by its own actor, which does the work of packing it; and so that
//! sessions asleep, which are no actors, count among those of the listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use posthouse_net::Readiness;
use posthouse_obs::emit;
use posthouse_obs::event::session::{SessionSlept, SessionUp};
use ractor::ActorCell;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::Protocol;
use super::call::Present;
use super::parked::{Packed, Parked, Rest};

/// A listener's sessions. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Lodging {
    guests: Arc<AtomicUsize>,
    asleep: Arc<AtomicUsize>,
    /// No longer than the sessions are many.
    beds: UnboundedSender<Sleeper>,
    /// Those that nobody has taken yet.
    laid_down: Arc<Mutex<UnboundedReceiver<Sleeper>>>,
    /// Tells of the sockets of those that sleep.
    sockets: Arc<Readiness>,
}

impl Lodging {
    /// Needs a Tokio runtime.
    pub fn open() -> Result<Self, posthouse_net::Error> {
        let (beds, laid_down) = unbounded_channel();
        let (laid_down, sockets) = (Arc::new(Mutex::new(laid_down)), Arc::new(Readiness::new()?));
        Ok(Self { guests: Arc::default(), asleep: Arc::default(), beds, laid_down, sockets })
    }

    /// For sessions under this supervisor.
    pub fn home(&self, supervisor: ActorCell) -> Home {
        Home { supervisor, lodging: self.clone() }
    }

    /// Sessions awake or asleep.
    pub fn guests(&self) -> usize {
        self.guests.load(Ordering::SeqCst)
    }

    /// Those that sleep.
    pub fn asleep(&self) -> usize {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Counts a session that sleeps, until it is woken or gone.
    pub(crate) fn fall_asleep(&self, protocol: Protocol) -> Asleep {
        emit(SessionSlept { protocol: protocol.as_str() });
        self.asleep.fetch_add(1, Ordering::SeqCst);
        Asleep { protocol, count: self.asleep.clone() }
    }

    /// For whoever keeps those that sleep.
    pub(crate) fn laid_down(&self) -> &Mutex<UnboundedReceiver<Sleeper>> {
        &self.laid_down
    }

    pub(crate) fn sockets(&self) -> Arc<Readiness> {
        self.sockets.clone()
    }
}

/// Where a session lives.
#[derive(Clone)]
pub struct Home {
    supervisor: ActorCell,
    lodging: Lodging,
}

impl Home {
    pub(super) fn supervisor(&self) -> ActorCell {
        self.supervisor.clone()
    }

    /// Counts a session from before it starts until it is over or gone.
    pub(super) fn guest(&self) -> Guest {
        self.lodging.guests.fetch_add(1, Ordering::SeqCst);
        Guest(self.lodging.guests.clone())
    }

    /// Gives a session that has gone to sleep to whoever keeps those.
    pub(super) fn lay_down(&self, mut parked: Parked, present: Present, guest: Guest) {
        let Some(rest) = parked.rest.take() else { return };
        let sleeper = Sleeper { packed: Packed::of(parked), since: Instant::now(), rest, present, guest };
        // The other end lies beside this one.
        let _ = self.lodging.beds.send(sleeper);
    }
}

/// A session that sleeps, or is on its way to it. Dropped, it closes its socket without a word.
pub(crate) struct Sleeper {
    pub packed: Packed,
    pub since: Instant,
    pub rest: Rest,
    pub present: Present,
    pub guest: Guest,
}

/// A session sleeps.
#[must_use]
pub(crate) struct Asleep {
    protocol: Protocol,
    count: Arc<AtomicUsize>,
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        emit(SessionUp { protocol: self.protocol.as_str() });
    }
}

/// A session is here.
#[must_use]
pub(crate) struct Guest(Arc<AtomicUsize>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
