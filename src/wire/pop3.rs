//! POP3's server side without I/O (RFC 1939, 2449, 2595, 5034, 6856).
//!
//! A `Server` takes command lines and says what to do; the session does it and reports back. `Maildrop` holds what the
//! session was shown at login. Long answers are values with a position, so that they can be written piece by piece.

pub mod command;
pub mod listing;
pub mod maildrop;
pub mod response;
pub mod server;
pub mod stuffing;

pub use command::{Command, CommandFault, Verb};
pub use listing::Listing;
pub use maildrop::{Entry, Maildrop};
pub use response::Response;
pub use server::{Effect, Offer, Server, Snapshot};
pub use stuffing::{LineLimit, Stuffer};
