//! What tests from outside share: the built program, line clients, a DNS server, remote mail hosts, foreign programs.
//!
//! Everything blocks with a deadline and lives on loopback; nothing here looks inside the program.

pub mod client;
pub mod dns;
pub mod mail_client;
pub mod object_store;
pub mod program;
pub mod remote_host;
pub mod tool;

use std::time::{Duration, Instant};

/// Longest wait for anything that should come at once; generous, since other builds may share the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer; for what only the server knows when it has happened.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
