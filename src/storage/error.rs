//! What can go wrong in the store, and whose fault it is.
//!
//! One error for the whole crate: the engines, the blobs and the records speak it, and `failure()` is all that a
//! protocol's edge needs to choose its answer.

use posthouse_mail::{Failure, Fault};
use thiserror::Error;

use crate::shard::{Epoch, ShardId};

/// Why an operation on the store did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Another transaction committed a write to something that this one read.
    #[error("the transaction conflicts with another")]
    Conflict,
    /// The transaction's snapshot is older than any engine promises to keep.
    #[error("the transaction is too old")]
    TooOld,
    /// A key, a value, a transaction or a body is over its limit.
    #[error("{what} of {size} octets is over the limit of {max}")]
    TooLarge { what: &'static str, size: u64, max: u64 },
    /// The commit was sent, its outcome is unknown; the transaction must find its own trace when it is repeated.
    #[error("the outcome of the commit is unknown")]
    MaybeCommitted,
    /// A key whose value is known only after the commit was read in the transaction that writes it.
    #[error("the key gets its value at the commit and cannot be read before")]
    Unreadable,
    /// The store can't serve at the moment, or until somebody restarts it.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A fault that passes: the transaction did not commit and may be run again at once.
    #[error("the store asks to try again: {0}")]
    TryAgain(String),
    /// No space is left on the device; the service returns by itself when there is some.
    #[error("the disk is full")]
    Full,
    /// What was read is not what was written; names the file or row and the place in it.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The site's key file is missing, damaged, or another site's; says what to do.
    #[error("{0}")]
    Key(String),
    /// The shard has a newer owner than the writer.
    #[error("shard {shard} is owned under a newer epoch than {epoch}")]
    Fenced { shard: ShardId, epoch: Epoch },
    #[error("not found")]
    NotFound,
    #[error("exists already")]
    Exists,
    #[error("the account is over its quota")]
    OverQuota,
    /// A configured bound on a count was reached.
    #[error("the limit of {what} is reached")]
    Limit { what: &'static str },
    /// The files were written by a newer version.
    #[error("the store has format {found}, this program reads up to {known}")]
    NewerFormat { found: u64, known: u64 },
    /// A node that lives cannot read a format that is to be written.
    #[error("node {node} reads formats up to {reads} only")]
    GateClosed { node: String, reads: u32 },
    /// Records are older than this program reads: a version between has to run first.
    #[error("the store has format {found}, this program reads from {known} on; run a version between first")]
    OlderFormat { found: u64, known: u64 },
    /// A mailbox name, address or selector that cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// RFC 9051 §6.3.4: a mailbox with children is not deleted.
    #[error("the mailbox has children")]
    HasChildren,
    /// Another session holds the maildrop (RFC 1939 §4).
    #[error("another session holds the maildrop")]
    Busy,
    /// A large COPY of the account was cut short; it is undone before anything else is written.
    #[error("a copy has to be undone first")]
    CopyUnfinished,
    /// Another process has the directory open.
    #[error("the store is in use by another process")]
    Locked,
    /// Another node owns the mail in the store.
    #[error("the store is in use by {by}")]
    Owned { by: String },
    /// What was read of a backup is not what was written there; names the object.
    #[error("the backup is damaged: {0}")]
    BackupDamaged(String),
    /// A backup cannot be taken, read or restored as it was asked for; says what to do.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Whose fault it is and whether to try again.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Conflict
            | Self::TooOld
            | Self::MaybeCommitted
            | Self::TryAgain(_)
            | Self::Unavailable(_)
            | Self::Full
            | Self::Corrupt(_)
            | Self::Key(_)
            | Self::Fenced { .. }
            | Self::NewerFormat { .. }
            | Self::OlderFormat { .. }
            | Self::GateClosed { .. }
            | Self::Busy
            | Self::CopyUnfinished
            | Self::Locked
            | Self::Owned { .. }
            | Self::BackupDamaged(_) => Failure::OURS,
            // A bug of ours that a repeat would only meet again.
            Self::Unreadable => Failure { fault: Fault::Ours, try_again: false },
            // The owner can make room.
            Self::OverQuota => Failure { fault: Fault::Peer, try_again: true },
            Self::TooLarge { .. }
            | Self::NotFound
            | Self::Exists
            | Self::Limit { .. }
            | Self::Invalid(_)
            | Self::HasChildren
            | Self::Refused(_) => Failure::PEER,
        }
    }

    /// Whether the retry loop runs the transaction again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict | Self::TooOld | Self::MaybeCommitted | Self::TryAgain(_))
    }
}

/// The errors of files, with the place for the reader of the log.
pub(crate) fn from_io(error: &std::io::Error, context: &str) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::Unavailable(format!("{context}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_ours_and_temporary() {
        assert_eq!(from_io(&std::io::ErrorKind::StorageFull.into(), "x"), Error::Full);
        assert_eq!(Error::Full.failure(), Failure::OURS);
        assert!(!Error::Full.is_retryable());
    }
}
