//! What stands in the rows: prost messages, so that fields can be added while old rows stay readable.
//!
//! Apart from the types that callers see (`mail` newtypes): a row holds bare integers and texts, and each module of
//! functions turns its own rows into those types in one place. Tags are never used again for something else.

pub mod account;
pub mod cluster;
#[cfg(test)]
mod golden;
pub mod mailbox;
pub mod message;
pub mod transport;

pub use account::{AccountRow, AddressRow, CredentialRow, DkimKeyRow, DomainRow, LockRow, PendingCopy, RoleMailbox};
pub use cluster::{GateRow, NodeRow, TicketKeyRow, TicketKeysRow};
pub use mailbox::{ChangeRow, MailboxChange, MailboxRow, UidRange};
pub use message::{DoneRow, EmailMailbox, EmailRow, MembershipRow};
pub use transport::{
    DestinationRow, OutcomeRow, QueueMessageRow, QueueWorkRow, RecipientRow, SpoolRecipientRow, SpoolRow,
};
