//! SMTP without I/O: the server's machine and data receiver, the client's machine, and the trace fields between them.

pub mod client;
pub mod command;
pub mod data;
pub mod line;
pub mod reply;
pub mod server;
pub mod submitted;
pub mod trace;
pub mod xtext;
