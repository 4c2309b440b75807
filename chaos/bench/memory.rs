//! How much memory the built program holds: much data through one connection, many idle ones, many busy ones.
//!
//! Prints what the kernel says before, at the peak of and after each load, beside the time it took.

use std::fs;
use std::io::{BufRead as _, BufReader as LineReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest wait for one reply, on a machine that is busy with the load itself.
const REPLY_WAIT: Duration = Duration::from_secs(300);
/// Wait for memory to settle after a load.
const SETTLE: Duration = Duration::from_secs(3);
/// A line of text, CRLF included.
const LINE: &[u8] = b"All work and no play makes a memory measurement dull, so here is a longer line.\r\n";

#[derive(Args)]
pub struct MemoryArgs {
    /// The built program.
    #[arg(long, default_value = "target/release/posthouse")]
    posthouse: PathBuf,
    /// Messages through the one connection.
    #[arg(long, default_value_t = 50)]
    big_messages: usize,
    /// Octets of each.
    #[arg(long, default_value_t = 20_000_000)]
    big_size: usize,
    /// Idle connections: half SMTP, half IMAP.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Connections that each send one message at the same time.
    #[arg(long, default_value_t = 500)]
    busy: usize,
    /// Octets of each such message.
    #[arg(long, default_value_t = 1_000_000)]
    busy_size: usize,
    /// Added to every port.
    #[arg(long, default_value_t = 31000)]
    port_offset: u16,
}

pub async fn run(arguments: &MemoryArgs) -> anyhow::Result<()> {
    // Both ends of thousands of connections live on this machine.
    posthouse_net::open_files::raise()?;
    let lab = tempfile::Builder::new().prefix("posthouse-memory").tempdir()?;
    let server = Server::start(arguments, lab.path())?;
    println!("load                                    seconds  rss MiB  pss MiB  peak rss MiB");
    let start = Instant::now();
    server.show("after start", start)?;

    let start = server.reset_peak()?;
    let mut client = Smtp::connect(server.smtp).await?;
    for _ in 0..arguments.big_messages {
        client.send(arguments.big_size).await?;
    }
    drop(client);
    server.show(&format!("{} x {} octets, one connection", arguments.big_messages, arguments.big_size), start)?;

    let start = server.reset_peak()?;
    let idle = connect_idle(&server, arguments.idle).await?;
    server.show(&format!("{} idle connections", arguments.idle), start)?;
    drop(idle);
    tokio::time::sleep(SETTLE).await;
    server.show("idle ones closed", start)?;

    let start = server.reset_peak()?;
    send_at_once(&server, arguments).await?;
    server.show(&format!("{} connections, {} octets each", arguments.busy, arguments.busy_size), start)?;
    tokio::time::sleep(SETTLE).await;
    server.show("at rest", start)
}

async fn connect_idle(server: &Server, count: usize) -> anyhow::Result<Vec<Smtp>> {
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count / 2 {
        idle.push(Smtp::connect(server.smtp).await?);
        let mut imap = Smtp { stream: BufStream::with_capacity(256, 256, connect(server.imap).await?) };
        imap.line().await?;
        idle.push(imap);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(idle)
}

async fn send_at_once(server: &Server, arguments: &MemoryArgs) -> anyhow::Result<()> {
    let mut sending = JoinSet::new();
    for _ in 0..arguments.busy {
        let mut client = Smtp::connect(server.smtp).await?;
        let size = arguments.busy_size;
        sending.spawn(async move { client.send(size).await });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}

/// A demo of the built program; killed when dropped.
struct Server {
    child: Child,
    smtp: u16,
    imap: u16,
}

impl Server {
    fn start(arguments: &MemoryArgs, lab: &Path) -> anyhow::Result<Self> {
        let log = lab.join("log");
        let mut command = Command::new(&arguments.posthouse);
        command.arg("demo").arg("--data").arg(lab.join("data"));
        command.arg("--port-offset").arg(arguments.port_offset.to_string());
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut child = command.spawn().with_context(|| arguments.posthouse.display().to_string())?;
        let mut ready = String::new();
        LineReader::new(child.stdout.take().context("a pipe")?).read_line(&mut ready)?;
        let server = Self { child, smtp: 2525 + arguments.port_offset, imap: 2143 + arguments.port_offset };
        ensure!(ready.trim() == "ready", "the demo did not start:\n{}", fs::read_to_string(&log)?);
        Ok(server)
    }

    fn process_file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    /// Lets the kernel count the peak anew.
    fn reset_peak(&self) -> anyhow::Result<Instant> {
        fs::write(self.process_file("clear_refs"), "5").context("clear_refs")?;
        Ok(Instant::now())
    }

    fn show(&self, load: &str, start: Instant) -> anyhow::Result<()> {
        let status = fs::read_to_string(self.process_file("status"))?;
        let rollup = fs::read_to_string(self.process_file("smaps_rollup"))?;
        let mebibytes = |text: &str, key: &str| -> anyhow::Result<u64> {
            let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
            let kibibytes: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
            Ok(kibibytes / 1024)
        };
        println!(
            "{load:<40} {:>6.1}  {:>7}  {:>7}  {:>12}",
            start.elapsed().as_secs_f64(),
            mebibytes(&status, "VmRSS:")?,
            mebibytes(&rollup, "Pss:")?,
            mebibytes(&status, "VmHWM:")?,
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that has said EHLO.
struct Smtp {
    stream: BufStream<TcpStream>,
}

async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    Ok(timeout(REPLY_WAIT, TcpStream::connect(("127.0.0.1", port))).await??)
}

impl Smtp {
    async fn connect(port: u16) -> anyhow::Result<Self> {
        let mut client = Self { stream: BufStream::with_capacity(1024, 65_536, connect(port).await?) };
        client.expect("220").await?;
        client.command("EHLO client.example.org", "250").await?;
        Ok(client)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        timeout(REPLY_WAIT, self.stream.read_line(&mut line)).await??;
        ensure!(!line.is_empty(), "the server closed the connection");
        Ok(line)
    }

    async fn expect(&mut self, code: &str) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            ensure!(line.starts_with(code), "expected {code}, got {line}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    }

    async fn command(&mut self, line: &str, code: &str) -> anyhow::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        self.expect(code).await
    }

    /// One message of about this size for alice.
    async fn send(&mut self, size: usize) -> anyhow::Result<()> {
        self.command("MAIL FROM:<sender@example.org>", "250").await?;
        self.command("RCPT TO:<alice@demo.test>", "250").await?;
        self.command("DATA", "354").await?;
        self.stream.write_all(b"From: <sender@example.org>\r\nSubject: weight\r\n\r\n").await?;
        for _ in 0..size / LINE.len() {
            self.stream.write_all(LINE).await?;
        }
        self.command(".", "250").await
    }
}
