//! One connection, plain or under TLS: the other half of a session, next to its state.
//!
//! STARTTLS consumes the plain transport and returns a TLS one, so no byte can be read around the handshake.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::error::{Error, of_stream};
use crate::tls::{Acceptor, TlsInfo};

/// A TCP connection and what runs on it.
pub struct Transport {
    peer: SocketAddr,
    local: SocketAddr,
    stream: Stream,
}

enum Stream {
    Plain(TcpStream),
    /// Boxed: a TLS state is over a kilobyte, and most moves of a transport happen before or without it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// A fresh TCP connection. Protocols here write whole answers, so Nagle's algorithm only delays them.
    pub fn plain(stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true).map_err(of_stream)?;
        let (peer, local) = (stream.peer_addr().map_err(of_stream)?, stream.local_addr().map_err(of_stream)?);
        Ok(Self { peer, local, stream: Stream::Plain(stream) })
    }

    /// A connection just accepted from `peer`. Nagle's algorithm is off already: the listener's sockets inherit that.
    pub(crate) fn accepted(stream: TcpStream, peer: SocketAddr) -> Result<Self, Error> {
        let local = stream.local_addr().map_err(of_stream)?;
        Ok(Self { peer, local, stream: Stream::Plain(stream) })
    }

    /// Runs the server's side of the TLS handshake, at the start (RFC 8314 §3) or after STARTTLS (RFC 3207 §4).
    pub async fn starttls(self, acceptor: &Acceptor) -> Result<Self, Error> {
        let Stream::Plain(stream) = self.stream else {
            return Err(Error::AlreadyTls);
        };
        let stream = acceptor.accept(stream).await?;
        Ok(Self { stream: Stream::Tls(Box::new(TlsStream::Server(stream))), ..self })
    }

    /// Takes the TCP stream out, where no TLS runs on it yet.
    pub(crate) fn into_plain(self) -> Result<(TcpStream, SocketAddr, SocketAddr), Error> {
        match self.stream {
            Stream::Plain(stream) => Ok((stream, self.peer, self.local)),
            Stream::Tls(_) => Err(Error::AlreadyTls),
        }
    }

    pub(crate) fn from_tls(stream: TlsStream<TcpStream>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, stream: Stream::Tls(Box::new(stream)) }
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The peer's address; an IPv4-mapped one as IPv4.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether both ends are on this machine, so that no one else can listen.
    pub fn is_loopback(&self) -> bool {
        self.peer_ip().is_loopback() && self.local.ip().to_canonical().is_loopback()
    }

    /// Version and suite of an active TLS session.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => TlsInfo::of(stream.get_ref().1),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({} -> {}, tls: {})", self.peer, self.local, self.is_tls())
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
