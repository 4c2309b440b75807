//! Events of connections below the protocols: accepting, refusing, handshakes.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use crate::emit::event;
use crate::registry::counter;

static PAUSES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("net_accept_pauses_total", "Times a listener paused because the process lacked descriptors or memory.", &[])
});
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("net_connections_refused_total", "Connections refused at admission.", &["protocol", "reason"])
});
static HANDSHAKES_FAILED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("net_tls_handshakes_failed_total", "TLS handshakes that did not complete.", &["protocol"])
});

pub(crate) fn register() {
    LazyLock::force(&PAUSES).with_label_values::<&str>(&[]);
    LazyLock::force(&REFUSED);
    LazyLock::force(&HANDSHAKES_FAILED);
}

event! {
    /// The process may open more files, and so hold more connections, than it was started with.
    OpenFilesRaised { from: u64, to: u64 }
    info "limit of open files raised"
}

event! {
    /// The limit of open files stays as it was.
    OpenFilesNotRaised { reason: String }
    warn "limit of open files not raised"
}

event! {
    /// The process lacks descriptors or memory; the listener waits a moment.
    AcceptPaused { address: SocketAddr, reason: String }
    error "cannot accept connections, pausing"
    |event| PAUSES.with_label_values::<&str>(&[]).inc()
}

event! {
    /// A process of another user came to a socket for commands, which its mode forbids.
    StrangerRefused { uid: u32 }
    warn "a process of another user may give no commands"
}

event! {
    /// A client met a limit before a byte was read.
    ConnectionRefused { protocol: &'static str, client: IpAddr, reason: &'static str }
    trace "connection refused"
    |event| REFUSED.with_label_values(&[event.protocol, event.reason]).inc()
}

event! {
    /// The keys of session tickets could not be read or renewed; the known ones stay.
    TicketKeysStale { reason: String }
    warn "the keys of session tickets were not refreshed"
}

event! {
    /// A client did not complete its TLS handshake.
    HandshakeFailed { protocol: &'static str, client: IpAddr, reason: String }
    info "TLS handshake failed"
    |event| HANDSHAKES_FAILED.with_label_values(&[event.protocol]).inc()
}
