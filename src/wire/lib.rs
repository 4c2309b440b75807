//! Codecs and protocol machines without I/O.

pub mod mime;
pub mod sasl;
pub mod smtp;
