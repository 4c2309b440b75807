//! Why a hand-over did not go on.

use posthouse_net::Error as NetError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HandoffError {
    /// The other process says no, in its own words; the connection is whole.
    #[error("the other process refuses: {0}")]
    Refused(String),
    #[error("no common version of the hand-over: {ours}, {theirs}")]
    Versions { ours: String, theirs: String },
    /// The other process is gone, stalls, or belongs to somebody else; the connection is closed.
    #[error("{step}: {source}")]
    Link { step: &'static str, source: NetError },
    /// The other process does not keep to the protocol; the connection is closed.
    #[error("{step}: the other process sent {what}")]
    Broken { step: &'static str, what: String },
}

impl HandoffError {
    /// The other process has ended, or closed the connection.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Link { source: NetError::Closed, .. })
    }
}
