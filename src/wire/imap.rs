//! IMAP as a server speaks it, without I/O: framing, grammar, answers, and what a session knows of its mailbox.
//!
//! Laid as RFC 3501 with the extensions that `capability` lists, one file per command, so that RFC 9051 widens it file by
//! file. Our own grammar, because no permissive crate covers what we announce (docs/adr). Nothing here waits or reads a
//! clock: `frame` turns bytes into commands and message chunks, `command` reads them, `state` says what is allowed when,
//! `response` writes answers, `search` judges messages, `seq_view` keeps the sequence numbers that the client counts by.

pub mod capability;
pub mod command;
pub mod date;
pub mod flags;
pub mod frame;
pub mod mailbox_name;
pub mod response;
pub mod scan;
pub mod search;
pub mod section;
pub mod seq_view;
pub mod sequence;
pub mod state;
pub mod utf7;

pub use command::{Command, Tag, Tagged, parse};
pub use frame::{Frame, FrameError, FrameLimits, FrameReader};
pub use mailbox_name::{ListPattern, MailboxName};
pub use scan::ParseError;
pub use seq_view::SeqView;
pub use sequence::{NumberKind, RangeSet, SequenceSet};
pub use state::{State, Verb};
