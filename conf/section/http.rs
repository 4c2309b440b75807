//! `[http]`: the HTTP surface: `/metrics` and `/health`.

use serde::{Deserialize, Serialize};

use crate::unit::{Size, Span};

/// The HTTP surface: `/metrics` and `/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// HTTP connections open at once; further ones wait in the kernel.
    pub connections_max: usize,
    /// Longest wait for a request, its header included; an idle connection is closed after it too, one of HTTP/2 when its client
    /// leaves a ping unanswered for it.
    pub request_timeout: Span,
    /// Requests at once on one connection of HTTP/2 (RFC 9113 §5.1.2).
    pub streams_max: u32,
    /// Longest life of a connection, so that no client reads its answer for ever.
    pub connection_timeout: Span,
    /// Octets of a request header.
    pub header_max: Size,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            connections_max: 256,
            request_timeout: Span::secs(30),
            streams_max: 16,
            connection_timeout: Span::mins(10),
            header_max: Size::kib(16),
        }
    }
}
