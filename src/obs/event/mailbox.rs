//! Mailbox actors: what they write, how many deliveries share a transaction.

use std::sync::LazyLock;

use posthouse_mail::AccountId;
use prometheus::IntCounterVec;

use crate::emit::event;
use crate::registry::counter;

static WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("mailbox_writes_total", "Writes of mailbox actors, by kind; merged deliveries are one.", &["kind"])
});
static REQUESTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("mailbox_requests_total", "Requests carried out by mailbox actors, by kind.", &["kind"]));
static FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("mailbox_failures_total", "Writes of mailbox actors that failed by our fault.", &["kind"])
});

pub(crate) fn register() {
    for family in [&WRITES, &REQUESTS, &FAILURES] {
        let _ = family.with_label_values(&["append"]);
    }
}

event! {
    /// A mailbox actor finished a write, for so many requests.
    MailboxWritten { what: &'static str, requests: usize }
    silent ""
    |event| {
        WRITES.with_label_values(&[event.what]).inc();
        REQUESTS.with_label_values(&[event.what]).inc_by(u64::try_from(event.requests).unwrap_or(u64::MAX));
    }
}

event! {
    /// A write failed and neither the client nor another system is to blame.
    MailboxWriteFailed { account: AccountId, what: &'static str, reason: String }
    error "mailbox write failed"
    |event| FAILURES.with_label_values(&[event.what]).inc()
}
