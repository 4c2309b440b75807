//! One connection, plain or under TLS: the other half of a session, next to its state.
//!
//! STARTTLS consumes the plain transport and returns a TLS one, so no byte can be read around the handshake. A transport
//! that we accepted can be frozen, carried to another process and thawed there.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{Domain, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client;

use crate::error::{Error, of_stream};
use crate::frozen::FrozenTransport;
use crate::tls::movable::MovableTls;
use crate::tls::{Acceptor, TlsInfo};

/// A TCP connection and what runs on it.
pub struct Transport {
    peer: SocketAddr,
    local: SocketAddr,
    stream: Stream,
}

enum Stream {
    Plain(TcpStream),
    /// Boxed: most moves of a transport happen before TLS or without it.
    Tls(Box<MovableTls>),
    /// Boxed for the same reason; its state is over a kilobyte.
    TlsClient(Box<client::TlsStream<TcpStream>>),
}

impl Transport {
    /// A fresh TCP connection. Protocols here write whole answers, so Nagle's algorithm only delays them.
    pub fn plain(stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true).map_err(of_stream)?;
        let (peer, local) = (stream.peer_addr().map_err(of_stream)?, stream.local_addr().map_err(of_stream)?);
        Ok(Self { peer, local, stream: Stream::Plain(stream) })
    }

    /// A connection just accepted from `peer` at `local`, if that is known. Nagle's algorithm is off already: the listener's
    /// sockets inherit that.
    pub(crate) fn accepted(stream: TcpStream, peer: SocketAddr, local: Option<SocketAddr>) -> Result<Self, Error> {
        let local = local.map_or_else(|| stream.local_addr(), Ok).map_err(of_stream)?;
        Ok(Self { peer, local, stream: Stream::Plain(stream) })
    }

    /// Runs the server's side of the TLS handshake, at the start (RFC 8314 §3) or after STARTTLS (RFC 3207 §4).
    pub async fn starttls(self, acceptor: &Acceptor) -> Result<Self, Error> {
        let Stream::Plain(stream) = self.stream else {
            return Err(Error::AlreadyTls);
        };
        let stream = acceptor.accept(stream).await?;
        Ok(Self { stream: Stream::Tls(Box::new(stream)), ..self })
    }

    /// Takes the connection apart, without a word to the peer: its socket, out of the runtime's poller, and all else as a
    /// value. Nothing is lost, whatever is half read or half written; and nothing in this process can seal a TLS record
    /// for this connection any more, which the value alone can.
    ///
    /// # Errors
    /// `NotMovable` under TLS of which we are the client, and `Io` where the poller keeps the socket; both end the
    /// connection.
    pub fn freeze(self) -> Result<(OwnedFd, FrozenTransport), Error> {
        let (socket, tls) = match self.stream {
            Stream::Plain(stream) => (stream.into_std()?, None),
            Stream::Tls(stream) => {
                let (socket, frozen) = stream.freeze()?;
                (socket, Some(frozen))
            }
            Stream::TlsClient(_) => return Err(Error::NotMovable),
        };
        Ok((socket.into(), FrozenTransport { tls }))
    }

    /// Goes on where `freeze` stopped, in whichever process. Writes nothing and reads nothing; dropped right away it leaves
    /// the connection as it was, as long as somebody else holds the socket too. Needs a Tokio runtime. Whoever knows the peer
    /// says so: a socket whose peer has reset the connection does not know it any more.
    ///
    /// # Errors
    /// `Closed` when the peer is gone meanwhile and was not known, which says nothing against the value; otherwise the socket is
    /// none of ours or cannot be polled.
    pub fn thaw(socket: OwnedFd, frozen: FrozenTransport, peer: Option<SocketAddr>) -> Result<Self, Error> {
        let reference = SockRef::from(&socket);
        let is_tcp = reference.r#type()? == Type::STREAM && reference.domain()? != Domain::UNIX;
        if !is_tcp {
            return Err(Error::Frozen("its descriptor is no TCP connection"));
        }
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        // The program that accepted it may have been another version.
        socket.set_nodelay(true).map_err(of_stream)?;
        let peer = peer.map_or_else(|| socket.peer_addr(), Ok).map_err(of_stream)?;
        let local = socket.local_addr().map_err(of_stream)?;
        let socket = TcpStream::from_std(socket)?;
        let stream = match frozen.tls {
            Some(tls) => Stream::Tls(Box::new(MovableTls::thaw(socket, tls)?)),
            None => Stream::Plain(socket),
        };
        Ok(Self { peer, local, stream })
    }

    /// Takes the TCP stream out, where no TLS runs on it yet.
    pub(crate) fn into_plain(self) -> Result<(TcpStream, SocketAddr, SocketAddr), Error> {
        match self.stream {
            Stream::Plain(stream) => Ok((stream, self.peer, self.local)),
            Stream::Tls(_) | Stream::TlsClient(_) => Err(Error::AlreadyTls),
        }
    }

    pub(crate) fn of_client(stream: client::TlsStream<TcpStream>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, stream: Stream::TlsClient(Box::new(stream)) }
    }

    /// Returns once the peer has sent something or is gone, and takes nothing of it; under TLS at once. Cancel-safe.
    pub async fn readable(&self) -> Result<(), Error> {
        match &self.stream {
            // The runtime may take a fresh socket for readable; only the kernel knows.
            Stream::Plain(stream) => stream.peek(&mut [0]).await.map(drop).map_err(of_stream),
            Stream::Tls(_) | Stream::TlsClient(_) => Ok(()),
        }
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
        !matches!(self.stream, Stream::Plain(_))
    }

    /// Whether nothing but the socket has octets of this connection that wait: neither to be read nor to be sent.
    pub fn is_settled(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => true,
            Stream::Tls(stream) => stream.is_settled(),
            Stream::TlsClient(_) => false,
        }
    }

    /// Whether both ends are on this machine, so that no one else can listen.
    pub fn is_loopback(&self) -> bool {
        self.peer_ip().is_loopback() && self.local.ip().to_canonical().is_loopback()
    }

    /// Version and suite of an active TLS session.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(stream.info()),
            Stream::TlsClient(stream) => TlsInfo::of(stream.get_ref().1),
        }
    }

    /// The host name that a TLS client of ours asked for (RFC 6066 §3).
    pub fn server_name(&self) -> Option<&str> {
        match &self.stream {
            Stream::Tls(stream) => stream.facts().server_name.as_deref(),
            Stream::Plain(_) | Stream::TlsClient(_) => None,
        }
    }

    /// The channel binding `tls-exporter` of a connection that we accepted (RFC 9266 §4.2); TLS 1.3 only.
    pub fn channel_binding(&self) -> Option<&[u8; 32]> {
        match &self.stream {
            Stream::Tls(stream) => stream.facts().exporter.as_deref(),
            Stream::Plain(_) | Stream::TlsClient(_) => None,
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
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
