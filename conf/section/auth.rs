//! `[auth]`: checking passwords (argon2id).

use serde::{Deserialize, Serialize};

use crate::unit::{Size, Span};

/// Checking passwords (argon2id).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Memory of one argon2id hash.
    pub memory: Size,
    /// Passes of argon2id over that memory.
    pub passes: u32,
    /// Hashes computed at once; their memory times this is the pool's bound.
    pub concurrent_max: usize,
    /// Logins waiting for the pool; further ones get a temporary error.
    pub waiting_max: usize,
    /// Longest wait for the pool.
    pub wait_max: Span,
    /// How long a keyed digest of a right password is kept in memory, so that the next login is cheap.
    pub success_ttl: Span,
    /// Such digests kept at once.
    pub success_max: usize,
    /// Wait before a failed login is answered.
    pub failure_delay: Span,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            memory: Size::mib(19),
            passes: 2,
            concurrent_max: 4,
            waiting_max: 256,
            wait_max: Span::secs(20),
            success_ttl: Span::mins(5),
            success_max: 10000,
            failure_delay: Span::secs(2),
        }
    }
}
