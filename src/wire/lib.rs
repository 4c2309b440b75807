//! Codecs and protocol machines without I/O.

pub mod dsn;
pub mod imap;
pub mod mime;
pub mod pop3;
pub mod sasl;
pub mod smtp;
