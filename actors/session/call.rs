//! What the node asks of its sessions, and the place where those wait that leave for another process.
//!
//! Apart because every session of every protocol obeys the same calls, and the node watches all of them at one switch.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::parked::Parked;

/// Sessions of a node that drains leave in so many groups, one after the other.
pub const TURNS: u8 = 20;
/// How long a session has for its farewell when its time is over; then it is cut off.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// What the node asks of its sessions. Those from `Drain` on are only ever followed by later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Serve,
    /// Begin nothing that cannot move: no message's data, no TLS handshake. Everything else is served.
    Hold,
    /// Stop at the next safe point and leave for another process.
    Move,
    /// Let nobody in; whose turn is below this one leaves, the others are served.
    Drain(u8),
    /// Say goodbye at the next moment when the client loses nothing.
    Leave,
    /// The time is over: say goodbye wherever the client is waited for.
    End,
}

/// A session's end of the line to its node. Cheap to clone; each clone has a turn of its own.
pub struct Calls {
    call: watch::Receiver<Call>,
    switch_gone: bool,
    turn: u8,
    lot: Arc<Lot>,
}

impl Clone for Calls {
    fn clone(&self) -> Self {
        let Self { call, switch_gone, lot, .. } = self;
        Self { call: call.clone(), switch_gone: *switch_gone, turn: draw(), lot: lot.clone() }
    }
}

impl Calls {
    /// What is asked now.
    pub fn now(&self) -> Call {
        match self.asked() {
            Call::Drain(turn) if self.turn < turn => Call::Leave,
            call => call,
        }
    }

    /// What is asked of all.
    fn asked(&self) -> Call {
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

    /// Whose turn it is, in a node that drains.
    pub fn turn(&self) -> Option<u8> {
        match self.asked() {
            Call::Drain(turn) => Some(turn),
            _ => None,
        }
    }

    /// Whether the node wants no new session here any more.
    pub fn is_ended(&self) -> bool {
        self.asked() >= Call::Move
    }

    /// Whether to say goodbye now, where that would do the client no harm or where it would.
    pub fn leaves(&self, is_harmless: bool) -> bool {
        match self.now() {
            Call::Leave => is_harmless,
            Call::End => true,
            _ => false,
        }
    }

    /// Returns once every session is to say goodbye wherever it is. Cancel-safe.
    pub async fn over(&mut self) {
        while self.now() != Call::End {
            self.changed().await;
        }
    }

    /// Returns once a session has had its time for the farewell too. Cancel-safe.
    pub(super) async fn overdue(&mut self) {
        self.over().await;
        tokio::time::sleep(FAREWELL).await;
    }

    /// Counts a session that the node bade to go.
    pub(super) fn said_goodbye(&self) {
        self.lot.farewelled.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a session that did not even come to its farewell.
    pub(super) fn was_cut(&self) {
        self.lot.cut.fetch_add(1, Ordering::SeqCst);
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
        self.lot.parked().push((Instant::now(), parked));
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
        Calls { call: self.call.subscribe(), switch_gone: false, turn: draw(), lot: self.lot.clone() }
    }

    pub fn set(&self, call: Call) {
        self.call.send_replace(call);
    }

    /// Asks for it unless something later is asked already.
    pub fn advance(&self, call: Call) {
        self.call.send_if_modified(|now| {
            let is_later = call > *now;
            if is_later {
                *now = call;
            }
            is_later
        });
    }

    pub fn now(&self) -> Call {
        *self.call.borrow()
    }

    /// Sessions that were bidden goodbye, and those that did not even come to that.
    pub fn ended_by_us(&self) -> (usize, usize) {
        (self.lot.farewelled.load(Ordering::SeqCst), self.lot.cut.load(Ordering::SeqCst))
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

    /// Takes all that are parked now, each with the moment when it stopped.
    pub fn take_parked(&self) -> Vec<(Instant, Parked)> {
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
    farewelled: AtomicUsize,
    cut: AtomicUsize,
    parked: Mutex<Vec<(Instant, Parked)>>,
    arrived: Notify,
}

impl Lot {
    fn parked(&self) -> MutexGuard<'_, Vec<(Instant, Parked)>> {
        // No code that can panic runs under this lock.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's turn to leave.
fn draw() -> u8 {
    rand::random_range(0..TURNS)
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
    async fn sessions_of_a_node_that_drains_leave_in_turns() {
        let switch = Switch::new();
        let sessions: Vec<Calls> = (0..1000).map(|_| switch.calls()).collect();
        let leaving = || sessions.iter().filter(|calls| calls.now() == Call::Leave).count();
        switch.advance(Call::Drain(0));
        assert!(
            sessions.iter().all(|calls| calls.is_ended() && calls.begin().is_some()),
            "served, and nobody comes in"
        );
        let mut before = leaving();
        assert_eq!(before, 0);
        for turn in 1..=TURNS {
            switch.advance(Call::Drain(turn));
            let now = leaving();
            assert!((before + 1..before + 150).contains(&now), "turn {turn}: {before}, {now}");
            before = now;
        }
        assert_eq!(before, sessions.len());
        switch.advance(Call::End);
        switch.advance(Call::Leave);
        assert!(sessions.iter().all(|calls| calls.leaves(false)), "nothing earlier is asked again");
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
