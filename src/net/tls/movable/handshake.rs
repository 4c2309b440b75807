//! The handshake: rustls, fed one record at a time, and its keys taken out at the end.
//!
//! One record a step, because what rustls has read is out of reach later: data may stand in the same segment as the client's
//! Finished. The extracted keys lack the TLS 1.3 traffic secret that a KeyUpdate needs, so that secret is caught where
//! rustls tells it, in its key log, and then compared with what was extracted: both must give the same key.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use bytes::BufMut;
use rustls::server::{Accepted, Acceptor};
use rustls::{ConnectionTrafficSecrets, KeyLog, ProtocolVersion, ServerConfig, ServerConnection, SupportedCipherSuite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::cipher::HEADER;
use super::keys::{Keys, Traffic};
use super::record::{Flags, INPUT_MAX};
use super::state::FrozenTls;
use super::{Facts, MovableTls};

/// Room for what a client says at once: its ClientHello, or the rest of its handshake.
const FLIGHT: usize = 4096;

/// What a server's configuration needs for this handshake.
pub(in crate::tls) fn prepare(config: &mut ServerConfig) {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Catch);
}

/// A connection whose ClientHello is there. Up to here it has cost no computation.
pub(in crate::tls) struct Hello {
    wire: Wire,
    accepted: Accepted,
}

impl Hello {
    pub(in crate::tls) async fn read(socket: TcpStream) -> io::Result<Self> {
        let mut wire = Wire { socket, input: Vec::new() };
        let mut acceptor = Acceptor::default();
        loop {
            let length = wire.record().await?;
            feed(&wire.input[..length], |mut rest| acceptor.read_tls(&mut rest))?;
            wire.input.drain(..length);
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(Self { wire, accepted }),
                Err((error, mut alert)) => {
                    let mut flight = Vec::new();
                    alert.write_all(&mut flight)?;
                    return Err(wire.refuse(&flight, error).await);
                }
            }
        }
    }

    /// The rest of the handshake.
    pub(in crate::tls) async fn finish(self, config: Arc<ServerConfig>) -> io::Result<MovableTls> {
        let Self { mut wire, accepted } = self;
        let mut secrets = Secrets::default();
        let mut connection = match caught(&mut secrets, || accepted.into_connection(config)) {
            Ok(connection) => connection,
            Err((error, mut alert)) => {
                let mut flight = Vec::new();
                alert.write_all(&mut flight)?;
                return Err(wire.refuse(&flight, error).await);
            }
        };
        loop {
            // Before the next step, and before the end: tickets count under the key that is taken out.
            let flight = flight(&mut connection)?;
            wire.socket.write_all(&flight).await?;
            if !connection.is_handshaking() {
                break;
            }
            let length = wire.record().await?;
            feed(&wire.input[..length], |mut rest| connection.read_tls(&mut rest))?;
            wire.input.drain(..length);
            if let Err(error) = caught(&mut secrets, || connection.process_new_packets()) {
                let alert = self::flight(&mut connection)?;
                return Err(wire.refuse(&alert, error).await);
            }
        }
        let frozen = take_out(connection, secrets, wire.input).map_err(io::Error::other)?;
        MovableTls::thaw(wire.socket, frozen).map_err(io::Error::other)
    }
}

