//! What a mailbox actor is asked and what it answers.
//!
//! Every request carries the id under which the store proves that it was done, so that each may be asked again after a lost
//! answer and does no harm.

use std::sync::Arc;

use posthouse_cluster::RouteError;
use posthouse_mail::stage::StoredMessage;
use posthouse_mail::{Failure, Fault, ModSeq, UnixMillis};
use posthouse_storage::Error;
use posthouse_storage::lock::Holder;
use posthouse_storage::mailbox::{Changed, Create, Delete, Rename};
use posthouse_storage::message::{Append, Copied, Copy, Expunge, Expunged, FlagsSet, SetFlags};
use thiserror::Error as ThisError;

/// A change of one account.
#[derive(Debug, Clone)]
pub enum Request {
    Append(Arc<Append>),
    SetFlags(Arc<SetFlags>),
    Expunge(Arc<Expunge>),
    Copy(Arc<Copy>),
    Move(Arc<Copy>),
    Create(Arc<Create>),
    Rename(Arc<Rename>),
    Delete(Arc<Delete>),
    SetSubscribed {
        path: Arc<str>,
        subscribed: bool,
    },
    /// POP3's exclusive maildrop, taken or renewed (RFC 1939 §4).
    LockMaildrop {
        holder: Holder,
        expires_at: UnixMillis,
    },
    UnlockMaildrop {
        holder: Holder,
    },
    /// One bounded step of tidying up.
    Tidy,
}

impl Request {
    /// For metrics and log lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::SetFlags(_) => "set_flags",
            Self::Expunge(_) => "expunge",
            Self::Copy(_) => "copy",
            Self::Move(_) => "move",
            Self::Create(_) => "create",
            Self::Rename(_) => "rename",
            Self::Delete(_) => "delete",
            Self::SetSubscribed { .. } => "set_subscribed",
            Self::LockMaildrop { .. } | Self::UnlockMaildrop { .. } => "lock",
            Self::Tidy => "tidy",
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Stored(StoredMessage),
    FlagsSet(FlagsSet),
    Expunged(Expunged),
    Copied(Copied),
    Changed(Changed),
    Done,
    /// Whether there is more to tidy.
    Tidied {
        more: bool,
    },
}

impl Answer {
    /// The change that listeners should hear of.
    pub fn modseq(&self) -> Option<ModSeq> {
        match self {
            Self::Stored(stored) => Some(stored.modseq),
            Self::FlagsSet(set) => set.messages.iter().map(|message| message.modseq).max(),
            Self::Expunged(expunged) => expunged.modseq,
            Self::Copied(copied) => copied.modseq,
            Self::Changed(changed) => Some(changed.modseq),
            Self::Done | Self::Tidied { .. } => None,
        }
    }
}

/// Why a change was not made, or why nobody knows whether it was.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum MailboxError {
    #[error("the account is over its quota")]
    OverQuota,
    #[error("there is no such mailbox")]
    NoSuchMailbox,
    #[error("a mailbox of that name exists")]
    Exists,
    #[error("the mailbox has children")]
    HasChildren,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the limit of {what} is reached")]
    Limit { what: &'static str },
    /// Another session holds the maildrop.
    #[error("another session holds the maildrop")]
    InUse,
    #[error("the account has too much to do")]
    Busy,
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Unavailable(String),
}

impl MailboxError {
    /// Whose fault it is, and whether to try again.
    pub fn failure(&self) -> Failure {
        match self {
            // The owner can make room.
            Self::OverQuota => Failure { fault: Fault::Peer, try_again: true },
            Self::NoSuchMailbox | Self::Exists | Self::HasChildren | Self::Invalid(_) | Self::Limit { .. } => {
                Failure::PEER
            }
            Self::InUse | Self::Busy | Self::TimedOut | Self::Unavailable(_) => Failure::OURS,
        }
    }

    /// Whether another session holds the maildrop.
    pub fn is_in_use(&self) -> bool {
        *self == Self::InUse
    }
}

impl From<Error> for MailboxError {
    fn from(error: Error) -> Self {
        match error {
            Error::OverQuota => Self::OverQuota,
            Error::NotFound => Self::NoSuchMailbox,
            Error::Exists => Self::Exists,
            Error::HasChildren => Self::HasChildren,
            Error::Invalid(why) => Self::Invalid(why),
            Error::Limit { what } => Self::Limit { what },
            Error::Busy => Self::InUse,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<RouteError> for MailboxError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Busy => Self::Busy,
            RouteError::TimedOut => Self::TimedOut,
            RouteError::Parked | RouteError::Stopping => Self::Unavailable(error.to_string()),
        }
    }
}
