//! The HTTP surface, without actors.
