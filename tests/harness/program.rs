//! The built program as `posthouse demo` on free ports and a folder of its own; ends with the test that started it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthouse");

/// Ports of a demo before the offset.
const PORTS: [u16; 8] = [2525, 2587, 2465, 2143, 2993, 2110, 2995, 2090];

/// Offsets stay below the ports that the system gives to clients.
const OFFSET_STEP: u16 = 1000;
const OFFSET_MAX: u16 = 29000;

static NEXT_OFFSET: AtomicU16 = AtomicU16::new(0);

/// A listener of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    Smtp,
    Submission,
    Submissions,
    Imap,
    Imaps,
    Pop3,
    Pop3s,
    Metrics,
}

/// A running demo.
pub struct Demo {
    folder: TempDir,
    offset: u16,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// The process that serves now, where it is not the child any more.
    successor: Option<u32>,
    errors: Arc<Mutex<String>>,
}

impl Demo {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts with overrides such as `("POSTHOUSE_QUEUE__REMOTE_PORT", "2626")`.
    pub fn with(environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let folder = tempfile::Builder::new().prefix("posthouse-test-").tempdir().expect("a folder for the demo");
        let errors = Arc::new(Mutex::new(String::new()));
        let mut demo = Self { folder, offset: free_offset(), environment, child: None, successor: None, errors };
        demo.run();
        demo
    }

    /// Starts the program on the same folder and ports, and waits until it is ready.
    pub fn run(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.args(["demo", "--port-offset", &self.offset.to_string(), "--data"]).arg(self.data());
        self.run_as(command);
    }

    /// As `run`, by the configuration that the demo has left, which a test may have changed.
    pub fn serve(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(self.config());
        self.run_as(command);
    }

    fn run_as(&mut self, mut command: Command) {
        let mut child = command
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        collect(child.stderr.take().expect("a pipe"), Arc::clone(&self.errors));
        let ready = first_line(child.stdout.take().expect("a pipe"));
        self.child = Some(child);
        let line = ready.recv_timeout(PATIENCE).unwrap_or_default();
        assert_eq!(line, "ready", "the demo did not get ready; it said:\n{}", self.log());
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.data().join("posthouse.toml")
    }

    pub fn authority(&self) -> PathBuf {
        self.data().join("ca.pem")
    }

    pub fn port(&self, port: Port) -> u16 {
        PORTS[port as usize] + self.offset
    }

    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.as_ref().expect("a running demo").id())
    }

    /// `posthouse upgrade` to a program, by default the one that runs; gives its report once the old process is gone.
    pub fn upgrade(&mut self, program: Option<&Path>) -> Value {
        let program = program.map(|path| path.to_string_lossy().into_owned());
        let mut arguments = vec!["upgrade"];
        arguments.extend(program.iter().flat_map(|program| ["--binary", program]));
        let report = self.json(&arguments);
        self.follow(&report);
        report
    }

    /// After an upgrade with this report: waits for the end of the old process, and goes on with the new one.
    pub fn follow(&mut self, report: &Value) {
        let before = self.pid();
        if let Some(mut child) = self.child.take() {
            let status = eventually("the process before ends", || child.try_wait().expect("a child of ours"));
            assert!(status.success(), "{status}");
        }
        wait_until_gone(before);
        self.successor = report["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    }

    /// `posthouse upgrade --exec`: the new program has the same process id; gives its report.
    pub fn upgrade_in_place(&self) -> Value {
        let report = self.json(&["upgrade", "--exec"]);
        assert_eq!(report["pid"], self.pid(), "{report}");
        report
    }

    /// What the program wrote to standard error so far.
    pub fn log(&self) -> String {
        self.errors.lock().expect("no writer panicked").clone()
    }

    /// The same for another thread.
    pub fn log_reader(&self) -> impl Fn() -> String + Send + 'static {
        let errors = Arc::clone(&self.errors);
        move || errors.lock().expect("no writer panicked").clone()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(pid) = self.successor.take() {
            signal(pid, "-KILL");
            wait_until_gone(pid);
        }
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a running demo can be killed");
            child.wait().expect("a killed demo ends");
        }
    }

    /// Ends the demo with SIGTERM; gives its exit code.
    pub fn stop(&mut self) -> i32 {
        assert!(signal(self.pid(), "-TERM"));
        let mut child = self.child.take().expect("a running demo");
        let status = eventually("the demo ends", || child.try_wait().expect("a child of ours"));
        status.code().expect("an exit code")
    }

    /// Waits for a demo that was told to end.
    pub fn wait(&mut self) {
        let mut child = self.child.take().expect("a running demo");
        eventually("the demo ends", || child.try_wait().expect("a child of ours"));
    }

    /// Runs a command against this demo: `demo.command(&["account", "list"])`.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_with_input(arguments, "")
    }

    pub fn command_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.begin_command(arguments);
        // A command that reads nothing may be gone already; its exit code tells.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("the command ends")
    }

    /// As `command`, for whoever does something else before it ends.
    pub fn begin_command(&self, arguments: &[&str]) -> Child {
        Command::new(PROGRAM)
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    /// Runs a command with `--json` that must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.json_with_input(arguments, "")
    }

    pub fn json_with_input(&self, arguments: &[&str], input: &str) -> Value {
        let output = self.command_with_input(&[arguments, &["--json"]].concat(), input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {:?}\n{errors}{}", output.status, self.log());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Makes an account `NAME@demo.test` with the password `pw`; gives its address.
    pub fn create_account(&self, name: &str) -> String {
        let address = format!("{name}@demo.test");
        self.json_with_input(&["account", "create", &address, "--password-stdin"], "pw\n");
        address
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the demo on offset {} said:\n{}", self.offset, self.log());
        }
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: &str) -> bool {
    Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs").success()
}

/// Waits for the end of a process that need not be a child of ours.
pub fn wait_until_gone(pid: u32) {
    eventually("the process ends", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that ended and that nobody has waited for yet is a zombie.
        let state = status.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'));
        state.unwrap_or(true).then_some(())
    });
}

/// An offset whose ports are all free now. Other test runs may look at the same time, hence the start by process id.
fn free_offset() -> u16 {
    let first = u16::try_from(std::process::id() % 1000).expect("below 1000");
    let slots = OFFSET_MAX / OFFSET_STEP;
    for _ in 0..slots * 2 {
        let slot = (first + NEXT_OFFSET.fetch_add(1, Ordering::Relaxed)) % slots + 1;
        let offset = slot * OFFSET_STEP;
        if PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok()) {
            return offset;
        }
    }
    panic!("no free ports for a demo");
}

fn collect(mut stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut block) {
            into.lock().expect("no reader panicked").push_str(&String::from_utf8_lossy(&block[..count]));
        }
    });
}

/// The first line of a stream; the rest is read and dropped, so that the writer never blocks.
fn first_line(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A port that nothing listens on now, on every loopback address.
pub fn free_port() -> u16 {
    // Not one of those that the system gives away by itself, which another test may get before it is used.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 100).expect("below 100") * 10;
    let port = || 1_100 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 900;
    let mut ports = std::iter::repeat_with(port).take(900);
    ports.find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).expect("a free port")
}

/// For a demo whose name server is a thread of its test, whose answers take their time on a slow machine.
pub const PATIENT: [(&str, &str); 2] =
    [("POSTHOUSE_RESOLVER__TIMEOUT", "20s"), ("POSTHOUSE_FILTER__STAGE_TIMEOUT", "60s")];

/// Long enough to see that something does *not* happen.
pub const MOMENT: Duration = Duration::from_millis(300);
