//! Supervision: failures, restarts, parked entities, inbox depth.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, IntGaugeVec};

use crate::emit::event;
use crate::registry::{counter, gauge};

static RESTARTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("actor_restarts_total", "Actors restarted by their supervisor.", &["kind"]));
static PARKED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("actor_parked_total", "Entities parked after too many failures.", &["kind"]));
static ACTIVE: LazyLock<IntGaugeVec> = LazyLock::new(|| gauge("actor_active", "Actors alive.", &["kind"]));
static REFUSED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("actor_requests_refused_total", "Requests refused by a full inbox.", &["kind"]));

pub(crate) fn register() {
    LazyLock::force(&RESTARTS);
    LazyLock::force(&PARKED);
    LazyLock::force(&ACTIVE);
    LazyLock::force(&REFUSED);
}

event! {
    /// An actor died of a bug and a new one took its place.
    ActorRestarted { kind: &'static str, entity: String, reason: String }
    error "actor restarted after a failure"
    |event| RESTARTS.with_label_values(&[event.kind]).inc()
}

event! {
    /// An entity failed too often; it is tried again later, the others go on.
    ActorParked { kind: &'static str, entity: String, failures: usize }
    error "entity parked after repeated failures"
    |event| PARKED.with_label_values(&[event.kind]).inc()
}

event! {
    /// An actor came to life.
    ActorStarted { kind: &'static str }
    silent ""
    |event| ACTIVE.with_label_values(&[event.kind]).inc()
}

event! {
    /// An actor ended.
    ActorEnded { kind: &'static str }
    silent ""
    |event| ACTIVE.with_label_values(&[event.kind]).dec()
}

event! {
    /// An inbox was full.
    InboxFull { kind: &'static str }
    silent ""
    |event| REFUSED.with_label_values(&[event.kind]).inc()
}

event! {
    /// A supervisor died: the node ends.
    NodeFailed { actor: String, reason: String }
    error "a supervisor failed, the node ends"
}

event! {
    /// The store could not be closed cleanly.
    NodeEndedBadly { reason: String }
    error "the store was not closed cleanly"
}
