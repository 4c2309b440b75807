//! The store: the only door to the embedded engine, and the functions that read and write mail in it.

pub mod account;
pub mod address;
pub mod backup;
pub mod blob;
pub mod change_log;
pub mod check;
mod codec;
pub mod domain;
mod done;
pub mod engine;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod gate;
pub mod keys;
pub mod lock;
pub mod mailbox;
pub mod message;
mod owner;
pub mod queue;
pub mod quota;
mod record;
pub mod repair;
mod seal;
pub mod secret;
pub mod shard;
pub mod spool;
pub mod store;
pub mod sweep;
mod thread;
pub mod transaction;
pub mod transit;
mod writer;

pub use blob::key_file::KeyId;
pub use blob::sweep::SweepReport;
pub use blob::{BODY_MAX, BodyWriter, StagedBody};
pub use codec::{FORMAT_MAX, FORMAT_MIN};
pub use engine::served::{Connector, Server, Stream};
pub use engine::{Atomic, Isolation, Page, RangeRequest, Versionstamp, Watch};
pub use error::Error;
pub use keys::BlobOwner;
pub use shard::{Epoch, Fence, ShardId};
pub use store::Store;
pub use transaction::{Transaction, check_fence};
pub use writer::Writer;
