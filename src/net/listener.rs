//! A listening socket: bound with clear errors, accepting whatever befalls it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use posthouse_obs::emit;
use posthouse_obs::event::net::AcceptPaused;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::error::Error;
use crate::transport::Transport;

/// First pause after the process ran out of descriptors or buffers; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address`; `backlog` connections may wait in the kernel. Needs a Tokio runtime.
    pub fn bind(address: SocketAddr, backlog: u32) -> Result<Self, Error> {
        let bound = bind(address).and_then(|socket| {
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            TcpListener::from_std(socket.into())
        });
        let socket = bound.map_err(|source| refused(address, source))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Goes on with a socket that listens already, of another process. Needs a Tokio runtime.
    pub fn inherit(socket: OwnedFd) -> Result<Self, Error> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // The program that bound it may have been another version.
        socket.set_tcp_nodelay(true)?;
        let socket = std::net::TcpListener::from(socket);
        let socket = TcpListener::from_std(socket)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The same socket under another descriptor: its queue of connections outlives this listener.
    pub fn duplicate(&self) -> Result<OwnedFd, Error> {
        Ok(self.socket.as_fd().try_clone_to_owned()?)
    }

    /// The address in use; with port 0 asked for, the one that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. It never fails: a connection that dies before it is taken is skipped, and when the process
    /// lacks descriptors or memory the kernel's queue holds the rest for a growing pause. Cancel-safe.
    pub async fn accept(&self) -> Transport {
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // Only a listener on every address leaves open which one a client came to.
                    let local = Some(self.address).filter(|address| !address.ip().is_unspecified());
                    if let Ok(transport) = Transport::accepted(stream, peer, local) {
                        return transport;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    emit(AcceptPaused { address: self.address, reason: error.to_string() });
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// For a server that accepts by itself.
    pub fn into_tokio(self) -> TcpListener {
        self.socket
    }
}

/// The address of a socket that listens.
pub fn listening_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    std::net::TcpListener::from(socket.try_clone()?).local_addr()
}

/// Ends a listening socket for everybody who holds it: who connects from now on is refused.
pub fn stop_listening(socket: &OwnedFd) {
    // One that listens no more is what we want.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Whether an address could be listened on now; takes it for an instant only.
pub fn probe(address: SocketAddr) -> Result<(), Error> {
    let probed = bind(address).and_then(|socket| socket.listen(1));
    probed.map_err(|source| refused(address, source))
}

fn refused(address: SocketAddr, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { address },
        _ => Error::Bind { address, source },
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart would wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two lines of the configuration, not one that takes both.
        socket.set_only_v6(true)?;
    }
    // What it accepts inherits this, so that no connection has to ask for it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Errors that `accept` passes on from the connection it tried to take.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let first = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        let address = first.local_addr();
        let expect = format!("port {} on 127.0.0.1 is taken by another program", address.port());
        assert_eq!(Listener::bind(address, 16).expect_err("taken").to_string(), expect);
        assert_eq!(probe(address).expect_err("taken").to_string(), expect);
        drop(first);
        probe(address).expect("free again");
    }

    #[tokio::test]
    async fn an_accepted_connection_sends_at_once_and_knows_its_peer() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        let client = tokio::net::TcpStream::connect(listener.local_addr()).await.expect("a connection");
        let (transport, client) = (listener.accept().await, client.local_addr().expect("an address"));
        assert_eq!((transport.peer_addr(), transport.local_addr()), (client, listener.local_addr()));
        let (stream, ..) = transport.into_plain().expect("no TLS yet");
        assert!(stream.nodelay().expect("an option"), "it inherits the listener's option");
    }

    #[tokio::test]
    async fn a_connection_made_while_nobody_accepts_reaches_the_heir() {
        let first = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        let (address, socket) = (first.local_addr(), first.duplicate().expect("a descriptor"));
        drop(first);
        let client = tokio::net::TcpStream::connect(address).await.expect("the kernel takes it");
        let heir = Listener::inherit(socket).expect("a listener");
        assert_eq!(heir.local_addr(), address);
        assert_eq!(heir.accept().await.peer_addr(), client.local_addr().expect("an address"));
    }
}
