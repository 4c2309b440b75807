//! Mail policy as stages: context in, verdict out.
//!
//! A `Pipeline` runs its stages in the order of their cost, each under its deadline. A stage reads the `Context`, adds
//! evidence, and may end the run with a final word. Nothing here stores anything: message content comes through the trait
//! `MessageBody`, DNS through `Dns`. Signing of outgoing mail stands here too, since it shares the canonical forms with
//! verification.

pub mod authentication_results;
pub mod author;
pub mod body_hash;
pub mod budget;
pub mod context;
pub mod dkim;
pub mod dmarc;
pub mod dns;
pub mod error;
pub mod fields;
pub mod headers;
pub mod keys;
pub mod lists;
pub mod pipeline;
pub mod rate;
pub mod signing;
pub mod spf;
pub mod stage;

#[cfg(test)]
#[path = "../../tests/harness/name_server.rs"]
mod name_server;
#[cfg(test)]
mod vectors;

pub use body_hash::{BodyDigest, BodyHash, Canonicalization};
pub use budget::{ContentBudget, ContentPermit};
pub use context::{Content, Context, MessageBody};
pub use dns::Dns;
pub use error::Error;
pub use keys::KeyAlgorithm;
pub use pipeline::{Pipeline, Progress};
pub use signing::{Signer, SigningKey};
pub use stage::{Cost, FinalWord, OnFailure, Stage};
