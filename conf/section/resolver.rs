//! `[resolver]`: DNS.

use serde::{Deserialize, Serialize};

use crate::unit::Span;

/// DNS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// Name servers as `address` or `address:port`; empty: those of the system.
    pub servers: Vec<String>,
    /// Longest wait for one answer.
    pub timeout: Span,
    /// Tries per question.
    pub attempts: usize,
    /// Answers kept in memory.
    pub cache_max: usize,
    /// Shortest time that an answer is kept.
    pub ttl_min: Span,
    /// Longest time that an answer is kept.
    pub ttl_max: Span,
    /// Questions in a row without any answer after which DNS counts as away and is not asked for `pause`.
    pub silences_max: u32,
    /// How long DNS then counts as away; look-ups fail at once as temporary.
    pub pause: Span,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Span::secs(3),
            attempts: 2,
            cache_max: 10000,
            ttl_min: Span::secs(1),
            ttl_max: Span::hours(24),
            silences_max: 3,
            pause: Span::secs(5),
        }
    }
}
