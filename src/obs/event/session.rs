//! Sessions of every protocol: how many in which state, what they refused, what they received.

use std::net::IpAddr;
use std::sync::LazyLock;

use posthouse_mail::{AccountId, IngestId, ReversePath};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::emit::event;
use crate::registry::{counter, gauge, histogram};

static SESSIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("sessions", "Sessions open, by protocol and state.", &["protocol", "state"]));
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("session_commands_refused_total", "Commands answered with a refusal.", &["protocol", "kind"])
});
static ENDED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("sessions_ended_total", "Sessions ended, by protocol and reason.", &["protocol", "reason"])
});
static RECEIVED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("messages_received_total", "Messages that reached their end of data.", &["protocol", "outcome"])
});
static RECEIVED_BYTES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("messages_received_bytes_total", "Octets of accepted messages.", &["protocol"]));

static MOVED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "sessions_moved_total",
        "Sessions that left for another process or came from one.",
        &["protocol", "direction"],
    )
});
static FAILED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("session_failures_total", "Sessions that ended by a bug.", &["protocol"]));
static ASLEEP: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("sessions_asleep", "Sessions that sleep, among those open.", &["protocol"]));
static WAKES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("session_wakes_total", "Sessions woken, by what woke them.", &["protocol", "cause"]));
static WAKE_SECONDS: LazyLock<HistogramVec> =
    LazyLock::new(|| histogram("session_wake_seconds", "From what wakes a session to its first step.", &["protocol"]));

pub(crate) fn register() {
    for protocol in ["smtp", "submission", "submissions"] {
        for outcome in ["accepted", "deferred", "rejected", "discarded"] {
            let _ = RECEIVED.with_label_values(&[protocol, outcome]);
        }
        let _ = RECEIVED_BYTES.with_label_values(&[protocol]);
    }
    for protocol in ["smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"] {
        let _ = REFUSED.with_label_values(&[protocol, "permanent"]);
        let _ = FAILED.with_label_values(&[protocol]);
        let _ = ASLEEP.with_label_values(&[protocol]);
        let _ = WAKE_SECONDS.with_label_values(&[protocol]);
        for cause in ["input", "notice", "deadline", "leave"] {
            let _ = WAKES.with_label_values(&[protocol, cause]);
        }
        for direction in ["in", "out"] {
            let _ = MOVED.with_label_values(&[protocol, direction]);
        }
    }
    LazyLock::force(&SESSIONS);
    LazyLock::force(&ENDED);
}

event! {
    /// A session came into a state.
    SessionEntered { protocol: &'static str, state: &'static str }
    silent ""
    |event| SESSIONS.with_label_values(&[event.protocol, event.state]).inc()
}

event! {
    /// A session left a state.
    SessionLeft { protocol: &'static str, state: &'static str }
    silent ""
    |event| SESSIONS.with_label_values(&[event.protocol, event.state]).dec()
}

event! {
    /// A client was greeted.
    SessionStarted { protocol: &'static str, client: IpAddr }
    trace "session started"
}

event! {
    /// A session is over; `reason` is one of a few fixed words.
    SessionEnded { protocol: &'static str, client: IpAddr, reason: &'static str }
    trace "session ended"
    |event| ENDED.with_label_values(&[event.protocol, event.reason]).inc()
}

event! {
    /// A session leaves for another process.
    SessionMovedOut { protocol: &'static str, client: IpAddr }
    trace "session moved out"
    |event| MOVED.with_label_values(&[event.protocol, "out"]).inc()
}

event! {
    /// A session came from another process.
    SessionMovedIn { protocol: &'static str, client: IpAddr }
    trace "session moved in"
    |event| MOVED.with_label_values(&[event.protocol, "in"]).inc()
}

event! {
    /// A command was refused; `kind` is `permanent` or `temporary`.
    CommandRefused { protocol: &'static str, client: IpAddr, kind: &'static str, reply: String }
    trace "command refused"
    |event| REFUSED.with_label_values(&[event.protocol, event.kind]).inc()
}

event! {
    /// A message has an envelope; from here on its id names it.
    MessageBegun { message: IngestId, protocol: &'static str, client: IpAddr, reverse_path: ReversePath }
    trace "message begun"
}

event! {
    /// The end of a message's data was answered; `outcome` is `accepted`, `deferred`, `rejected` or `discarded`.
    MessageReceived {
        message: IngestId,
        protocol: &'static str,
        client: IpAddr,
        reverse_path: ReversePath,
        recipients: usize,
        size: u64,
        outcome: &'static str,
        reply: String,
    }
    info "message received"
    |event| {
        RECEIVED.with_label_values(&[event.protocol, event.outcome]).inc();
        if event.outcome == "accepted" {
            RECEIVED_BYTES.with_label_values(&[event.protocol]).inc_by(event.size);
        }
    }
}

event! {
    /// A message's client was gone before the end of data; nothing of it is kept.
    MessageAbandoned { message: IngestId, protocol: &'static str, client: IpAddr, reason: &'static str }
    info "message abandoned"
}

event! {
    /// Octets that an answer had promised cannot be read; the session ends in the middle of it.
    AnswerBroken { protocol: &'static str, client: IpAddr, reason: String }
    error "answer broken off"
}

event! {
    /// A session's actor died of a bug; the others go on.
    SessionFailed { protocol: &'static str, reason: String }
    error "session failed"
    |event| FAILED.with_label_values(&[event.protocol]).inc()
}

event! {
    /// A submitted message is on its way, but its copy for the sender could not be filed.
    SentCopyMissed { message: IngestId, account: AccountId, reason: String }
    warn "copy of a sent message not filed"
}

event! {
    /// A session sleeps: it keeps its state and its socket, and nothing else.
    SessionSlept { protocol: &'static str }
    silent ""
    |event| ASLEEP.with_label_values(&[event.protocol]).inc()
}

event! {
    /// A session sleeps no more, whatever becomes of it.
    SessionUp { protocol: &'static str }
    silent ""
    |event| ASLEEP.with_label_values(&[event.protocol]).dec()
}

event! {
    /// A session was woken; `cause` is `input`, `notice`, `deadline` or `leave`, and `seconds` what it took.
    SessionWoken { protocol: &'static str, cause: &'static str, seconds: f64 }
    silent ""
    |event| {
        WAKES.with_label_values(&[event.protocol, event.cause]).inc();
        WAKE_SECONDS.with_label_values(&[event.protocol]).observe(event.seconds);
    }
}
