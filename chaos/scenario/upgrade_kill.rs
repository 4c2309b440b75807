//! Kill -9 of either side in each phase of an upgrade, and what its clients saw: a table.
//!
//! The node itself tells its phases, to whoever asks for the upgrade; the kill follows the word at once, or a drawn moment later,
//! which falls anywhere in the phase. What must hold: a session either goes on, with what it had begun, or is closed; whoever is
//! left serves, or nobody does and the next start finds all mail; new connections work then.

mod session;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use posthouse_net::local_socket;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::smtp_load::PASSWORD;
use super::upgrade::make_maildrops;
use crate::client::{Imap, Smtp};
use crate::options::{Program, Seed};
use crate::server::{Plan, Server, free_port_offset};
use session::{BOB, KINDS, Session};

#[derive(clap::Args)]
pub struct Args {
    /// Kills of each side in each phase.
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Sessions of each of four kinds.
    #[arg(long, default_value_t = 5)]
    sessions: u32,
    /// One kill of each kind, for CI.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    program: Program,
}

const SMTP: u16 = 2525;
const IMAP: u16 = 2143;
/// What a POP3 session that is gone may hold its maildrop.
const LOCK_LEASE: &str = "5s";
const RETRY: Duration = Duration::from_millis(500);
/// The longest that a phase lasts here; a kill falls at its beginning or within this time.
const WITHIN: Duration = Duration::from_millis(60);
/// How long the survivor may take until it answers.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// What the node says when each phase begins, and what the table calls it.
const PHASES: [(&str, &str); 5] = [
    ("the new program is up", "offering listeners"),
    ("waiting for uploads under way", "holding"),
    ("sessions stop", "parking, closing the store"),
    ("the store moves", "store and sessions move"),
    ("sessions went over", "letting go"),
];

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// The one that served.
    Old,
    /// The successor, or in the same-process form the custodian.
    New,
}

/// One place of the table.
type Cell = (bool, usize, Side);

/// What one kill came to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    answer: String,
    serves: &'static str,
    /// Sessions of each kind that went on.
    alive: [u32; KINDS.len()],
}

pub async fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let kills = if arguments.short { 1 } else { arguments.kills };
    println!("upgrade-kill: seed {seed}, {kills} kills of each side in each phase");
    let folder = tempfile::Builder::new().prefix("posthouse-upgrade-kill").tempdir()?;
    let plan = Plan {
        program: arguments.program.path()?,
        data: folder.path().join("data"),
        port_offset: free_port_offset()?,
        environment: vec![("POSTHOUSE_POP3__LOCK_LEASE".to_owned(), LOCK_LEASE.to_owned())],
    };
    let mut site = Site { server: Some(start(&plan)?), clients: Vec::new(), arguments, plan, delivered: 0 };
    make_maildrops(&site.plan, arguments.sessions).await?;
    let mut random = StdRng::seed_from_u64(seed);
    print_head(arguments.sessions);
    for in_place in [false, true] {
        for (phase, (_, phase_name)) in PHASES.iter().enumerate() {
            for side in [Side::New, Side::Old] {
                let mut outcomes = BTreeMap::new();
                for number in 0..kills {
                    // The first at the very beginning, the others anywhere.
                    let wait = if number == 0 { Duration::ZERO } else { WITHIN.mul_f64(random.random_range(0.0..1.0)) };
                    let outcome = site.kill((in_place, phase, side), wait).await;
                    let words = || format!("seed {seed}, in place {in_place}, {phase_name}, {side:?}");
                    *outcomes.entry(outcome.with_context(words)?).or_default() += 1;
                }
                print((in_place, phase, side), &outcomes);
            }
        }
    }
    site.check().await.with_context(|| format!("seed {seed}"))?;
    println!(
        "upgrade-kill: {} messages acknowledged, each there once; the store is whole; seed {seed}",
        site.delivered
    );
    Ok(())
}

fn start(plan: &Plan) -> anyhow::Result<Server> {
    let mut server = plan.start()?;
    tokio::task::block_in_place(|| server.wait_ready())?;
    Ok(server)
}

