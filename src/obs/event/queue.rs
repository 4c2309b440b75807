//! Mail under way: the spool, the queue, attempts at other servers, reports to senders.

use std::sync::LazyLock;

use posthouse_mail::{AccountId, Domain, ForwardPath, IngestId};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::emit::event;
use crate::registry::{counter, gauge, histogram};

static DEPTH: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("queue_depth", "Messages under way, by state.", &["state"]));
static AGE: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("queue_oldest_age_seconds", "Age of the oldest message under way, by state.", &["state"]));
static DELIVERIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("queue_deliveries_total", "Recipients whose delivery was tried, by outcome.", &["outcome"])
});
static ATTEMPTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("queue_attempts_total", "Attempts for one message and destination, by end.", &["end"]));
static DOUBTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "queue_repeats_possible_total",
        "Lost replies to the end of data: the repeat may be a second copy.",
        &["cause"],
    )
});
static REPORTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("queue_reports_total", "Reports to senders, by action.", &["action"]));
static CONNECTIONS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("relay_connections_total", "Connections to other servers, by end.", &["end"]));
static SPOOLED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("spool_messages_total", "Accepted messages handed on, by end.", &["end"]));
static TRANSIT: LazyLock<HistogramVec> =
    LazyLock::new(|| histogram("delivery_transit_seconds", "Time from accepting a message to its delivery.", &["way"]));

pub(crate) fn register() {
    for state in ["spool", "fresh", "deferred"] {
        let _ = DEPTH.with_label_values(&[state]);
    }
    for state in ["spool", "queue"] {
        let _ = AGE.with_label_values(&[state]);
    }
    for outcome in ["delivered", "deferred", "bounced", "expired", "local"] {
        let _ = DELIVERIES.with_label_values(&[outcome]);
    }
    for end in ["settled", "failed"] {
        let _ = ATTEMPTS.with_label_values(&[end]);
    }
    for action in ["failed", "delayed", "delivered", "relayed"] {
        let _ = REPORTS.with_label_values(&[action]);
    }
    for end in ["opened", "opened_tls", "reused", "failed"] {
        let _ = CONNECTIONS.with_label_values(&[end]);
    }
    for end in ["handed_on", "put_off"] {
        let _ = SPOOLED.with_label_values(&[end]);
    }
    let _ = DOUBTS.with_label_values(&["reply_lost"]);
    LazyLock::force(&TRANSIT);
}

event! {
    /// How much waits, as the store counts it.
    QueueMeasured { spool: u64, fresh: u64, deferred: u64, spool_age_seconds: u64, queue_age_seconds: u64 }
    silent ""
    |event| {
        let shown = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        DEPTH.with_label_values(&["spool"]).set(shown(event.spool));
        DEPTH.with_label_values(&["fresh"]).set(shown(event.fresh));
        DEPTH.with_label_values(&["deferred"]).set(shown(event.deferred));
        AGE.with_label_values(&["spool"]).set(shown(event.spool_age_seconds));
        AGE.with_label_values(&["queue"]).set(shown(event.queue_age_seconds));
    }
}

event! {
    /// An accepted message is with all its recipients or in their queues.
    MessageHandedOn { message: IngestId, local: usize, queued: usize, refused: usize }
    info "message handed on"
    |event| SPOOLED.with_label_values(&["handed_on"]).inc()
}

event! {
    /// An accepted message has recipients left and is taken up again soon.
    MessagePutOff { message: IngestId, open: usize, reason: String }
    warn "message not handed on yet"
    |event| SPOOLED.with_label_values(&["put_off"]).inc()
}

event! {
    /// A recipient of ours has the message.
    DeliveredLocally { message: IngestId, recipient: ForwardPath, account: AccountId, transit_seconds: f64 }
    info "message delivered"
    |event| {
        DELIVERIES.with_label_values(&["local"]).inc();
        TRANSIT.with_label_values(&["local"]).observe(event.transit_seconds);
    }
}

event! {
    /// Another server took responsibility for a recipient.
    RelayDelivered { message: IngestId, recipient: ForwardPath, host: String, reply: String, transit_seconds: f64 }
    info "message delivered"
    |event| {
        DELIVERIES.with_label_values(&["delivered"]).inc();
        TRANSIT.with_label_values(&["remote"]).observe(event.transit_seconds);
    }
}

event! {
    /// A recipient is tried again later.
    RelayDeferred { message: IngestId, recipient: ForwardPath, reason: String, attempt_count: u32 }
    info "delivery deferred"
    |event| DELIVERIES.with_label_values(&["deferred"]).inc()
}

event! {
    /// A recipient will never have the message.
    RelayBounced { message: IngestId, recipient: ForwardPath, reason: String }
    info "delivery failed"
    |event| DELIVERIES.with_label_values(&["bounced"]).inc()
}

event! {
    /// A recipient was tried for as long as the configuration says.
    RelayExpired { message: IngestId, recipient: ForwardPath, reason: String, attempt_count: u32 }
    info "delivery given up"
    |event| DELIVERIES.with_label_values(&["expired"]).inc()
}

event! {
    /// The reply to the end of data never came: the other server may have the message, and will get it again (RFC 5321 §6.1).
    RelayInDoubt { message: IngestId, host: String }
    warn "reply to the end of data lost, the message will be sent again"
    |event| DOUBTS.with_label_values(&["reply_lost"]).inc()
}

event! {
    /// An attempt came to its end; `end` is `settled` or `failed`.
    AttemptEnded { message: IngestId, destination: Domain, end: &'static str }
    trace "attempt ended"
    |event| ATTEMPTS.with_label_values(&[event.end]).inc()
}

event! {
    /// A connection to another server; `end` is `opened`, `opened_tls`, `reused` or `failed`.
    RelayConnected { host: String, end: &'static str, reason: String }
    trace "relay connection"
    |event| CONNECTIONS.with_label_values(&[event.end]).inc()
}

event! {
    /// The server's TLS did not work; the message goes in the clear, as the policy allows.
    RelayTlsFailed { host: String, reason: String }
    warn "tls failed at a relay, going on without"
}

event! {
    /// A report to a sender was written.
    ReportWritten { message: IngestId, report: IngestId, action: &'static str, recipients: usize }
    info "report written"
    |event| REPORTS.with_label_values(&[event.action]).inc()
}

event! {
    /// The store did not do what the queue asked; it is asked again.
    QueueStoreFailed { destination: String, reason: String }
    warn "queue could not reach the store"
}
