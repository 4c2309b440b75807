//! `[smtp]`: receiving mail on port 25, and what submission shares with it.

use serde::{Deserialize, Serialize};

use super::Complaint;
use crate::unit::{Size, Span};

/// Receiving mail on port 25, and what submission shares with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smtp {
    /// Largest message, told in SIZE (RFC 1870), enforced at MAIL and in DATA; at most 256 MiB.
    pub message_max: Size,
    /// Recipients of one message; further ones get 452 (RFC 5321 §4.5.3.1.8 wants at least 100).
    pub recipients_max: usize,
    /// Octets in a command line, CRLF included (RFC 5321 §4.5.3.1.4 wants at least 512).
    pub command_line_max: Size,
    /// Octets in a line of data; a longer one refuses the message (RFC 5321 §4.5.3.1.6 wants at least 1000).
    pub text_line_max: Size,
    /// Octets in a message header; more refuses the message.
    pub header_max: Size,
    /// Fields in a message header; more refuses the message.
    pub header_fields_max: usize,
    /// Received fields after which a message is judged to loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// Unknown, wrong or refused commands after which the connection ends with 421.
    pub errors_max: usize,
    /// Messages on one connection; then 421.
    pub messages_per_connection_max: usize,
    /// Longest wait for a whole command (RFC 5321 §4.5.3.2.7 wants at least 5 minutes).
    pub command_timeout: Span,
    /// Longest wait for the next block of data (RFC 5321 §4.5.3.2.5).
    pub data_timeout: Span,
    /// Longest time from MAIL to the end of its data, so that no client trickles for ever.
    pub transaction_timeout: Span,
    /// Wait before the greeting on port 25; a client that speaks first is refused. `0ms` only looks at what is there.
    pub early_talker_wait: Span,
    /// Whether VRFY tells of addresses; false answers 252 (RFC 5321 §3.5.3).
    pub vrfy_reveals: bool,
    /// Octets read or staged at once per connection: the memory of a connection in DATA is a small multiple of this.
    pub io_buffer: Size,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            message_max: Size::mib(50),
            recipients_max: 1000,
            command_line_max: Size::bytes(2048),
            text_line_max: Size::mib(1),
            header_max: Size::mib(1),
            header_fields_max: 10000,
            received_max: 100,
            errors_max: 10,
            messages_per_connection_max: 1000,
            command_timeout: Span::mins(5),
            data_timeout: Span::mins(3),
            transaction_timeout: Span::mins(30),
            early_talker_wait: Span::ms(0),
            vrfy_reveals: false,
            io_buffer: Size::kib(16),
        }
    }
}

impl Smtp {
    pub(super) fn complaint(&self) -> Complaint {
        super::storage::complain_of_body("smtp.message_max", self.message_max)
    }
}
