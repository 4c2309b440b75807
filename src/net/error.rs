//! What can go wrong between us and a peer, and whose fault it is.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use posthouse_mail::Failure;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    #[error("port {} on {} is taken by another program", address.port(), address.ip())]
    PortTaken { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    /// The peer is gone, with or without a farewell.
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer sent nothing in time")]
    ReadTimeout,
    #[error("the peer took nothing in time")]
    WriteTimeout,
    /// The buffer is full and the session consumed nothing: a line or literal over its limit.
    #[error("the input buffer is full")]
    InputFull,
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("TLS handshake: {0}")]
    Handshake(String),
    #[error("TLS is already active")]
    AlreadyTls,
    /// Of a connection that we opened ourselves; those that we accepted move.
    #[error("this connection cannot move to another process")]
    NotMovable,
    /// A value that no program of ours made, or a damaged one.
    #[error("the state of a moved connection: {0}")]
    Frozen(&'static str),
    #[error("ticket keys: {0}")]
    TicketKeys(&'static str),
    #[error("{}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("cannot make a certificate: {0}")]
    Issue(String),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("connecting to {address} took too long")]
    ConnectTimeout { address: SocketAddr },
    #[error("resolver.servers: `{0}` is not an address or address:port")]
    NameServer(String),
    /// No usable answer this time: a timeout, SERVFAIL, no network.
    #[error("DNS: {0}")]
    Dns(String),
    /// A process of another user at a socket that is this user's.
    #[error("the peer is a process of user {uid}")]
    Stranger { uid: u32 },
    #[error("{0}")]
    Frame(&'static str),
    #[error("a frame of {size} octets, at most {max} are taken")]
    FrameTooLarge { size: usize, max: usize },
    #[error("files that the peer sent were lost: this process may open no more")]
    DescriptorsLost,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Whose fault it is, and whether to try again.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Closed | Self::ReadTimeout | Self::WriteTimeout | Self::InputFull | Self::AlreadyTls => Failure::PEER,
            Self::HandshakeTimeout | Self::Handshake(_) | Self::Connect { .. } => Failure::REMOTE,
            Self::ConnectTimeout { .. } | Self::Dns(_) => Failure::REMOTE,
            Self::Io(error) if is_disconnect(error) => Failure::PEER,
            Self::PortTaken { .. } | Self::Bind { .. } | Self::Certificate { .. } => Failure::OURS,
            Self::NotMovable | Self::Frozen(_) | Self::TicketKeys(_) => Failure::OURS,
            Self::Stranger { .. } | Self::Frame(_) | Self::FrameTooLarge { .. } => Failure::PEER,
            Self::DescriptorsLost => Failure::OURS,
            Self::Issue(_) | Self::NameServer(_) | Self::Io(_) => Failure::OURS,
        }
    }
}

/// Whether an I/O error says no more than that the peer is gone.
pub(crate) fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            // What a socket says of its peer's address after the peer reset it.
            | Kind::NotConnected
    )
}

/// An I/O error of an established connection.
pub(crate) fn of_stream(error: io::Error) -> Error {
    if is_disconnect(&error) { Error::Closed } else { Error::Io(error) }
}
