//! The vocabulary of mail: what every other crate means by an address, an id, a flag or a reply.
//!
//! Nothing here reads a socket, a file, a clock or a random number; times arrive as arguments.

pub mod address;
pub mod envelope;
pub mod failure;
pub mod flag;
pub mod id;
pub mod outcome;
pub mod reply;
pub mod secret;
pub mod special_use;
pub mod stage;
pub mod status;
pub mod structure;
pub mod time;
pub mod uid;
pub mod verdict;

pub use address::{Address, AddressError, Domain, LocalPart};
pub use envelope::{BodyType, DsnNotify, DsnReturn, Envelope, ForwardPath, OriginalRecipient, Recipient, ReversePath};
pub use failure::{Failure, Fault};
pub use flag::{Flag, FlagSet};
pub use id::{AccountId, BlobId, DomainId, EmailId, IngestId, MailboxId, ThreadId};
pub use outcome::{DeliveryOutcome, RemoteReply};
pub use reply::Reply;
pub use secret::Secret;
pub use special_use::SpecialUse;
pub use stage::StoredMessage;
pub use status::EnhancedStatus;
pub use time::UnixMillis;
pub use uid::{ModSeq, SeqNum, Uid, UidValidity};
pub use verdict::{Action, Evidence, Verdict};
