//! What the node asks of its sessions, and the place where those wait that leave for another process.
//!
//! Apart because every session of every protocol obeys the same four calls, and the node watches all of them at one switch.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::parked::Parked;

/// What the node asks of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Serve,
    /// Begin nothing that cannot move: no message's data, no TLS handshake. Everything else is served.
    Hold,
    /// Stop at the next safe point and leave for another process.
    Move,
    /// Say goodbye at the next moment when the client loses nothing.
    Leave,
}

/// A session's end of the line to its node. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    call: watch::Receiver<Call>,
    switch_gone: bool,
    lot: Arc<Lot>,
}

impl Calls {
    /// What is asked now.
    pub fn now(&self) -> Call {
        // A dropped switch means that the node is gone: that is a farewell too.
        if self.call.has_changed().is_err() { Call::Leave } else { *self.call.borrow() }
    }

    /// Returns once something else is asked than when this was last awaited. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.switch_gone {
            return std::future::pending().await;
        }
        self.switch_gone = self.call.changed().await.is_err();
    }

    /// Returns once the node wants no session here any more. Cancel-safe.
    pub async fn ended(&mut self) {
        while !self.is_ended() {
            self.changed().await;
        }
    }

    /// Whether the node wants no session here any more.
    pub fn is_ended(&self) -> bool {
        matches!(self.now(), Call::Move | Call::Leave)
    }

    /// Begins what cannot move before it is done; `None` while that may not be begun.
    pub fn begin(&self) -> Option<Busy> {
        // Counted first and asked then: whoever calls and then finds nobody busy can be sure that nobody begins.
        let busy = self.busy();
        if matches!(self.now(), Call::Hold | Call::Move) { None } else { Some(busy) }
    }

    /// Counts what cannot move and is under way, whatever is asked.
    pub fn busy(&self) -> Busy {
        self.lot.busy.enter();
        Busy(self.lot.clone())
    }

    /// Counts a place where new sessions come in.
    pub fn door(&self) -> OpenDoor {
        self.lot.doors.enter();
        OpenDoor(self.lot.clone())
    }

    /// Counts a session from before it starts until after it is parked or over.
    pub(crate) fn present(&self) -> Present {
        self.lot.present.enter();
        Present(self.lot.clone())
    }

    /// Leaves a session for the node to take.
    pub fn park(&self, parked: Parked) {
        self.lot.parked().push(parked);
        self.lot.arrived.notify_one();
    }
}

/// The node's end.
pub struct Switch {
    call: watch::Sender<Call>,
    lot: Arc<Lot>,
}

impl Switch {
    pub fn new() -> Self {
        Self { call: watch::Sender::new(Call::Serve), lot: Arc::default() }
    }

    /// The other end, for those who are called.
    pub fn calls(&self) -> Calls {
        Calls { call: self.call.subscribe(), switch_gone: false, lot: self.lot.clone() }
    }

    pub fn set(&self, call: Call) {
        self.call.send_replace(call);
    }

    pub fn now(&self) -> Call {
        *self.call.borrow()
    }

    /// Returns once nothing is under way that cannot move. After `Call::Hold` that stays so.
    pub async fn idle(&self) {
        self.lot.busy.empty().await;
    }

    /// Returns once no new session can come in. After `Call::Move` or `Call::Leave` that stays so.
    pub async fn shut(&self) {
        self.lot.doors.empty().await;
    }

    /// Returns once no session is left: each is over, or parked. New ones must not come meanwhile: see `shut`.
    pub async fn vacated(&self) {
        self.lot.present.empty().await;
    }

    /// Sessions that are neither over nor parked.
    pub fn sessions(&self) -> usize {
        self.lot.present.count.load(Ordering::SeqCst)
    }

    /// Returns once sessions are parked. Cancel-safe; for one waiter.
    pub async fn parked(&self) {
        while self.lot.parked().is_empty() {
            self.lot.arrived.notified().await;
        }
    }

    /// Takes all that are parked now.
    pub fn take_parked(&self) -> Vec<Parked> {
        std::mem::take(&mut *self.lot.parked())
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that cannot move is under way.
#[must_use]
pub struct Busy(Arc<Lot>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.leave();
    }
}

/// New sessions may come in here.
#[must_use]
pub struct OpenDoor(Arc<Lot>);

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.doors.leave();
    }
}

/// A session is here.
#[must_use]
pub(crate) struct Present(Arc<Lot>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.present.leave();
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calls({:?})", self.now())
    }
}

/// What a node and its sessions share.
#[derive(Default)]
struct Lot {
    doors: Counter,
    busy: Counter,
    present: Counter,
    parked: Mutex<Vec<Parked>>,
    arrived: Notify,
}

impl Lot {
    fn parked(&self) -> MutexGuard<'_, Vec<Parked>> {
        // No code that can panic runs under this lock.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count that can be waited for to become zero. Sessions count up and down at every command, so it takes no lock.
#[derive(Default)]
struct Counter {
    count: AtomicUsize,
    emptied: Notify,
}

impl Counter {
    fn enter(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.emptied.notify_waiters();
        }
    }

    async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            // Waits before it looks, so that no end falls between the two.
            emptied.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn under_hold_nothing_begins_and_what_runs_is_waited_for() {
        let switch = Switch::new();
        let mut calls = switch.calls();
        let busy = calls.begin().expect("nothing is asked");
        switch.set(Call::Hold);
        assert!(calls.begin().is_none());
        assert!(switch.idle().now_or_never().is_none());
        let mut idle = std::pin::pin!(switch.idle());
        assert!(idle.as_mut().now_or_never().is_none());
        drop(busy);
        idle.await;
        calls.changed().await;
        assert!(calls.changed().now_or_never().is_none(), "one call wakes once");
        switch.set(Call::Serve);
        calls.changed().await;
        assert!(calls.begin().is_some());
    }

    #[tokio::test]
    async fn a_node_that_is_gone_asks_to_leave() {
        let switch = Switch::new();
        let mut calls = switch.calls();
        assert_eq!(calls.now(), Call::Serve);
        drop(switch);
        calls.ended().await;
        assert_eq!(calls.now(), Call::Leave);
        calls.changed().await;
        assert!(calls.changed().now_or_never().is_none(), "it is said once");
    }
}
