//! `[supervise]`: how supervisors restart what failed.

use serde::{Deserialize, Serialize};

use crate::unit::Span;

/// How supervisors restart what failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Supervise {
    /// Failures of one entity within the window after which it is parked.
    pub restarts_max: usize,
    /// That window.
    pub window: Span,
    /// Wait before the first restart; doubles with each further one.
    pub backoff_min: Span,
    /// Longest wait before a restart.
    pub backoff_max: Span,
    /// How often a parked entity is tried again.
    pub parked_retry: Span,
}

impl Default for Supervise {
    fn default() -> Self {
        Self {
            restarts_max: 5,
            window: Span::mins(1),
            backoff_min: Span::ms(10),
            backoff_max: Span::secs(5),
            parked_retry: Span::hours(1),
        }
    }
}
