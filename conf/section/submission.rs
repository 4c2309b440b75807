//! `[submission]`: mail from our own users (RFC 6409).

use serde::{Deserialize, Serialize};

/// Mail from our own users (RFC 6409).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Submission {
    /// Recipients of one message.
    pub recipients_max: usize,
    /// Messages per account and hour; then 450.
    pub messages_per_hour_max: u32,
    /// Whether a submitted message is also filed in the account's Sent mailbox; most clients do that themselves.
    pub sent_copy: bool,
}

impl Default for Submission {
    fn default() -> Self {
        Self { recipients_max: 500, messages_per_hour_max: 1000, sent_copy: false }
    }
}
