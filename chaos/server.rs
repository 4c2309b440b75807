//! The built program as a scenario sees it: a process with ports, started, killed and stopped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// How long a start may take until `ready`, recovery included.
pub const START_MAX: Duration = Duration::from_secs(60);
/// How long a clean end may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Every port of a demo, before the offset.
const PORTS: [u16; 8] = [2525, 2587, 2465, 2143, 2993, 2110, 2995, 2090];

/// An offset at which all ports of a server are free at the moment.
pub fn free_port_offset() -> anyhow::Result<u16> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut offsets = (0..100).map(|_| rand::random_range(1000..28_000));
    offsets.find(|offset| PORTS.iter().all(|port| is_free(port + offset))).context("no free ports for a server")
}

/// How to start it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub program: PathBuf,
    pub data: PathBuf,
    pub port_offset: u16,
    /// `POSTHOUSE_SECTION__KEY` and its value.
    pub environment: Vec<(String, String)>,
}

impl Plan {
    /// A listener's address, by its port before the offset.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port + self.port_offset))
    }

    /// Starts the server; it is not ready yet.
    pub fn start(&self) -> anyhow::Result<Server> {
        let (offset, data) = (self.port_offset.to_string(), self.data.to_string_lossy());
        let arguments = ["demo", "--port-offset", &offset, "--data", &data];
        start(&self.program, &arguments, &self.environment, &self.data.with_extension("log"))
    }

    /// Runs a command of the program on the stopped or running server's data and returns its output.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<(ExitStatus, String)> {
        let output = Command::new(&self.program).args(arguments).arg("--data").arg(&self.data).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&text).into_owned()))
    }

    /// As `run`, for a command that must succeed; what it says to programs.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.program);
        let output = command.args(arguments).arg("--json").arg("--data").arg(&self.data).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub fn make_account(&self, address: &str, password: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["account", "create", address, "--password-stdin", "--data"]).arg(&self.data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        writeln!(child.stdin.take().context("a pipe")?, "{password}")?;
        ensure!(child.wait()?.success(), "{address} was not made");
        Ok(())
    }
}

/// Starts the program; it is not ready yet. Its own lines are kept in `log` for whoever looks into a failure.
pub fn start(
    program: &Path,
    arguments: &[&str],
    environment: &[(String, String)],
    log: &Path,
) -> anyhow::Result<Server> {
    let lines = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(lines.with_context(|| format!("{} can't be written", log.display()))?)
        .spawn()
        .with_context(|| format!("{} does not start", program.display()))?;
    let output = child.stdout.take().context("the server's output is piped")?;
    let (sender, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line == "ready" && sender.send(()).is_err() {
                return;
            }
        }
    });
    Ok(Server { child, ready })
}

/// A process; killed when it is dropped.
pub struct Server {
    child: Child,
    ready: mpsc::Receiver<()>,
}

impl Server {
    /// Waits for `ready`.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        if self.ready.recv_timeout(START_MAX).is_ok() {
            return Ok(());
        }
        match self.child.try_wait()? {
            Some(status) => bail!("the server ended by itself: {status}"),
            None => bail!("the server is not ready after {START_MAX:?}"),
        }
    }

    /// Kill -9. An end that came by itself before is a failure of its own.
    pub fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end that `posthouse stop` asked for.
    pub fn wait_stopped(mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server does not stop")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
