//! Sessions that change their process: how many moved, how many could not.

use std::sync::LazyLock;

use prometheus::IntCounterVec;

use crate::emit::event;
use crate::registry::counter;

static SESSIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("handover_sessions_total", "Sessions at an upgrade, by what became of them.", &["outcome"])
});
static UPGRADES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("handover_upgrades_total", "Upgrades that were begun, by their end.", &["outcome"]));

pub(crate) fn register() {
    for outcome in ["moved_out", "moved_in", "cut", "lost", "not_resumed"] {
        let _ = SESSIONS.with_label_values(&[outcome]);
    }
    for outcome in ["done", "refused", "taken_back", "cut_short"] {
        let _ = UPGRADES.with_label_values(&[outcome]);
    }
}

event! {
    /// Another process serves now.
    HandoverEnded { pid: u32, moved: usize, farewelled: usize, milliseconds: u64 }
    info "another process took over"
    |event| {
        UPGRADES.with_label_values(&["done"]).inc();
        let moved = u64::try_from(event.moved).unwrap_or(u64::MAX);
        SESSIONS.with_label_values(&["moved_out"]).inc_by(moved);
    }
}

event! {
    /// The node lets no more clients in.
    DrainBegun {}
    info "the node drains"
}

event! {
    /// No client is here any more.
    DrainEnded { finished: usize, farewelled: usize, cut: usize, milliseconds: u64 }
    info "the node is drained"
}

event! {
    /// The new program does not fit or did not come up; nothing has changed.
    UpgradeRefused { reason: String }
    error "the upgrade was refused"
    |event| UPGRADES.with_label_values(&["refused"]).inc()
}

event! {
    /// The node was told to end before anything had moved.
    UpgradeGivenUp {}
    info "the upgrade was given up, the node ends"
    |event| UPGRADES.with_label_values(&["refused"]).inc()
}

event! {
    /// The new program failed after this one had given up the store; this one goes on.
    UpgradeTakenBack { reason: String }
    error "the upgrade failed and was taken back"
    |event| UPGRADES.with_label_values(&["taken_back"]).inc()
}

event! {
    /// The process before ended in the middle of its hand-over.
    HandoverCutShort { reason: String }
    error "the process before ended in the middle of the hand-over"
    |event| UPGRADES.with_label_values(&["cut_short"]).inc()
}

event! {
    /// Between the process before and this one somebody else took the store: a command, as a rule.
    StoreAwaited {}
    warn "another process has the store, which is waited for"
}

event! {
    /// The custodian has these sessions as before, and waits for whoever comes next.
    CustodyGoesOn { sessions: usize, reason: String }
    warn "a process that was to have the sessions failed; the custodian keeps them"
}

event! {
    /// This process took a batch of sessions over.
    SessionsMovedIn { sessions: usize }
    info "sessions moved in"
    |event| SESSIONS.with_label_values(&["moved_in"]).inc_by(u64::try_from(event.sessions).unwrap_or(u64::MAX))
}

event! {
    /// Sessions reached no safe point in time and were ended.
    SessionsCut { sessions: usize }
    warn "sessions reached no safe point in time and were ended"
    |event| SESSIONS.with_label_values(&["cut"]).inc_by(u64::try_from(event.sessions).unwrap_or(u64::MAX))
}

event! {
    /// Sessions went to a process that then failed.
    SessionsLost { sessions: usize }
    error "sessions went to a process that then failed"
    |event| SESSIONS.with_label_values(&["lost"]).inc_by(u64::try_from(event.sessions).unwrap_or(u64::MAX))
}

event! {
    /// A session that was taken back could not go on.
    SessionNotResumed { protocol: String, reason: String }
    error "a session could not go on"
    |event| SESSIONS.with_label_values(&["not_resumed"]).inc()
}
