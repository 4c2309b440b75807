//! Programs that measure, side by side with a peer or the physical limit; nothing here asserts a speed.

pub mod cgroup;
pub mod idle;
pub mod mail;
pub mod memory;
pub mod postfix;
pub mod smtp;
pub mod store;
pub mod tls;
