//! Mail in, over SMTP, from Postfix's own load generator: Posthouse beside Postfix with Dovecot, in one run.

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
    /// Only Posthouse.
    #[arg(long)]
    alone: bool,
    /// Added to Posthouse's ports.
    #[arg(long, default_value_t = 31000)]
    port_offset: u16,
}

/// One run's figures.
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
    let peer = if arguments.alone { None } else { Some(Postfix::start(&peer_dir)?) };
    println!("server     sessions  accepted/s  delivered/s  cpu ms/msg");
    for sessions in &arguments.sessions {
        for _ in 0..arguments.repeat {
            if let Some(peer) = &peer {
                let load = load(arguments, *sessions, postfix::RECIPIENT, postfix::ADDRESS);
                print("postfix", *sessions, &measure(arguments, &peer.group, load, || Ok(peer.delivered()))?);
            }
            let load = load(arguments, *sessions, "alice@demo.test", &server.smtp());
            print("posthouse", *sessions, &measure(arguments, &server.group, load, || server.delivered())?);
        }
    }
    Ok(())
}

fn print(server: &str, sessions: u32, figures: &Figures) {
    println!(
        "{server:<10} {sessions:>8}  {:>10.0}  {:>11.0}  {:>10.2}",
        figures.accepted_per_second, figures.delivered_per_second, figures.cpu_ms_per_message
    );
}

fn load(arguments: &SmtpBenchArgs, sessions: u32, recipient: &str, address: &str) -> Command {
    let mut command = Command::new("smtp-source");
    let number = |n: u32| n.to_string();
    command.args(["-s", &number(sessions), "-m", &number(arguments.messages), "-l", &number(arguments.size)]);
    command.args(["-f", "a@sender.test", "-t", recipient]);
    if arguments.keep {
        command.arg("-d");
    }
    command.arg(format!("inet:{address}"));
    command
}

/// Runs a load and waits until every message of it has arrived.
fn measure(
    arguments: &SmtpBenchArgs,
    group: &CpuGroup,
    mut load: Command,
    delivered: impl Fn() -> anyhow::Result<usize>,
) -> anyhow::Result<Figures> {
    let goal = delivered()? + usize::try_from(arguments.messages)?;
    let (cpu, start) = (group.used()?, Instant::now());
    let done = load.status().context("smtp-source (package postfix)")?;
    ensure!(done.success(), "smtp-source failed");
    let accepted = start.elapsed();
    let until = Instant::now() + Duration::from_secs(120);
    while delivered()? < goal {
        ensure!(Instant::now() < until, "{} of {goal} messages arrived", delivered()?);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (whole, cpu) = (start.elapsed(), group.used()?.saturating_sub(cpu));
    let count = f64::from(arguments.messages);
    Ok(Figures {
        accepted_per_second: count / accepted.as_secs_f64(),
        delivered_per_second: count / whole.as_secs_f64(),
        cpu_ms_per_message: cpu.as_secs_f64() * 1000.0 / count,
    })
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
