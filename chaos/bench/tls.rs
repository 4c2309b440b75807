//! What a TLS connection costs the server on our record stream, beside tokio-rustls over the same certificate.
//!
//! Two servers, each a process with one thread, so that the kernel's count of that thread is the whole cost; one client, the
//! same for both. They take turns, and the medians are of the quotients of neighbours, since the host is never quiet; or their
//! user instructions are counted.

mod instructions;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use posthouse_net::{Listener, TlsAcceptor, certificate};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client};

#[derive(Args)]
pub struct TlsBenchArgs {
    /// Rounds; each measures both servers, and they take turns in being first.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Megabytes each way in a round.
    #[arg(long, default_value_t = 200)]
    megabytes: u64,
    /// Full handshakes in a round.
    #[arg(long, default_value_t = 100)]
    handshakes: usize,
    /// Short lines sent back in a round.
    #[arg(long, default_value_t = 2000)]
    echoes: usize,
    /// The cipher suite, as rustls spells it.
    #[arg(long, default_value = "TLS13_AES_256_GCM_SHA384")]
    suite: String,
    /// Count user instructions instead, with valgrind, of a tenth of the work.
    #[arg(long)]
    instructions: bool,
}

#[derive(Args)]
pub struct TlsServeArgs {
    #[arg(long)]
    stream: Stream,
    /// Folder with the certificate and its key.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Stream {
    Movable,
    TokioRustls,
}

/// What a client asks for in the first octet of a connection; the eight that follow count octets.
const SEND: u8 = b'S';
const RECEIVE: u8 = b'R';
const ECHO: u8 = b'E';
/// What sessions write and read at once.
const CHUNK: usize = 16 * 1024;
const REPLY: usize = 64 * 1024;

/// In the order of the columns.
const STREAMS: [Stream; 2] = [Stream::TokioRustls, Stream::Movable];
const WORK: [&str; 5] =
    ["CPU, octets out", "CPU, octets in", "CPU, full handshakes", "CPU, echoes", "echo latency, median"];

pub async fn run(arguments: &TlsBenchArgs) -> anyhow::Result<()> {
    let lab = tempfile::Builder::new().prefix("posthouse-tls").tempdir()?;
    let files = certificate::ensure(lab.path(), &["localhost".to_owned()])?;
    let config = client_config(&files.ca, &arguments.suite)?;
    if arguments.instructions {
        return instructions::run(arguments, lab.path(), &config).await;
    }
    let servers = STREAMS.map(|stream| Server::start(stream, lab.path(), program()?));
    let [theirs, ours] = servers;
    let servers = [theirs?, ours?];
    for server in &servers {
        measure(server, &config, arguments).await?; // warms caches, and the certificate's first use
    }
    let mut figures: [Vec<[f64; 2]>; WORK.len()] = Default::default();
    for pair in 0..arguments.pairs {
        let mut both = [[0.0; 2]; WORK.len()];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let measured = measure(&servers[which], &config, arguments).await?;
            for (work, figure) in measured.into_iter().enumerate() {
                both[work][which] = figure;
            }
        }
        figures.iter_mut().zip(both).for_each(|(all, figure)| all.push(figure));
    }
    println!("{}, {} pairs; seconds of one thread, latency in seconds", arguments.suite, arguments.pairs);
    println!("{:<24}{:>14}{:>14}{:>10}{:>18}", "", "tokio-rustls", "movable", "quotient", "middle half");
    for (work, pairs) in WORK.iter().zip(&figures) {
        let [theirs, ours] = [0, 1].map(|which| quantile(pairs.iter().map(|pair| pair[which]), 0.5));
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|at| quantile(pairs.iter().map(|pair| pair[1] / pair[0]), at));
        println!("{work:<24}{theirs:>14.6}{ours:>14.6}{middle:>10.3}{low:>10.3} –{high:>6.3}");
    }
    Ok(())
}

fn quantile(figures: impl Iterator<Item = f64>, at: f64) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

fn client_config(roots: &Path, suite: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|offered| format!("{:?}", offered.suite()) == suite);
    let version = provider.cipher_suites.first().context("no such suite")?.version();
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_file(roots)?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version])?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One server's figures for all of `WORK`.
async fn measure(
    server: &Server,
    config: &Arc<ClientConfig>,
    arguments: &TlsBenchArgs,
) -> anyhow::Result<[f64; WORK.len()]> {
    let octets = arguments.megabytes * 1_000_000;
    let sent = send(server, config, octets).await?;
    let received = receive(server, config, octets).await?;
    let shaken = shake(server, config, arguments.handshakes).await?;
    let (echoed, times) = echo(server, config, arguments.echoes).await?;
    let [sent, received, shaken, echoed] = [sent, received, shaken, echoed].map(|cpu| cpu.as_secs_f64());
    Ok([sent, received, shaken, echoed, quantile(times.into_iter(), 0.5)])
}

/// The server writes so many octets; what that took it.
async fn send(server: &Server, config: &Arc<ClientConfig>, octets: u64) -> anyhow::Result<Duration> {
    let mut chunk = vec![0; REPLY];
    let mut stream = server.connect(config).await?;
    let before = server.cpu()?;
    order(&mut stream, SEND, octets).await?;
    let mut missing = octets;
    while missing > 0 {
        let count = stream.read(&mut chunk).await?;
        ensure!(count > 0, "the server closed early");
        missing -= count as u64;
    }
    Ok(server.cpu()? - before)
}

