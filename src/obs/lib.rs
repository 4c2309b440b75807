//! The only door to prometheus and tracing: an event writes its log line and moves its metric, in one place.
//!
//! `emit(RelayDeferred { .. })` is all that the rest of the tree knows. An event's struct lists the fields of its line; the
//! file of its area holds the metrics that it moves. Labels come from enums or fixed words, never from the network.

pub mod emit;
pub mod event;
pub mod log;
pub mod registry;

pub use emit::{Event, emit};
pub use registry::encode;
