//! How a process hands its listeners, its store and its sessions to its successor on the same host, message by message.
//!
//! What moves is opaque here: states and sockets of a kind. One rule stands over the rest: **only one process ever uses a
//! session**, for two that seal with one key give it away. A session is the giver's until the kernel has taken the first octet
//! of COMMIT; from then on it never is again. The taker begins nothing before it has read COMMIT whole, and what it drops it
//! closes without a word to the client. Whoever gives up a step closes the connection, so that nothing late arrives.
//!
//! | step                               | taker dies or stalls                | giver dies or stalls                     |
//! |------------------------------------|-------------------------------------|------------------------------------------|
//! | HELLO to READY                     | giver never stopped serving         | taker ends                               |
//! | READY to STORE-IS-FREE             | giver lets its sessions go on       | taker ends                               |
//! | STORE-IS-FREE to SERVING           | giver opens its store again         | taker opens the store and serves         |
//! | SESSIONS to RECEIVED               | giver has the batch back            | taker drops the batch, serves            |
//! | RECEIVED to COMMIT                 | back if no octet of COMMIT went out | taker drops the batch, serves            |
//! | COMMIT to STARTED                  | batch lost, later ones are back     | taker has read COMMIT: starts; not: drops|
//! | DONE to FINISHED                   | giver opens its store again         | taker has everything, serves             |
//!
//! That a batch is lost and never doubled is a choice; see docs/adr/0014-sessions-move-in-batches-with-a-commit.md.

mod batch;
mod error;
mod giver;
mod link;
mod message;
mod taker;

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

pub use batch::STATE_MAX;
pub use error::HandoffError;
pub use giver::{Giver, Interrupted, Moved, MovedOne, Refused};
pub use taker::{Committed, Refusal, Taker};

/// The versions of this protocol that the program speaks. A successor reads the one before its own.
pub const VERSIONS: RangeInclusive<u32> = 1..=1;

/// A session that has stopped: its kind, its state, and the socket of its client.
pub struct Parcel {
    pub kind: String,
    /// Holds keys and what the client wrote.
    pub state: Zeroizing<Vec<u8>>,
    pub socket: OwnedFd,
    /// When it stopped, or came to this process; it does not travel.
    pub since: Instant,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({}, {} octets)", self.kind, self.state.len())
    }
}

/// A listening socket. Its queue is the kernel's: whoever connects meanwhile waits in it.
#[derive(Debug)]
pub struct Door {
    pub kind: String,
    pub socket: OwnedFd,
}

/// What an end says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The program and its version, in words for a log.
    pub program: String,
    pub versions: RangeInclusive<u32>,
}

impl Hello {
    pub fn of(program: impl Into<String>) -> Self {
        Self { program: program.into(), versions: VERSIONS }
    }
}

/// How long each end waits for the other.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until the taker has started, connected and greeted.
    pub hello: Duration,
    /// For an answer that wants no more than reading and checking.
    pub answer: Duration,
    /// Until the taker has opened the store and serves.
    pub store: Duration,
    /// Until the giver takes its next step: its sessions finish what they are at, and its store closes.
    pub pause: Duration,
}

#[cfg(test)]
mod tests;
