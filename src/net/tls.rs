//! TLS for both directions: the acceptor of our listeners, the connector of our relays.
//!
//! One crypto provider serves the whole process. The acceptor can be given a new certificate and new ticket keys while it
//! works; handshakes are bounded in time and number, because each costs a signature before the client has proved anything.
//! What is accepted can move to another process; what we connect to others cannot, since a delivery is short and is tried
//! again.

pub(crate) mod movable;
pub mod tickets;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client;

use crate::certificate;
use crate::error::{Error, of_stream};
use crate::transport::Transport;
use movable::MovableTls;
use tickets::{TicketKeys, Tickets};

/// Makes aws-lc-rs the provider of every TLS user in this process; a second call changes nothing.
pub fn install_provider() {
    static ONCE: Once = Once::new();
    // Fails only where a provider is installed already, which is what we want.
    ONCE.call_once(|| drop(aws_lc_rs::default_provider().install_default()));
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    install_provider();
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// What a Received field says of TLS (RFC 8314 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3`
    pub version: &'static str,
    /// The suite in IANA's spelling: `TLS_AES_256_GCM_SHA384`.
    pub suite: String,
}

impl TlsInfo {
    pub(crate) fn of(connection: &rustls::CommonState) -> Option<Self> {
        Some(Self::new(connection.protocol_version()?, connection.negotiated_cipher_suite()?.suite()))
    }

    pub(crate) fn new(version: ProtocolVersion, suite: CipherSuite) -> Self {
        let version = match version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLSv1.2",
        };
        // The library spells the suites of TLS 1.3 `TLS13_...`.
        Self { version, suite: format!("{suite:?}").replacen("TLS13_", "TLS_", 1) }
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.suite)
    }
}

/// The server's side. Cheap to clone; all clones share certificate and bounds.
#[derive(Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    certificate: PathBuf,
    private_key: PathBuf,
    /// Who has to have signed the client's certificate, where one is asked for.
    clients: Option<PathBuf>,
    config: RwLock<Arc<ServerConfig>>,
    /// `None` where clients show certificates.
    tickets: Option<Arc<Tickets>>,
    handshakes: Semaphore,
    handshake_timeout: Duration,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({})", self.shared.certificate.display())
    }
}

impl Acceptor {
    /// Reads the certificate and key that the settings name.
    pub fn load(settings: &posthouse_conf::Tls) -> Result<Self, Error> {
        Self::with(&settings.certificate, &settings.private_key, None, settings)
    }

    /// For other nodes only: a client without a certificate of the authority is refused.
    pub fn mutual(files: &certificate::Files, settings: &posthouse_conf::Tls) -> Result<Self, Error> {
        Self::with(&files.certificate, &files.private_key, Some(&files.ca), settings)
    }

    fn with(
        certificate: &Path,
        private_key: &Path,
        clients: Option<&Path>,
        settings: &posthouse_conf::Tls,
    ) -> Result<Self, Error> {
        // A ticket stands for what its first handshake proved. One that anybody got must not pass for a certificate, so an
        // acceptor of nodes takes none but of its own configuration, out of its own memory.
        let tickets = if clients.is_none() { Some(Arc::new(Tickets::of_this_process()?)) } else { None };
        let config = server_config(certificate, private_key, clients, tickets.clone())?;
        let shared = Shared {
            certificate: certificate.to_owned(),
            private_key: private_key.to_owned(),
            clients: clients.map(Path::to_owned),
            config: RwLock::new(Arc::new(config)),
            tickets,
            handshakes: Semaphore::new(settings.handshakes_max.clamp(1, Semaphore::MAX_PERMITS)),
            handshake_timeout: settings.handshake_timeout.get(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads the files again; sessions under way keep what they have. On an error the old certificate stays.
    pub fn reload(&self) -> Result<(), Error> {
        let Shared { certificate, private_key, clients, tickets, .. } = &*self.shared;
        let config = Arc::new(server_config(certificate, private_key, clients.as_deref(), tickets.clone())?);
        *self.shared.config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = config;
        Ok(())
    }

    /// Seals and opens session tickets with these keys from now on; without them a ticket is good in this process only.
    /// Give the same keys to all nodes, and after an upgrade, and clients resume everywhere. An acceptor made by `mutual`
    /// leaves them alone, since there each new connection shows its certificate.
    pub fn set_ticket_keys(&self, keys: TicketKeys) -> Result<(), Error> {
        self.shared.tickets.as_ref().map_or(Ok(()), |tickets| tickets.set(keys))
    }

    /// Runs one handshake; the wait for a free place counts into its time. A connection takes its place only when its
    /// ClientHello is there, so that silent ones keep nobody out.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<MovableTls, Error> {
        let deadline = Instant::now() + self.shared.handshake_timeout;
        let work = async {
            let hello = movable::Hello::read(stream).await?;
            let _place = self.shared.handshakes.acquire().await.expect("the semaphore is never closed");
            let config = self.shared.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            hello.finish(config).await
        };
        timeout_at(deadline, work).await.map_err(|_| Error::HandshakeTimeout)?.map_err(handshake_error)
    }
}

fn handshake_error(error: std::io::Error) -> Error {
    match error.get_ref() {
        Some(inner) => Error::Handshake(inner.to_string()),
        None => of_stream(error),
    }
}

fn server_config(
    certificate: &Path,
    private_key: &Path,
    clients: Option<&Path>,
    tickets: Option<Arc<Tickets>>,
) -> Result<ServerConfig, Error> {
    let chain = read_certificates(certificate)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(read_roots(roots)?), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unreadable(roots, error))?)
        }
    };
    let mut config =
        builder.with_single_cert(chain, read_key(private_key)?).map_err(|error| unreadable(certificate, error))?;
    movable::prepare(&mut config);
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
    }
    Ok(config)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, error))
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        store.add(certificate).map_err(|error| unreadable(path, error))?;
    }
    Ok(store)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if certificates.is_empty() {
        return Err(unreadable(path, "no certificate in it"));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, reason: impl fmt::Display) -> Error {
    Error::Certificate { path: path.to_owned(), reason: reason.to_string() }
}