/// The socket, and what was read from it and not yet given to rustls.
struct Wire {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    /// Waits for one whole record at the start of the input and tells its length.
    async fn record(&mut self) -> io::Result<usize> {
        loop {
            if let Some(length) = whole_record(&self.input) {
                return Ok(length);
            }
            let room = INPUT_MAX - self.input.len();
            self.input.reserve(room.min(FLIGHT));
            if self.socket.read_buf(&mut (&mut self.input).limit(room)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn refuse(&mut self, alert: &[u8], error: rustls::Error) -> io::Error {
        // The handshake has failed, whether or not the peer learns why.
        let _ = self.socket.write_all(alert).await;
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// The length of the first record when it is whole; all there is when it is none, for rustls to refuse at once.
fn whole_record(input: &[u8]) -> Option<usize> {
    // ChangeCipherSpec, alert, handshake, data.
    if !(20..=23).contains(input.first()?) {
        return Some(input.len());
    }
    let [_, _, _, high, low, ..] = input else {
        return None;
    };
    let length = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
    if length > INPUT_MAX { Some(input.len()) } else { (input.len() >= length).then_some(length) }
}

/// Gives a whole record to rustls, which takes it in pieces of its own choice.
fn feed(mut record: &[u8], mut read: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    while !record.is_empty() {
        match read(record)? {
            // It reads no more after a close_notify.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => record = &record[count..],
        }
    }
    Ok(())
}

fn flight(connection: &mut ServerConnection) -> io::Result<Vec<u8>> {
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight)?;
    }
    Ok(flight)
}

/// Takes a connection at the end of its handshake apart; `input` is what the client sent after it.
fn take_out(connection: ServerConnection, secrets: Secrets, input: Vec<u8>) -> Result<FrozenTls, rustls::Error> {
    let suite = connection.negotiated_cipher_suite().ok_or(rustls::Error::HandshakeNotComplete)?;
    let facts = Facts {
        server_name: connection.server_name().map(Into::into),
        exporter: exporter(&connection)?.map(Zeroizing::new),
    };
    let extracted = connection.dangerous_extract_secrets()?;
    let rx = keys(suite, extracted.rx, secrets.client)?;
    let tx = keys(suite, extracted.tx, secrets.server)?;
    Ok(FrozenTls {
        suite,
        rx,
        tx,
        flags: Flags::default(),
        misuse: 0,
        fragment: Vec::new(),
        plain: Zeroizing::default(),
        input,
        output: Vec::new(),
        facts,
    })
}

fn exporter(connection: &ServerConnection) -> Result<Option<[u8; 32]>, rustls::Error> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(None);
    }
    // RFC 9266 §2: this label, an empty context, 32 octets.
    connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).map(Some)
}

fn keys(
    suite: SupportedCipherSuite,
    (seq, extracted): (u64, ConnectionTrafficSecrets),
    secret: Zeroizing<Vec<u8>>,
) -> Result<Keys, rustls::Error> {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = extracted
    else {
        return Err(rustls::Error::General("a cipher that we do not know".to_owned()));
    };
    let iv = iv.as_ref().try_into().map_err(|_| rustls::Error::General("an IV of another length".to_owned()))?;
    let traffic = Traffic { key: Zeroizing::new(key.as_ref().to_vec()), iv };
    match suite {
        SupportedCipherSuite::Tls13(_) => Keys::derived(suite, secret, traffic, seq),
        SupportedCipherSuite::Tls12(_) => Keys::of_tls12(suite, &traffic, seq),
    }
    .map_err(|_| rustls::Error::General("the caught secret is not that of the connection".to_owned()))
}

/// The first traffic secrets of both directions, in TLS 1.3.
#[derive(Default)]
struct Secrets {
    client: Zeroizing<Vec<u8>>,
    server: Zeroizing<Vec<u8>>,
}

thread_local! {
    /// Where `Catch` puts what rustls tells while `caught` runs on this thread; one configuration serves all connections, so
    /// that the log itself cannot know whose secrets they are.
    static CAUGHT: RefCell<Option<Secrets>> = const { RefCell::new(None) };
}

/// Runs one step of rustls, which never waits, and catches the secrets that it tells.
fn caught<R>(secrets: &mut Secrets, step: impl FnOnce() -> R) -> R {
    CAUGHT.set(Some(std::mem::take(secrets)));
    let result = step();
    *secrets = CAUGHT.take().unwrap_or_default();
    result
}

#[derive(Debug)]
struct Catch;

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

impl KeyLog for Catch {
    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        CAUGHT.with_borrow_mut(|caught| match (caught, label) {
            (Some(caught), CLIENT) => caught.client = Zeroizing::new(secret.to_vec()),
            (Some(caught), SERVER) => caught.server = Zeroizing::new(secret.to_vec()),
            _ => {}
        });
    }
}
