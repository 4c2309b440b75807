//! Who does the work: one file per actor, its parts in the folder of its name.
//!
//! The supervision tree of a node, each arrow with its bound (keys of `conf/default.toml`):
//!
//! ```text
//! node
//! ├─ listener  -> session        limits.connections_max, per address and prefix; one actor per connection
//! ├─ listener  -> keeper         the same; a session that sleeps is no actor, but goes on counting
//! ├─ session   -> filter         filter.waiting_max, filter.wait_max
//! ├─ session   -> mailbox        mailbox.inbox_max, mailbox.request_timeout
//! ├─ session   -> auth           auth.waiting_max, auth.wait_max
//! ├─ session   -> spool          rows in the store; queue.spool_workers distributors
//! ├─ spool     -> mailbox, queue mailbox.inbox_max; rows in the store
//! ├─ queue     -> relay          queue.connections_per_domain_max, queue.relays_max
//! └─ admin   -> domain           domain.inbox_max, domain.request_timeout; 32 commands at once
//! ```
//!
//! ractor's inboxes have no bound, so every bound here is a permit that rides in the message or a queue of our own.

pub mod admin;
pub mod admission;
pub mod auth;
pub mod clock;
pub mod directory;
pub mod domain;
pub mod filter;
pub mod listener;
pub mod mailbox;
pub mod node;
pub mod notice;
pub mod queue;
pub mod relay;
pub mod scrubber;
pub mod session;
pub mod spool;
pub mod supervise;
pub mod sweeper;
pub mod tickets;
