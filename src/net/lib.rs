//! The only door to sockets and rustls.
//!
//! Everything that waits for a peer goes through here, so that each wait has its deadline and each buffer its bound in one
//! place: listeners, TLS, the buffered stream of a session, outbound connections, DNS. What the bytes mean is decided in
//! `wire`.

pub mod certificate;
pub mod connect;
pub mod descriptors;
pub mod error;
pub mod frozen;
pub mod line_stream;
pub mod listener;
pub mod local_socket;
pub mod open_files;
pub mod prefix;
pub mod readiness;
pub mod resolver;
pub mod tls;
pub mod transport;

/// What the fuzz targets call.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::tls::movable::peer::{decode, drive};
}

pub use connect::connect;
pub use error::Error;
pub use frozen::{FrozenStream, FrozenTransport};
pub use line_stream::LineStream;
pub use listener::{Listener, listening_address, stop_listening};
pub use prefix::{Prefix, PrefixSet};
pub use readiness::Readiness;
pub use resolver::{Answer, Mx, MxHost, Resolver};
pub use tls::tickets::{TicketKey, TicketKeys};
pub use tls::{Acceptor as TlsAcceptor, Connector as TlsConnector, TlsInfo};
pub use transport::Transport;
