//! `[domain]`: the actors of local domains. What a domain is made of lies in the store.

use serde::{Deserialize, Serialize};

use crate::unit::Span;

/// The actors of local domains. What a domain is made of lies in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Domain {
    /// Requests that may wait at one domain.
    pub inbox_max: usize,
    /// Longest wait for a change of a domain, making its keys included.
    pub request_timeout: Span,
    /// An idle domain actor leaves memory after this.
    pub passivate_after: Span,
}

impl Default for Domain {
    fn default() -> Self {
        Self { inbox_max: 64, request_timeout: Span::secs(30), passivate_after: Span::secs(60) }
    }
}
