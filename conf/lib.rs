//! Settings as types, beside the file that shows them all: `default.toml`.
//!
//! One section, one file. Every key has a default, a type and a comment; `tests/tidy.rs` compares `default.toml` with the
//! types. Nothing else in the tree reads a configuration file or an environment variable of ours.

mod load;
pub mod section;
mod template;
pub mod unit;

pub use load::{ConfError, load, parse};
pub use section::*;
pub use template::{DEFAULT_TOML, commented};
pub use unit::{Size, Span};
