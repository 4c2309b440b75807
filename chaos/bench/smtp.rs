//! Mail in, over SMTP, from Postfix's own load generator: Posthouse beside Postfix with Dovecot, and beside its own store
//! without a server around it, taking turns in one run.

mod quotients;
pub mod store;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::cgroup::CpuGroup;
use super::postfix::{self, Postfix, wait_for_port};
use quotients::Quotients;
use store::StoreAlone;

#[derive(Args)]
pub struct SmtpBenchArgs {
    /// The built program.
    #[arg(long, default_value = "target/release/posthouse")]
    posthouse: PathBuf,
    /// Messages of one run.
    #[arg(long, default_value_t = 2000)]
    messages: u32,
    /// Octets of a message.
    #[arg(long, default_value_t = 4096)]
    size: u32,
    /// Sessions at once, one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20])]
    sessions: Vec<u32>,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Keep connections for many messages.
    #[arg(long)]
    keep: bool,
    /// Only Posthouse, beside nothing.
    #[arg(long)]
    alone: bool,
    /// Added to Posthouse's ports.
    #[arg(long, default_value_t = 31000)]
    port_offset: u16,
}

/// One run's figures.
#[derive(Clone, Copy)]
struct Figures {
    accepted_per_second: f64,
    delivered_per_second: f64,
    cpu_ms_per_message: f64,
}

pub fn run(arguments: &SmtpBenchArgs) -> anyhow::Result<()> {
    let lab = tempfile::Builder::new().prefix("posthouse-bench").tempdir()?;
    let server = Posthouse::start(arguments, &lab.path().join("posthouse"))?;
    let peer_dir = lab.path().join("peer");
    std::fs::create_dir(&peer_dir)?;
    std::fs::set_permissions(lab.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut beside = match arguments.alone {
        true => None,
        false => Some((Postfix::start(&peer_dir)?, StoreAlone::start(&lab.path().join("store"), arguments.size)?)),
    };
    println!("server     sessions  accepted/s  delivered/s  cpu ms/msg");
    let mut quotients = Vec::new();
    for sessions in &arguments.sessions {
        let mut of_sessions = Quotients::new(*sessions);
        for _ in 0..arguments.repeat {
            let ours = smtp_source(arguments, *sessions, "alice@demo.test", &server.smtp());
            let Some((peer, store)) = &mut beside else {
                print("posthouse", *sessions, &measure(arguments, &server.group, ours, || server.delivered())?);
                continue;
            };
            let theirs = smtp_source(arguments, *sessions, postfix::RECIPIENT, postfix::ADDRESS);
            let theirs = measure(arguments, &peer.group, theirs, || Ok(peer.delivered()))?;
            print("postfix", *sessions, &theirs);
            let ours = measure(arguments, &server.group, ours, || server.delivered())?;
            print("posthouse", *sessions, &ours);
            let alone = measure_store(arguments, store, *sessions)?;
            print("store", *sessions, &alone);
            of_sessions.add(&ours, &theirs, &alone);
        }
        quotients.push(of_sessions);
    }
    if !arguments.alone {
        Quotients::print(&mut quotients);
    }
    Ok(())
}

fn print(server: &str, sessions: u32, figures: &Figures) {
    println!(
        "{server:<10} {sessions:>8}  {:>10.0}  {:>11.0}  {:>10.3}",
        figures.accepted_per_second, figures.delivered_per_second, figures.cpu_ms_per_message
    );
}

/// Sends the messages of one run.
fn smtp_source(
    arguments: &SmtpBenchArgs,
    sessions: u32,
    recipient: &str,
    address: &str,
) -> impl FnOnce() -> anyhow::Result<()> + use<> {
    let mut command = Command::new("smtp-source");
    let number = |n: u32| n.to_string();
    command.args(["-s", &number(sessions), "-m", &number(arguments.messages), "-l", &number(arguments.size)]);
    command.args(["-f", "a@sender.test", "-t", recipient]);
    if arguments.keep {
        command.arg("-d");
    }
    command.arg(format!("inet:{address}"));
    move || {
        let done = command.status().context("smtp-source (package postfix)")?;
        ensure!(done.success(), "smtp-source failed");
        Ok(())
    }
}

/// The store answers only for what is durable, so that accepted is delivered.
fn measure_store(arguments: &SmtpBenchArgs, store: &mut StoreAlone, sessions: u32) -> anyhow::Result<Figures> {
    store.prepare(arguments.messages)?;
    let (cpu, start) = (store.group.used()?, Instant::now());
    store.deliver(sessions)?;
    Ok(Figures::new(arguments.messages, start.elapsed(), start.elapsed(), store.group.used()?.saturating_sub(cpu)))
}

/// Runs a load and waits until every message of it has arrived.
fn measure(
    arguments: &SmtpBenchArgs,
    group: &CpuGroup,
    load: impl FnOnce() -> anyhow::Result<()>,
    delivered: impl Fn() -> anyhow::Result<usize>,
) -> anyhow::Result<Figures> {
    let goal = delivered()? + usize::try_from(arguments.messages)?;
    let (cpu, start) = (group.used()?, Instant::now());
    load()?;
    let accepted = start.elapsed();
    let until = Instant::now() + Duration::from_secs(120);
    while delivered()? < goal {
        ensure!(Instant::now() < until, "{} of {goal} messages arrived", delivered()?);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Figures::new(arguments.messages, accepted, start.elapsed(), group.used()?.saturating_sub(cpu)))
}

impl Figures {
    fn new(messages: u32, accepted: Duration, delivered: Duration, cpu: Duration) -> Self {
        let count = f64::from(messages);
        Self {
            accepted_per_second: count / accepted.as_secs_f64(),
            delivered_per_second: count / delivered.as_secs_f64(),
            cpu_ms_per_message: cpu.as_secs_f64() * 1000.0 / count,
        }
    }
}

/// A demo server of the built program; killed when dropped.
struct Posthouse {
    child: Child,
    group: CpuGroup,
    offset: u16,
}

impl Posthouse {
    fn start(arguments: &SmtpBenchArgs, dir: &Path) -> anyhow::Result<Self> {
        let group = CpuGroup::new("posthouse")?;
        let mut command = Command::new(&arguments.posthouse);
        command.arg("demo").arg("--data").arg(dir).arg("--port-offset").arg(arguments.port_offset.to_string());
        // The peer runs without DNS and judges no sender.
        command.env("POSTHOUSE_FILTER__SPF", "false").env("POSTHOUSE_FILTER__DMARC", "false");
        // Every message is logged, as the peer logs them.
        let log = File::create(dir.with_extension("log"))?;
        let child = group.spawn(&mut command, log.into())?;
        let server = Self { child, group, offset: arguments.port_offset };
        wait_for_port(&server.smtp())?;
        Ok(server)
    }

    fn smtp(&self) -> String {
        format!("127.0.0.1:{}", 2525 + self.offset)
    }

    /// Messages in alice's Inbox, by IMAP.
    fn delivered(&self) -> anyhow::Result<usize> {
        let stream = TcpStream::connect(("127.0.0.1", 2143 + self.offset))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        (&stream).write_all(b"a LOGIN alice@demo.test demo\r\nb STATUS INBOX (MESSAGES)\r\nc LOGOUT\r\n")?;
        let status = lines.find_map(|line| line.ok().filter(|line| line.starts_with("* STATUS")));
        let status = status.context("no STATUS answer")?;
        let count = status.rsplit("MESSAGES ").next().and_then(|rest| rest.trim_end_matches(')').parse().ok());
        count.with_context(|| format!("not understood: {status}"))
    }
}

impl Drop for Posthouse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