struct Site<'a> {
    plan: Plan,
    server: Option<Server>,
    arguments: &'a Args,
    clients: Vec<Session>,
    /// Messages that were acknowledged.
    delivered: usize,
}

impl Site<'_> {
    /// One upgrade that is broken off, and what is left of it.
    async fn kill(&mut self, cell: Cell, wait: Duration) -> anyhow::Result<Outcome> {
        self.gather().await?;
        self.deliver().await?;
        let old = self.pid()?;
        let answer = self.upgrade_and_kill(cell, old, wait).await?;
        let serves = self.settle(old).await?;
        let mut alive = [0; KINDS.len()];
        for mut client in std::mem::take(&mut self.clients) {
            if client.goes_on(&mut self.delivered).await? {
                alive[client.place.0] += 1;
                self.clients.push(client);
            }
        }
        self.deliver().await?;
        Ok(Outcome { answer, serves, alive })
    }

    /// Begins the sessions that are missing.
    async fn gather(&mut self) -> anyhow::Result<()> {
        for place in (0..KINDS.len()).flat_map(|kind| (0..self.arguments.sessions).map(move |number| (kind, number))) {
            if self.clients.iter().any(|client| client.place == place) {
                continue;
            }
            // The lock of a POP3 session that is gone holds for its lease.
            let until = Instant::now() + SETTLE_MAX;
            let session = loop {
                match Session::begin(&self.plan, place).await {
                    Ok(session) => break session,
                    Err(error) if error.to_string().contains("[IN-USE]") && Instant::now() < until => {
                        tokio::time::sleep(RETRY).await;
                    }
                    Err(error) => return Err(error),
                }
            };
            self.clients.push(session);
        }
        Ok(())
    }

    async fn upgrade_and_kill(
        &self,
        (in_place, phase, side): Cell,
        old: u32,
        wait: Duration,
    ) -> anyhow::Result<String> {
        let (read, mut write) = local_socket::connect(&self.plan.data).await?.into_split();
        let order = json!({ "op": "upgrade", "program": null, "in_place": in_place });
        write.write_all(format!("{order}\n").as_bytes()).await?;
        let mut lines = BufReader::new(read).lines();
        let mut killed = false;
        loop {
            let line = match timeout(RETRY, lines.next_line()).await {
                Ok(Ok(Some(line))) => line,
                // A node that is gone says no more, although a custodian may keep the connection.
                Err(_) if !(is_gone(old) && only_custodian(&self.plan)) => continue,
                _ => break,
            };
            let line: Value = serde_json::from_str(&line)?;
            if !killed && line["progress"]["what"] == PHASES[phase].0 {
                tokio::time::sleep(wait).await;
                let victim = if side == Side::Old { Some(old) } else { child_of(old) };
                victim.map(kill).transpose()?;
                killed = true;
            }
            if line.get("done").is_some() {
                return Ok("done".to_owned());
            }
            if let Some(reason) = line["failed"].as_str() {
                let ends = ["serves as before", "program before goes on"];
                let end = ends.iter().find(|end| reason.ends_with(**end));
                return Ok(end.map_or(reason, |end| *end).to_owned());
            }
        }
        ensure!(killed, "the node never said that it is at: {}", PHASES[phase].0);
        Ok("none".to_owned())
    }

    /// Waits until somebody serves; starts the node anew where nobody does, as a supervisor would.
    async fn settle(&mut self, old: u32) -> anyhow::Result<&'static str> {
        let until = Instant::now() + SETTLE_MAX;
        let mut restarted = false;
        loop {
            if let Ok(status) = self.plan.json(&["status"])
                && status["ready"] == true
            {
                let pid = status["pid"].as_u64().context("a pid")?;
                return Ok(match (restarted, pid == u64::from(old)) {
                    (true, _) => "a fresh start",
                    (false, true) => "the old process",
                    (false, false) => "the new process",
                });
            }
            ensure!(Instant::now() < until, "nobody serves");
            let nobody = processes_on(&self.plan).is_empty() || is_gone(old) && only_custodian(&self.plan);
            if !restarted && nobody {
                self.server = Some(start(&self.plan)?);
                restarted = true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let pid = self.plan.json(&["status"])?["pid"].as_u64().context("a pid")?;
        Ok(u32::try_from(pid)?)
    }

    async fn deliver(&mut self) -> anyhow::Result<()> {
        let mut smtp = Smtp::connect(self.plan.address(SMTP), None).await?;
        let message = format!("From: <a@outside.test>\r\nTo: <{BOB}>\r\nSubject: {}\r\n\r\nText.\r\n", self.delivered);
        ensure!(smtp.send("a@outside.test", &[BOB], message.as_bytes()).await?, "mail was deferred");
        self.delivered += 1;
        Ok(())
    }

    /// Messages that have arrived.
    async fn count(&self) -> anyhow::Result<usize> {
        let mut imap = Imap::connect(self.plan.address(IMAP), None, (BOB, PASSWORD)).await?;
        let mut found = 0;
        imap.read_mailbox("INBOX", |_| {
            found += 1;
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Everything that was acknowledged is there once, and the store is whole.
    async fn check(&mut self) -> anyhow::Result<()> {
        // What was submitted goes through the spool.
        let until = Instant::now() + SETTLE_MAX;
        let mut found = self.count().await?;
        while found < self.delivered && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200)).await;
            found = self.count().await?;
        }
        ensure!(found == self.delivered, "{found} messages, {} were acknowledged", self.delivered);
        let pid = self.pid()?;
        let (status, said) = self.plan.run(&["stop"])?;
        ensure!(status.success(), "posthouse stop failed: {said}");
        let until = Instant::now() + SETTLE_MAX;
        while !is_gone(pid) {
            ensure!(Instant::now() < until, "the node does not stop");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (status, said) = self.plan.run(&["check", "--store"])?;
        ensure!(status.success(), "posthouse check --store failed:\n{said}");
        Ok(())
    }
}

fn print_head(sessions: u32) {
    let kinds = KINDS.map(|(_, name)| name).join(" ");
    println!(
        "{:<9} {:<27} {:<10} {:<24} {:<16} {:>5}  sessions that went on, of {sessions} each: {kinds}",
        "form", "phase", "killed", "answer", "serves then", "kills"
    );
}

fn print((in_place, phase, side): Cell, outcomes: &BTreeMap<Outcome, u32>) {
    let form = if in_place { "in place" } else { "beside" };
    let killed = match side {
        Side::Old => "old",
        Side::New if in_place => "custodian",
        Side::New => "new",
    };
    for (Outcome { answer, serves, alive }, count) in outcomes {
        let alive = alive.map(|count| count.to_string()).join(" ");
        println!("{form:<9} {:<27} {killed:<10} {answer:<24} {serves:<16} {count:>5}  {alive}", PHASES[phase].1);
    }
}

/// Every process of the system: its id and its parent's, unless it is a zombie.
fn processes() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let read = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        (state != "Z").then_some((pid, fields.next()?.parse().ok()?))
    };
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(read).collect()
}

fn child_of(parent: u32) -> Option<u32> {
    processes().into_iter().find(|(_, of)| *of == parent).map(|(pid, _)| pid)
}

fn is_gone(pid: u32) -> bool {
    !processes().iter().any(|(there, _)| *there == pid)
}

/// The processes of the node on these data.
fn processes_on(plan: &Plan) -> Vec<u32> {
    let data = plan.data.to_string_lossy().into_owned();
    let is_ours = |pid: &u32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split('\0').nth(1) == Some("demo") && words.contains(&data)
    };
    processes().into_iter().map(|(pid, _)| pid).filter(is_ours).collect()
}

/// Whether all that is left is one that keeps everything for the next start.
fn only_custodian(plan: &Plan) -> bool {
    let is_custodian = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|words| words.split(|octet| *octet == 0).any(|word| word.starts_with(b"POSTHOUSE_KEEP=")))
    };
    plan.data.join("custody.sock").exists() && processes_on(plan).iter().all(is_custodian)
}

fn kill(pid: u32) -> anyhow::Result<()> {
    // One that has ended already is as dead as it gets.
    std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .stderr(std::process::Stdio::null())
        .status()?;
    Ok(())
}
