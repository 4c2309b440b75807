//! Logins: who succeeded, who failed, who was not even asked.

use std::net::IpAddr;
use std::sync::LazyLock;

use posthouse_mail::AccountId;
use prometheus::IntCounterVec;

use crate::emit::event;
use crate::registry::counter;

static LOGINS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("auth_logins_total", "Logins tried, by outcome.", &["outcome"]));
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("auth_logins_refused_total", "Logins refused without looking at the password, by reason.", &["reason"])
});

pub(crate) fn register() {
    for outcome in ["succeeded", "failed", "refused"] {
        let _ = LOGINS.with_label_values(&[outcome]);
    }
    LazyLock::force(&REFUSED);
}

event! {
    /// A password was right.
    LoginSucceeded { account: AccountId, client: IpAddr }
    info "login"
    |event| LOGINS.with_label_values(&["succeeded"]).inc()
}

event! {
    /// A name or password was wrong; which of them is nobody's business.
    LoginFailed { name: String, client: IpAddr }
    warn "login failed"
    |event| LOGINS.with_label_values(&["failed"]).inc()
}

event! {
    /// A limit, an overload or the store stood before the password.
    LoginRefused { client: IpAddr, reason: &'static str }
    trace "login refused"
    |event| {
        LOGINS.with_label_values(&["refused"]).inc();
        REFUSED.with_label_values(&[event.reason]).inc();
    }
}
