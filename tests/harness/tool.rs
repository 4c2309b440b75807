//! Foreign programs: run with a deadline, with what they said in the failure.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    pub is_success: bool,
    pub output: String,
}

/// Runs a program in a folder; output and errors come together, in the order of their ends.
pub fn run(folder: &Path, limit: Duration, program: &str, arguments: &[&str]) -> Finished {
    run_with_input(folder, limit, program, arguments, "")
}

pub fn run_with_input(folder: &Path, limit: Duration, program: &str, arguments: &[&str], input: &str) -> Finished {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("HOME", folder);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"));
    let output = reader(child.stdout.take().expect("a pipe"));
    let errors = reader(child.stderr.take().expect("a pipe"));
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let is_success = wait(&mut child, limit);
    let output = format!("{}{}", output.join().expect("a reader"), errors.join().expect("a reader"));
    Finished { is_success, output }
}

/// Runs a program that must succeed; gives its output.
pub fn expect(folder: &Path, limit: Duration, program: &str, arguments: &[&str]) -> String {
    let finished = run(folder, limit, program, arguments);
    assert!(finished.is_success, "{program} {arguments:?} failed:\n{}", finished.output);
    finished.output
}

/// Whether the program ended well within its time; ended by force otherwise.
pub fn wait(child: &mut Child, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status.success();
        }
        if Instant::now() > end {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