/// The client's side.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// Any certificate will do: against a passive listener encryption without authentication is better than none
    /// (RFC 7435 §3), and most MX hosts hold certificates that no one can check against the domain (RFC 3207 §4.1).
    pub fn opportunistic() -> Self {
        let provider = provider();
        let verifier = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
        let config = client_builder(provider).dangerous().with_custom_certificate_verifier(verifier);
        Self { config: Arc::new(config.with_no_client_auth()) }
    }

    /// The certificate must name the host and lead to a root of this machine.
    pub fn verified() -> Result<Self, Error> {
        let config = client_builder(provider())
            .with_platform_verifier()
            .map_err(|error| Error::Handshake(format!("the system's trust roots: {error}")))?;
        Ok(Self { config: Arc::new(config.with_no_client_auth()) })
    }

    /// The certificate must name the host and lead to a root in this PEM file.
    pub fn verified_by(roots: &Path) -> Result<Self, Error> {
        let config = client_builder(provider()).with_root_certificates(read_roots(roots)?);
        Ok(Self { config: Arc::new(config.with_no_client_auth()) })
    }

    /// Towards another node: both show certificates of the one authority.
    pub fn mutual(files: &certificate::Files) -> Result<Self, Error> {
        let config = client_builder(provider()).with_root_certificates(read_roots(&files.ca)?);
        let (chain, key) = (read_certificates(&files.certificate)?, read_key(&files.private_key)?);
        let config = config.with_client_auth_cert(chain, key).map_err(|error| unreadable(&files.certificate, error))?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Starts TLS towards `host`, a name or the text of an address.
    pub async fn connect(&self, transport: Transport, host: &str, limit: Duration) -> Result<Transport, Error> {
        let (stream, peer, local) = transport.into_plain()?;
        // A host name that TLS cannot carry (RFC 6066 §3) still gets its encryption, without SNI.
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| ServerName::from(peer.ip()));
        let handshake = tokio_rustls::TlsConnector::from(self.config.clone()).connect(name, stream);
        let stream: client::TlsStream<TcpStream> = timeout_at(Instant::now() + limit, handshake)
            .await
            .map_err(|_| Error::HandshakeTimeout)?
            .map_err(handshake_error)?;
        Ok(Transport::of_client(stream, peer, local))
    }
}

fn client_builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
}

