//! A connection that sends lines and reads lines, plain or under TLS with the demo's own authority.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Taken for an upgrade that is under way.
    None,
}

/// A line client of any of our protocols.
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(port: u16) -> Self {
        let stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write time-out");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: Stream::Plain(stream), buffer: Vec::new() }
    }

    pub fn connect_tls(port: u16, authority: &Path) -> Self {
        let mut client = Self::connect(port);
        client.start_tls(authority);
        client
    }

    /// Upgrades the connection; nothing may be waiting to be read.
    pub fn start_tls(&mut self, authority: &Path) {
        assert!(self.buffer.is_empty(), "the server spoke before the handshake");
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::None) else {
            panic!("TLS is on already");
        };
        let name = ServerName::try_from("localhost").expect("a host name");
        let connection = ClientConnection::new(tls_config(authority), name).expect("a TLS client");
        let mut stream = Box::new(StreamOwned::new(connection, socket));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("a TLS handshake that the demo's authority vouches for");
        }
        self.stream = Stream::Tls(stream);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("the server takes what is sent");
    }

    /// Sends what becomes one TLS record, cut in two; `between` runs when the server has only the first part.
    pub fn send_in_two(&mut self, bytes: &[u8], between: impl FnOnce()) {
        let Stream::Tls(stream) = &mut self.stream else { panic!("no TLS") };
        stream.conn.writer().write_all(bytes).expect("room");
        let mut record = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut record).expect("a buffer takes all");
        }
        let (first, second) = record.split_at(record.len() / 2);
        stream.sock.write_all(first).expect("the server reads");
        between();
        stream.sock.write_all(second).expect("the server reads");
    }

    /// Sends what the server may refuse to take by closing.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::None => panic!("no stream"),
        }
    }

    pub fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\r\n").as_bytes());
    }

    /// The next line without its CRLF; none when the server has closed.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                return Some(line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no CRLF: {line:?}")).to_owned());
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a line: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        }
    }

    pub fn line(&mut self) -> String {
        self.try_line().expect("the server closed the connection")
    }

    /// Exactly so many octets: a literal.
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "the server closed the connection inside a literal");
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Whether the server closes without another word.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    /// Whether nothing arrives for a moment.
    pub fn is_silent(&mut self, moment: Duration) -> bool {
        self.wait_at_most(moment);
        let mut byte = [0];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut byte),
            Stream::Tls(stream) => stream.read(&mut byte),
            Stream::None => panic!("no stream"),
        };
        let is_silent = match read {
            Ok(count) => {
                self.buffer.extend_from_slice(&byte[..count]);
                false
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && self.buffer.is_empty(),
        };
        self.wait_at_most(PATIENCE);
        is_silent
    }

    /// For each read from now on.
    fn wait_at_most(&self, time: Duration) {
        let socket = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
            Stream::None => panic!("no stream"),
        };
        socket.set_read_timeout(Some(time)).expect("a read time-out");
    }

    fn fill(&mut self) -> bool {
        let mut block = [0; 16384];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut block),
            Stream::Tls(stream) => stream.read(&mut block),
            Stream::None => panic!("no stream"),
        };
        match read {
            Ok(count) => {
                self.buffer.extend_from_slice(&block[..count]);
                count > 0
            }
            // A server may reset what it refuses to read; a TLS peer may leave without a farewell.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => false,
            Err(error) => {
                panic!("the server does not answer: {error}; waiting: {:?}", String::from_utf8_lossy(&self.buffer))
            }
        }
    }
}

/// Trusts the demo's authority; remembers tickets for as long as it lives.
pub fn tls_config(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("the demo's authority") {
        roots.add(certificate.expect("a certificate")).expect("a usable authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
