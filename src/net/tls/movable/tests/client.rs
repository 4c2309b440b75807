//! A rustls client whose octets a test holds in its hand before they go out, and the server it talks to.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::certificate;
use crate::error::Error;
use crate::frozen::FrozenStream;
use crate::line_stream::LineStream;
use crate::listener::Listener;
use crate::tls::{Acceptor, provider, read_roots};

pub const SOON: Duration = Duration::from_secs(20);

/// The server's side: certificate, acceptor, listener.
pub struct Server {
    _dir: TempDir,
    files: certificate::Files,
    settings: posthouse_conf::Tls,
    pub acceptor: Acceptor,
    listener: Listener,
}

impl Server {
    pub fn new() -> Self {
        Self::with_places(1024)
    }

    /// A server at which so many handshakes may be under way at once.
    pub fn with_places(handshakes_max: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let files = certificate::ensure(dir.path(), &["localhost".to_owned()]).expect("certificates");
        let settings = posthouse_conf::Tls {
            certificate: files.certificate.clone(),
            private_key: files.private_key.clone(),
            handshake_timeout: posthouse_conf::Span::secs(20),
            handshakes_max,
            ..Default::default()
        };
        let acceptor = Acceptor::load(&settings).expect("an acceptor");
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        Self { _dir: dir, files, settings, acceptor, listener }
    }

    /// The same certificate in another process, or on another node.
    pub fn another_acceptor(&self) -> Acceptor {
        Acceptor::load(&self.settings).expect("an acceptor")
    }

    pub fn client_config(&self, suite: SupportedCipherSuite) -> Arc<ClientConfig> {
        let mut provider = (*provider()).clone();
        provider.cipher_suites = vec![suite];
        let roots: RootCertStore = read_roots(&self.files.ca).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[suite.version()])
            .expect("a suite has its version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    /// One connection of each side, after the handshake.
    pub async fn connect(&self, config: Arc<ClientConfig>) -> (LineStream, Client) {
        self.connect_saying(config, b"").await
    }

    /// The client says `first` in the same write as the end of its handshake.
    pub async fn connect_saying(&self, config: Arc<ClientConfig>, first: &[u8]) -> (LineStream, Client) {
        let client = Client::connect(self.listener.local_addr(), config, first);
        let (stream, client) = tokio::join!(self.accept(&self.acceptor), client);
        (stream.expect("a handshake"), client.expect("a handshake"))
    }

    pub async fn accept(&self, acceptor: &Acceptor) -> Result<LineStream, Error> {
        LineStream::new(self.listener.accept().await, 64 * 1024).starttls(acceptor).await
    }

    pub async fn accept_plain(&self) -> LineStream {
        LineStream::new(self.listener.accept().await, 64 * 1024)
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

pub struct Client {
    pub socket: TcpStream,
    pub tls: ClientConnection,
    heard: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr, config: Arc<ClientConfig>, first: &[u8]) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(config, name).expect("a client");
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut heard = Vec::new();
        loop {
            if !tls.is_handshaking() && !first.is_empty() {
                tls.writer().write_all(first)?;
            }
            let mut flight = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut flight)?;
            }
            socket.write_all(&flight).await?;
            if !tls.is_handshaking() {
                return Ok(Self { socket, tls, heard });
            }
            read_some(&mut socket, &mut tls, &mut heard).await?;
        }
    }

    /// `data` as records that were not sent yet, behind whatever else waits to be sent.
    pub fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(data).expect("room");
        let mut octets = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut octets).expect("a write into memory");
        }
        octets
    }

    pub async fn send(&mut self, octets: &[u8]) {
        self.socket.write_all(octets).await.expect("a write");
    }

    pub async fn say(&mut self, data: &[u8]) {
        let octets = self.seal(data);
        self.send(&octets).await;
    }

    /// Exactly `count` octets of plaintext.
    pub async fn hear(&mut self, count: usize) -> Vec<u8> {
        while self.heard.len() < count {
            let is_open = read_some(&mut self.socket, &mut self.tls, &mut self.heard).await.expect("records that open");
            assert!(is_open || self.heard.len() >= count, "the server closed after {} octets", self.heard.len());
        }
        self.heard.drain(..count).collect()
    }

    /// How the server ended: the rest that it said if with a close_notify, otherwise what went wrong.
    pub async fn end(&mut self) -> Result<Vec<u8>, String> {
        while read_some(&mut self.socket, &mut self.tls, &mut self.heard).await.map_err(|error| error.to_string())? {}
        Ok(std::mem::take(&mut self.heard))
    }
}

/// Takes what one read gives, and adds what it says to `heard`; `false` after a close_notify.
async fn read_some(socket: &mut TcpStream, tls: &mut ClientConnection, heard: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = vec![0; 64 * 1024];
    let count = socket.read(&mut chunk).await?;
    let mut octets = &chunk[..count];
    loop {
        // Also without octets, so that rustls learns of the end.
        tls.read_tls(&mut octets)?;
        tls.process_new_packets().map_err(std::io::Error::other)?;
        match tls.reader().read_to_end(heard) {
            Ok(_) => return Ok(tls.is_handshaking()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && octets.is_empty() => return Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Through the octets of a hand-over and back.
pub fn hop(stream: LineStream) -> LineStream {
    let (socket, frozen) = stream.freeze().expect("it can move");
    let frozen = FrozenStream::decode(&frozen.encode()).expect("what was encoded decodes");
    LineStream::thaw(socket, frozen, None).expect("it goes on")
}

pub async fn read_line(stream: &mut LineStream) -> Vec<u8> {
    loop {
        if let Some(end) = stream.input().iter().position(|octet| *octet == b'\n') {
            return stream.take(end + 1).to_vec();
        }
        stream.fill(Instant::now() + SOON).await.expect("the rest of a line");
    }
}

/// Polls once and drops the future, as a `select!` does in which something else came first.
pub fn poll_once<R>(future: impl Future<Output = R>) -> Option<R> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