async fn receive(server: &Server, config: &Arc<ClientConfig>, octets: u64) -> anyhow::Result<Duration> {
    let mut chunk = vec![0; REPLY];
    let mut stream = server.connect(config).await?;
    let before = server.cpu()?;
    order(&mut stream, RECEIVE, octets).await?;
    let mut missing = octets;
    while missing > 0 {
        let piece = missing.min(REPLY as u64) as usize;
        stream.write_all(&chunk[..piece]).await?;
        missing -= piece as u64;
    }
    stream.flush().await?;
    stream.read_exact(&mut chunk[..1]).await?;
    Ok(server.cpu()? - before)
}

async fn shake(server: &Server, config: &Arc<ClientConfig>, handshakes: usize) -> anyhow::Result<Duration> {
    let before = server.cpu()?;
    for _ in 0..handshakes {
        let mut stream = server.connect(config).await?;
        order(&mut stream, RECEIVE, 0).await?;
        stream.read_exact(&mut [0]).await?;
    }
    Ok(server.cpu()? - before)
}

/// Also what each echo took the client, in seconds.
async fn echo(server: &Server, config: &Arc<ClientConfig>, echoes: usize) -> anyhow::Result<(Duration, Vec<f64>)> {
    let mut stream = server.connect(config).await?;
    order(&mut stream, ECHO, 0).await?;
    let mut times = Vec::with_capacity(echoes);
    let before = server.cpu()?;
    for _ in 0..echoes {
        let start = Instant::now();
        stream.write_all(b"a0001 NOOP with some words\r\n").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; 28]).await?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok((server.cpu()? - before, times))
}

async fn order(stream: &mut client::TlsStream<TcpStream>, what: u8, octets: u64) -> anyhow::Result<()> {
    let mut order = vec![what];
    order.extend_from_slice(&octets.to_be_bytes());
    stream.write_all(&order).await?;
    Ok(stream.flush().await?)
}

fn program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts one by a command that goes on with this program's arguments.
    fn start(stream: Stream, dir: &Path, mut command: Command) -> anyhow::Result<Self> {
        let name = stream.to_possible_value().context("a stream has a name")?;
        let mut process = command
            .args(["tls-serve", "--stream", name.get_name(), "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the server's address")?;
        Ok(Self { process, address })
    }

    async fn connect(&self, config: &Arc<ClientConfig>) -> anyhow::Result<client::TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(config.clone()).connect(name, socket).await?)
    }

    /// Time that the server's one thread has run.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.id()))?;
        let nanoseconds = text.split(' ').next().context("a number")?.parse()?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Server {
    /// Ends it by a signal that lets a tool around it say its last words.
    fn end(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        ensure!(sent.success(), "the server is gone");
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's process: it prints its address, and ends when whoever started it kills it.
pub fn serve(arguments: &TlsServeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = posthouse_conf::Tls {
        certificate: arguments.dir.join(certificate::CERTIFICATE_FILE),
        private_key: arguments.dir.join(certificate::PRIVATE_KEY_FILE),
        ..Default::default()
    };
    match arguments.stream {
        Stream::Movable => runtime.block_on(serve_movable(&settings)),
        Stream::TokioRustls => runtime.block_on(serve_tokio_rustls(&settings)),
    }
}

async fn serve_movable(settings: &posthouse_conf::Tls) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::load(settings)?;
    let listener = Listener::bind("127.0.0.1:0".parse()?, 1024)?;
    println!("{}", listener.local_addr());
    loop {
        let (transport, acceptor) = (listener.accept().await, acceptor.clone());
        tokio::spawn(async move { obey(transport.starttls(&acceptor).await?).await });
    }
}

/// As our sessions ran before: the ClientHello first, then the configuration.
async fn serve_tokio_rustls(settings: &posthouse_conf::Tls) -> anyhow::Result<()> {
    let chain = CertificateDer::pem_file_iter(&settings.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&settings.private_key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let ((socket, _), config) = (listener.accept().await?, config.clone());
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
            obey(hello.into_stream(config).await?).await
        });
    }
}

async fn obey(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let mut order = [0; 9];
    stream.read_exact(&mut order).await?;
    let mut missing = u64::from_be_bytes(order[1..].try_into()?);
    let mut chunk = vec![0; REPLY];
    match order[0] {
        SEND => {
            while missing > 0 {
                let piece = missing.min(REPLY as u64) as usize;
                stream.write_all(&chunk[..piece]).await?;
                missing -= piece as u64;
            }
        }
        RECEIVE => {
            while missing > 0 {
                let count = stream.read(&mut chunk[..CHUNK]).await?;
                ensure!(count > 0, "the client closed early");
                missing -= count as u64;
            }
            stream.write_all(b"!").await?;
        }
        _ => loop {
            let count = stream.read(&mut chunk[..CHUNK]).await?;
            if count == 0 {
                break;
            }
            stream.write_all(&chunk[..count]).await?;
            stream.flush().await?;
        },
    }
    Ok(stream.flush().await?)
}
