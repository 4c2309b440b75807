//! `[pop3]`: POP3 sessions (RFC 1939).

use serde::{Deserialize, Serialize};

use crate::unit::{Size, Span};

/// POP3 sessions (RFC 1939).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pop3 {
    /// Autologout (RFC 1939 §3 wants at least 10 minutes).
    pub idle_timeout: Span,
    /// A connection that has not logged in by then is closed.
    pub login_timeout: Span,
    /// A client that takes no byte of an answer for this long is closed.
    pub write_timeout: Span,
    /// Wrong commands after which the session ends.
    pub errors_max: usize,
    /// Messages shown in one session; the oldest come first.
    pub maildrop_max: usize,
    /// A maildrop lock that its session has not renewed for this long is free again.
    pub lock_lease: Span,
    /// Octets of an answer rendered at once.
    pub io_buffer: Size,
}

impl Default for Pop3 {
    fn default() -> Self {
        Self {
            idle_timeout: Span::mins(10),
            login_timeout: Span::mins(1),
            write_timeout: Span::mins(5),
            errors_max: 10,
            maildrop_max: 100000,
            lock_lease: Span::mins(2),
            io_buffer: Size::kib(32),
        }
    }
}
