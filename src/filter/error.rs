//! What can go wrong while mail is judged or signed.

use posthouse_mail::{Failure, Fault};
use thiserror::Error;

/// Everything that this crate fails with.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The store could not give the message's octets.
    #[error("the message could not be read: {reason}")]
    Body { reason: String, failure: Failure },
    /// Another system did not answer in time.
    #[error("{0} did not answer in time")]
    TimedOut(&'static str),
    /// No DNS server answers at the moment, so none was asked.
    #[error("DNS is away")]
    DnsAway,
    /// A private key is not what its row says.
    #[error("the key of selector {selector} cannot be used: {reason}")]
    Key { selector: String, reason: String },
    /// The configuration names something that is none.
    #[error("`{0}` is not an address, a domain or a client prefix")]
    ListEntry(String),
    /// The cryptographic library refused.
    #[error("signing or making a key failed")]
    Crypto,
    /// Signing needs a From field (RFC 6376 §5.4).
    #[error("the message has no From field")]
    NoFrom,
}

impl Error {
    /// Whose fault it is, and whether to try again.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Body { failure, .. } => *failure,
            Self::TimedOut(_) | Self::DnsAway => Failure::REMOTE,
            Self::Key { .. } | Self::ListEntry(_) => Failure { fault: Fault::Ours, try_again: false },
            Self::Crypto => Failure::OURS,
            Self::NoFrom => Failure::PEER,
        }
    }
}
