//! `[upgrade]`: how a running node hands its sessions to a new binary.

use serde::{Deserialize, Serialize};

use crate::unit::Span;

/// How a running node hands its sessions to a new binary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upgrade {
    /// How long the new program may take to come up, and to open the store once it is free.
    pub start_limit: Span,
    /// How long a DATA, a literal or a handshake under way may go on before the sessions move.
    pub finish_limit: Span,
    /// How long a session may take to stop once they move; one that does not is ended.
    pub move_limit: Span,
    /// Whether the new program takes this process's place, and keeps its id: `never`, `always`, or `auto`, where this is process 1.
    pub in_place: InPlace,
}

/// Whether a new program takes the process of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InPlace {
    Auto,
    Always,
    Never,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            start_limit: Span::secs(30),
            finish_limit: Span::secs(30),
            move_limit: Span::secs(5),
            in_place: InPlace::Auto,
        }
    }
}
