//! What became of one delivery attempt, for one forward-path.

use std::fmt;

use crate::status::EnhancedStatus;

/// A reply that a remote server gave, as a DSN repeats it (RFC 3464 §2.3.6).
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteReply {
    pub code: u16,
    pub status: Option<EnhancedStatus>,
    pub text: String,
}

impl fmt::Display for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        write!(f, " {}", self.text)
    }
}

impl fmt::Debug for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Per forward-path, never per message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The next hop took it.
    Delivered { host: String, reply: RemoteReply },
    /// Try again later.
    Deferred { host: Option<String>, status: EnhancedStatus, reason: String, reply: Option<RemoteReply> },
    /// Never again: a DSN is due.
    Bounced { host: Option<String>, status: EnhancedStatus, reason: String, reply: Option<RemoteReply> },
}
