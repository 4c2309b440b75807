//! What the server sends, one file per kind of answer; everything is appended to a buffer of the session's.

pub mod body_structure;
pub mod envelope;
pub mod fetch;
pub mod mailbox;
pub mod status;
pub mod text;
