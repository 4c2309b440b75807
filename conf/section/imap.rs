//! `[imap]`: IMAP sessions (RFC 9051, RFC 3501).

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::{Size, Span};

/// IMAP sessions (RFC 9051, RFC 3501).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Imap {
    /// Octets in a command line without its literals (RFC 7162 §4 wants at least 8192).
    pub line_max: Size,
    /// Octets in a literal other than a message.
    pub literal_max: Size,
    /// Octets in all literals of one command, a message not counted.
    pub literals_total_max: Size,
    /// Octets of a message in APPEND, at most 256 MiB; more gets NO [TOOBIG] (RFC 4469 §4.2).
    pub append_max: Size,
    /// Nesting of a SEARCH command.
    pub search_depth_max: usize,
    /// Wrong commands in a row after which the session ends with BYE.
    pub errors_max: usize,
    /// A connection that has not logged in by then gets BYE.
    pub login_timeout: Span,
    /// Autologout (RFC 9051 §5.4 wants at least 30 minutes), in IDLE too (RFC 2177).
    pub idle_timeout: Span,
    /// A client that takes no byte of an answer for this long is closed.
    pub write_timeout: Span,
    /// Octets of an answer rendered at once: what a client that does not read can hold in memory.
    pub io_buffer: Size,
    /// Changes waiting for one session; beyond that it reads the mailbox anew.
    pub changes_max: usize,
}

impl Default for Imap {
    fn default() -> Self {
        Self {
            line_max: Size::kib(64),
            literal_max: Size::kib(64),
            literals_total_max: Size::kib(256),
            append_max: Size::mib(50),
            search_depth_max: 50,
            errors_max: 10,
            login_timeout: Span::mins(3),
            idle_timeout: Span::mins(30),
            write_timeout: Span::mins(5),
            io_buffer: Size::kib(32),
            changes_max: 1024,
        }
    }
}

impl Imap {
    pub(super) fn complaint(&self) -> Complaint {
        super::storage::complain_of_body("imap.append_max", self.append_max)
    }
}
