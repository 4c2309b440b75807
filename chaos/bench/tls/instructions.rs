//! The same work counted in user instructions by valgrind's callgrind: exact, and blind to the kernel and to the host's noise.
//!
//! Each amount is counted in a process of its own, and a small amount is taken off a large one, so that starts do not count.
//! valgrind shows its program a processor without the widest vectors; both servers run on the same.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::ClientConfig;

use super::{STREAMS, Server, Stream, TlsBenchArgs, echo, receive, send, shake};

#[derive(Clone, Copy)]
enum Work {
    Send,
    Receive,
    Shake,
    Echo,
}

/// What is divided by how much of it.
const WORK: [(Work, &str); 4] = [
    (Work::Send, "an octet out"),
    (Work::Receive, "an octet in"),
    (Work::Shake, "a full handshake"),
    (Work::Echo, "an echo"),
];
/// valgrind runs a program some fifty times slower.
const SHARE: u64 = 10;

pub async fn run(arguments: &TlsBenchArgs, lab: &Path, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
    println!("{}; user instructions", arguments.suite);
    println!("{:<24}{:>14}{:>14}{:>10}", "", "tokio-rustls", "movable", "quotient");
    for (work, name) in WORK {
        let amount = match work {
            Work::Send | Work::Receive => arguments.megabytes * 1_000_000,
            Work::Shake => arguments.handshakes as u64,
            Work::Echo => arguments.echoes as u64,
        } / SHARE;
        let mut each = [0.0; STREAMS.len()];
        for (stream, each) in STREAMS.into_iter().zip(&mut each) {
            let few = count(lab, stream, config, (work, amount / 4)).await?;
            let many = count(lab, stream, config, (work, amount / 4 + amount)).await?;
            *each = (many as f64 - few as f64) / amount as f64;
        }
        let [theirs, ours] = each;
        println!("{name:<24}{theirs:>14.2}{ours:>14.2}{:>10.3}", ours / theirs);
    }
    Ok(())
}

/// Instructions of a server's whole life.
async fn count(
    lab: &Path,
    stream: Stream,
    config: &Arc<ClientConfig>,
    (work, amount): (Work, u64),
) -> anyhow::Result<u64> {
    let said = lab.join("callgrind");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    command.stderr(File::create(&said)?);
    let server = Server::start(stream, lab, command).context("valgrind (package valgrind)")?;
    match work {
        Work::Send => send(&server, config, amount).await.map(drop)?,
        Work::Receive => receive(&server, config, amount).await.map(drop)?,
        Work::Shake => shake(&server, config, usize::try_from(amount)?).await.map(drop)?,
        Work::Echo => echo(&server, config, usize::try_from(amount)?).await.map(drop)?,
    }
    server.end()?;
    let text = fs::read_to_string(&said)?;
    let collected = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim());
    let count = collected.with_context(|| format!("valgrind counted nothing: {text}"))?.parse()?;
    ensure!(count > 0, "valgrind counted nothing");
    Ok(count)
}
