//! Where errors become answers: the one place that turns a failure of the node into a status response.

use posthouse_mail::Fault;
use posthouse_storage::Error;
use posthouse_wire::imap::FrameError;
use posthouse_wire::imap::response::status::{Code, Status};
use tokio::time::Instant;

/// Why a command, or the whole session, goes no further.
#[derive(Debug)]
pub enum Stop {
    /// The command is answered with this; the session goes on.
    Answer(Status),
    /// The client said LOGOUT.
    LoggedOut,
    /// The TLS handshake comes next.
    StartTls,
    /// The node is stopping.
    Draining,
    /// The session goes on in another process.
    Moved,
    /// The session sleeps, and has nothing to do by itself until then.
    Asleep(Instant),
    /// Too many wrong commands in a row.
    TooManyErrors,
    /// The selected mailbox is gone.
    MailboxGone,
    /// The client sent more than it may.
    Flooded(FrameError),
    /// An answer cannot be finished: its octets cannot be read.
    Unreadable(Error),
    /// The client is gone, or too slow.
    Lost(posthouse_net::Error),
}

pub type Outcome<T> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Answer(status_of(&error))
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Answer(status)
    }
}

impl From<posthouse_net::Error> for Stop {
    fn from(error: posthouse_net::Error) -> Self {
        Self::Lost(error)
    }
}

impl Stop {
    /// A word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Answer(_) => "refused",
            Self::LoggedOut => "logout",
            Self::StartTls => "starttls",
            Self::Draining => "drain",
            Self::Moved => "moved",
            Self::Asleep(_) => "asleep",
            Self::TooManyErrors => "errors",
            Self::MailboxGone => "mailbox_gone",
            Self::Flooded(_) => "flood",
            Self::Unreadable(_) => "unreadable",
            Self::Lost(posthouse_net::Error::ReadTimeout) => "idle",
            Self::Lost(posthouse_net::Error::WriteTimeout) => "stalled",
            Self::Lost(_) => "closed",
        }
    }

    /// The untagged BYE that the client hears (RFC 3501 §7.1.5); none where it said goodbye itself or cannot hear.
    pub fn farewell(&self) -> Option<Status> {
        let text = match self {
            Self::Draining => "the server is going down, please come back",
            Self::TooManyErrors => "too many errors",
            Self::MailboxGone => "the selected mailbox was deleted",
            Self::Flooded(FrameError::LineTooLong) => "the line is too long",
            Self::Flooded(FrameError::LiteralTooLarge) => "the literal is too large",
            // RFC 3501 §5.4: autologout.
            Self::Lost(posthouse_net::Error::ReadTimeout) => "idle for too long",
            _ => return None,
        };
        let unavailable = matches!(self, Self::Draining);
        let status = Status::bye(text);
        Some(if unavailable { status.code(Code::Unavailable) } else { status })
    }
}

/// The tagged NO of a failed operation (RFC 5530 §3).
pub fn status_of(error: &Error) -> Status {
    let (code, text) = match error {
        Error::OverQuota => (Code::OverQuota, "no room is left in the account"),
        Error::NotFound => (Code::NonExistent, "there is no such mailbox"),
        Error::Exists => (Code::AlreadyExists, "there is such a mailbox already"),
        Error::HasChildren => (Code::Cannot, "the mailbox has children"),
        Error::Limit { what } => return Status::no(format!("the limit of {what} is reached")).code(Code::Limit),
        Error::TooLarge { .. } => (Code::TooBig, "that is too large"),
        Error::Invalid(what) => return Status::no(*what).code(Code::Cannot),
        Error::Corrupt(_) => (Code::Corruption, "the server cannot read what it has stored"),
        Error::Unreadable => (Code::ServerBug, "the server made a mistake"),
        other => match other.failure().fault {
            Fault::Peer => (Code::Cannot, "that cannot be done"),
            Fault::Ours | Fault::Remote => (Code::Unavailable, "not possible at the moment, please try again"),
        },
    };
    Status::no(text).code(code)
}

#[cfg(test)]
mod tests {
    use posthouse_wire::imap::response::status::Condition;

    use super::*;

    #[test]
    fn a_temporary_fault_is_unavailable_and_never_bad() {
        for (error, code) in [
            (Error::Conflict, Code::Unavailable),
            (Error::Full, Code::Unavailable),
            (Error::Unavailable("x".to_owned()), Code::Unavailable),
            (Error::OverQuota, Code::OverQuota),
            (Error::NotFound, Code::NonExistent),
            (Error::Limit { what: "mailboxes" }, Code::Limit),
            (Error::Corrupt("x".to_owned()), Code::Corruption),
        ] {
            let status = status_of(&error);
            assert_eq!((status.condition, status.code), (Condition::No, Some(code)), "{error:?}");
        }
    }
}
