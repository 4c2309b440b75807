//! The HTTP surface, without actors: what `/metrics` and `/health` answer, and how connections are served.
//!
//! Sockets come from outside through axum's `Listener`, facts about the node through the trait `Health`.

pub mod health;
pub mod router;
pub mod serve;

pub use health::{Health, Readiness};
pub use router::router;
pub use serve::{Served, serve, serve_connection};