/// Accepts every certificate, but still proves that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::connect;
    use crate::line_stream::LineStream;
    use crate::listener::Listener;

    const SOON: Duration = Duration::from_secs(10);

    struct Setup {
        _dir: tempfile::TempDir,
        files: certificate::Files,
        acceptor: Acceptor,
        listener: Listener,
    }

    fn setup(handshake_timeout: posthouse_conf::Span) -> Setup {
        let dir = tempfile::tempdir().expect("a folder");
        let files = certificate::ensure(dir.path(), &["localhost".to_owned()]).expect("certificates");
        let settings = posthouse_conf::Tls {
            certificate: files.certificate.clone(),
            private_key: files.private_key.clone(),
            handshake_timeout,
            ..Default::default()
        };
        let acceptor = Acceptor::load(&settings).expect("an acceptor");
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a free port");
        Setup { _dir: dir, files, acceptor, listener }
    }

    /// Connects, upgrades both ends, sends a line each way.
    async fn handshake(setup: &mut Setup, connector: &Connector, host: &str) -> Result<TlsInfo, Error> {
        let address = setup.listener.local_addr();
        let client = async {
            let plain = connect(address, SOON).await?;
            let mut stream = LineStream::new(connector.connect(plain, host, SOON).await?, 100);
            stream.fill(Instant::now() + SOON).await?;
            assert_eq!(stream.input(), b"hello\r\n");
            stream.transport().tls_info().ok_or(Error::Closed)
        };
        let acceptor = setup.acceptor.clone();
        let server = async {
            let plain = setup.listener.accept().await;
            assert!(plain.is_loopback() && !plain.is_tls() && plain.local_addr() == address);
            let mut stream = LineStream::new(plain, 100).starttls(&acceptor).await?;
            stream.write_all(b"hello\r\n", SOON).await?;
            stream.close(SOON).await;
            Ok::<_, Error>(())
        };
        tokio::join!(client, server).0
    }

    #[tokio::test]
    async fn opportunistic_takes_any_certificate_and_tells_version_and_suite() {
        let mut setup = setup(posthouse_conf::Span::secs(10));
        let info = handshake(&mut setup, &Connector::opportunistic(), "mx.other.test").await.expect("TLS");
        assert_eq!(info.version, "TLSv1.3");
        assert!(info.suite.starts_with("TLS_"), "{info}");
    }

    #[tokio::test]
    async fn verified_wants_the_name_and_the_root() {
        let mut setup = setup(posthouse_conf::Span::secs(10));
        let connector = Connector::verified_by(&setup.files.ca).expect("a root");
        handshake(&mut setup, &connector, "localhost").await.expect("the name is in the certificate");
        assert!(matches!(handshake(&mut setup, &connector, "other.test").await, Err(Error::Handshake(_))));
        if let Ok(platform) = Connector::verified() {
            assert!(matches!(handshake(&mut setup, &platform, "localhost").await, Err(Error::Handshake(_))));
        }
    }

    #[tokio::test]
    async fn nodes_want_each_others_certificate_from_one_authority() {
        let dir = tempfile::tempdir().expect("a folder");
        let node = |authority: &str, name: &str| {
            let names = ["localhost".to_owned()];
            certificate::issue_node(&dir.path().join(authority), &dir.path().join(name), &names).expect("a node")
        };
        let (first, second, stranger) = (node("ca", "first"), node("ca", "second"), node("other", "stranger"));
        let mut setup = setup(posthouse_conf::Span::secs(10));
        setup.acceptor = Acceptor::mutual(&first, &posthouse_conf::Tls::default()).expect("an acceptor");
        let known = Connector::mutual(&second).expect("a connector");
        handshake(&mut setup, &known, "localhost").await.expect("both are of one authority");
        assert!(handshake(&mut setup, &known, "other.test").await.is_err(), "another name");
        let strange = Connector::mutual(&certificate::Files { ca: first.ca.clone(), ..stranger }).expect("a connector");
        assert!(handshake(&mut setup, &strange, "localhost").await.is_err(), "another authority");
        let silent = Connector::verified_by(&first.ca).expect("a connector");
        assert!(handshake(&mut setup, &silent, "localhost").await.is_err(), "no certificate");
        let opened = certificate::ensure(&dir.path().join("ca"), &["localhost".to_owned()]).expect("a server's pair");
        let public = Connector::mutual(&opened).expect("a connector");
        assert!(
            handshake(&mut setup, &public, "localhost").await.is_err(),
            "a certificate for the public is no node's"
        );
    }

    #[tokio::test]
    async fn a_silent_client_ends_at_the_handshake_timeout() {
        let setup = setup(posthouse_conf::Span::ms(20));
        let _client = connect(setup.listener.local_addr(), SOON).await.expect("a connection");
        let plain = setup.listener.accept().await;
        assert!(matches!(plain.starttls(&setup.acceptor).await, Err(Error::HandshakeTimeout)));
    }

    #[tokio::test]
    async fn what_is_no_tls_is_refused_at_once() {
        let setup = setup(posthouse_conf::Span::secs(10));
        let client = connect(setup.listener.local_addr(), SOON).await.expect("a connection");
        let mut client = LineStream::new(client, 100);
        client.write_all(b"EHLO plain.test\r\n", SOON).await.expect("a write");
        let plain = setup.listener.accept().await;
        assert!(matches!(plain.starttls(&setup.acceptor).await, Err(Error::Handshake(_))));
    }

    #[tokio::test]
    async fn a_reload_serves_the_new_certificate_and_keeps_the_old_one_on_an_error() {
        let mut setup = setup(posthouse_conf::Span::secs(10));
        let old = std::fs::read(&setup.files.certificate).expect("the old certificate");
        std::fs::write(&setup.files.certificate, "nonsense").expect("a write");
        assert!(matches!(setup.acceptor.reload(), Err(Error::Certificate { .. })));
        handshake(&mut setup, &Connector::opportunistic(), "localhost").await.expect("the old certificate");
        std::fs::write(&setup.files.certificate, old).expect("a write");
        setup.acceptor.reload().expect("good files");
        handshake(&mut setup, &Connector::opportunistic(), "localhost").await.expect("the new certificate");
    }
}
