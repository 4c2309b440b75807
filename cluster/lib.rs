//! Where actors live. It knows keys and shards, and no mail.
//!
//! An entity (a virtual actor: one mailbox account, one destination, one domain) is only ever reached through its `Router`,
//! which finds its shard's owner and activates it there. On one node the owner is always this node; the cluster's gateway
//! will stand behind the same calls.

pub mod handoff;
pub mod placement;
pub mod router;
mod supervisor;

pub use placement::Placement;
pub use router::{Entity, EntityKey, Permit, RouteError, Router};
