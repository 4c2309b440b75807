//! Upgrades under load: many TLS sessions in the middle of things, mail in and out, and one program after another.
//!
//! What must hold: no session ends or hears what its own past does not explain, no new connection is refused, and every
//! message that was acknowledged is there exactly once.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::watch;

use super::smtp_kill::{settle, start_sessions};
use super::smtp_load::{Load, PASSWORD};
use crate::client::Smtp;
use crate::options::{Program, Seed};
use crate::server::{Plan, free_port_offset};
use crate::sink::Sink;

#[derive(clap::Args)]
pub struct Args {
    /// Sessions that live through all upgrades.
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// How many of them are `openssl s_client`; the others are Python's.
    #[arg(long, default_value_t = 95)]
    openssl: u32,
    /// Upgrades.
    #[arg(long, default_value_t = 100)]
    upgrades: u32,
    /// A Thunderbird and mbsync in a loop beside them; they want Xvfb, xdotool and certutil.
    #[arg(long)]
    programs: bool,
    /// Every second upgrade keeps the process and its id.
    #[arg(long)]
    in_place: bool,
    /// Few sessions and upgrades, for CI.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    program: Program,
    /// Another build of it, which takes turns with the first.
    #[arg(long)]
    other: Option<PathBuf>,
}

const SMTP: u16 = 2525;
/// Accounts with a maildrop that one session each keeps open.
const MAILDROPS: u32 = 40;
/// How long the sessions may take to stand, and to say at the end what they saw.
const CLIENTS_MAX: Duration = Duration::from_secs(300);
/// The clients themselves.
const CLIENTS: &str = include_str!("upgrade_clients.py");
const PROGRAMS: &str = include_str!("upgrade_programs.py");
/// Whose mail the programs read.
const READER: &str = "reader@demo.test";

pub async fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let (sessions, openssl, upgrades) =
        if arguments.short { (200, 10, 5) } else { (arguments.sessions, arguments.openssl, arguments.upgrades) };
    println!("upgrade: seed {seed}, {sessions} sessions, {upgrades} upgrades");
    let folder = tempfile::Builder::new().prefix("posthouse-upgrade").tempdir()?;
    let (sink, sink_address) = Sink::start().await?;
    let first = arguments.program.path()?;
    let programs = [first.clone(), arguments.other.clone().unwrap_or(first)];
    let plan = plan(programs[0].clone(), folder.path(), &sink_address.to_string())?;
    let mut server = plan.start()?;
    tokio::task::block_in_place(|| server.wait_ready())?;
    let maildrops = MAILDROPS.min(sessions / 5);
    make_maildrops(&plan, maildrops).await?;
    let mut clients = start_clients(folder.path(), &plan, (sessions, openssl, maildrops)).await?;
    let mut beside = if arguments.programs { Some(start_programs(folder.path(), &plan).await?) } else { None };
    let (stop, stopped) = watch::channel(false);
    let load = Arc::new(Load {
        plan: plan.clone(),
        ledger: Mutex::default(),
        may_break: false,
        surprises: Mutex::default(),
        stop: stopped,
    });
    let senders = start_sessions(&load, seed);
    let tally = upgrade_often(&plan, &programs, (upgrades, arguments.in_place, seed))
        .await
        .with_context(|| format!("seed {seed}"));
    let beside = match &mut beside {
        Some(programs) => Some(programs.report().await),
        None => None,
    };
    let report = clients.report().await;
    stop.send_replace(true);
    for sender in senders {
        sender.await?;
    }
    let (tally, report, beside) = (tally?, report?, beside.transpose()?);
    println!("clients: {report}");
    if let Some(beside) = &beside {
        println!("programs: {beside}");
    }
    println!("{}", tally.line());
    let settled = settle(&load, &sink).await.with_context(|| format!("seed {seed}"))?;
    let pid = plan.json(&["status"])?["pid"].as_u64().context("the server has no pid")?;
    let (status, said) = plan.run(&["stop"])?;
    ensure!(status.success(), "posthouse stop failed: {said}");
    wait_until_gone(pid).await?;
    let (status, said) = plan.run(&["check", "--store"])?;
    ensure!(status.success(), "posthouse check --store failed, seed {seed}:\n{said}");
    let surprises = load.surprises.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(surprises.is_empty(), "senders noticed: {:?}, seed {seed}", surprises.iter().take(5).collect::<Vec<_>>());
    ensure!(report["broken_count"] == 0, "sessions broke, seed {seed}");
    ensure!(report["refused_count"] == 0, "connections were refused, seed {seed}");
    ensure!(beside.is_none_or(|beside| beside["broken_count"] == 0), "a mail program noticed, seed {seed}");
    ensure!(tally.farewelled == 0, "{} sessions were cut off, seed {seed}", tally.farewelled);
    let counts = load.ledger.lock().unwrap_or_else(PoisonError::into_inner).counts();
    println!(
        "upgrade: {upgrades} upgrades, {sessions} sessions; dropped 0, refused 0; {} messages tried, {} acknowledged; lost 0, doubled 0, \
         sent twice to the remote host {}; the store is whole; seed {seed}",
        counts.tried, counts.acknowledged, settled.sent_twice
    );
    Ok(())
}

fn plan(program: PathBuf, folder: &Path, smarthost: &str) -> anyhow::Result<Plan> {
    let environment = [
        ("POSTHOUSE_QUEUE__SMARTHOST", smarthost),
        ("POSTHOUSE_QUEUE__SCHEDULE", "1s"),
        // The senders keep their connections through all upgrades: none ends or is deferred but by a fault.
        ("POSTHOUSE_SMTP__MESSAGES_PER_CONNECTION_MAX", "1000000"),
        ("POSTHOUSE_SUBMISSION__MESSAGES_PER_HOUR_MAX", "1000000"),
        // The clients fill the machine that the server runs on.
        ("POSTHOUSE_UPGRADE__MOVE_LIMIT", "60s"),
    ];
    Ok(Plan {
        program,
        data: folder.join("data"),
        port_offset: free_port_offset()?,
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    })
}

async fn start_clients(
    folder: &Path,
    plan: &Plan,
    (sessions, openssl, maildrops): (u32, u32, u32),
) -> anyhow::Result<Clients> {
    let asked = [("--sessions", sessions), ("--openssl", openssl), ("--maildrops", maildrops)];
    let asked: Vec<_> = asked.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect();
    Clients::start(folder, plan, CLIENTS, &asked).await
}

async fn start_programs(folder: &Path, plan: &Plan) -> anyhow::Result<Clients> {
    plan.make_account(READER, PASSWORD)?;
    let home = folder.join("programs");
    std::fs::create_dir(&home)?;
    let asked = ["--folder".to_owned(), home.to_string_lossy().into_owned()];
    Clients::start(folder, plan, PROGRAMS, &asked).await
}

/// What the upgrades said of themselves.
#[derive(Default)]
struct Tally {
    moved: Vec<u64>,
    farewelled: u64,
    frozen: Vec<u64>,
    whole: Vec<u64>,
    /// Of one session: the median of each upgrade, and its worst.
    session_frozen: Vec<u64>,
    session_worst: Vec<u64>,
    /// Of all states of an upgrade, and of one in the middle.
    octets: Vec<u64>,
    octets_median: Vec<u64>,
    /// Mebibytes of the process that serves after it.
    resident: Vec<u64>,
}

impl Tally {
    fn line(&self) -> String {
        let middle = |values: &[u64]| {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            (sorted.get(sorted.len() / 2).copied().unwrap_or(0), sorted.last().copied().unwrap_or(0))
        };
        let (moved, frozen, whole) = (middle(&self.moved), middle(&self.frozen), middle(&self.whole));
        format!(
            "moved {} sessions in the median; they stood still for {} ms in the median, {} ms at worst; an upgrade took {} ms in the \
             median, {} ms at worst; one session stood still for {} ms in the median, {} ms at worst; states {} octets, {} of one in the \
             median; {} MiB in memory in the median, {} at worst",
            moved.0,
            frozen.0,
            frozen.1,
            whole.0,
            whole.1,
            middle(&self.session_frozen).0,
            middle(&self.session_worst).1,
            middle(&self.octets).0,
            middle(&self.octets_median).0,
            middle(&self.resident).0,
            middle(&self.resident).1,
        )
    }
}

async fn upgrade_often(
    plan: &Plan,
    programs: &[PathBuf; 2],
    (upgrades, in_place, seed): (u32, bool, u64),
) -> anyhow::Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    for (number, program) in (1..=upgrades).zip(programs.iter().rev().cycle()) {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1500))).await;
        let to = program.to_string_lossy().into_owned();
        let mut words = vec!["upgrade", "--binary", &to];
        words.extend((in_place && number % 2 == 0).then_some("--exec"));
        let said = tokio::task::block_in_place(|| plan.json(&words));
        let said = said.with_context(|| format!("upgrade {number}"))?;
        let number_of = |name: &str| said[name].as_u64().with_context(|| format!("no {name} in {said}"));
        tally.moved.push(number_of("moved")?);
        tally.farewelled += number_of("farewelled")?;
        tally.frozen.push(number_of("frozen_milliseconds")?);
        tally.whole.push(number_of("milliseconds")?);
        tally.session_frozen.push(number_of("session_frozen_median_microseconds")? / 1000);
        tally.session_worst.push(number_of("session_frozen_worst_microseconds")? / 1000);
        tally.octets.push(number_of("octets")?);
        tally.octets_median.push(number_of("octets_median")?);
        tally.resident.push(number_of("resident_octets")? >> 20);
        if number % 10 == 0 {
            println!("upgrade {number}: {}", tally.line());
        }
    }
    Ok(tally)
}

/// The account of a POP3 session.
pub fn maildrop(number: u32) -> String {
    format!("pop{number}@demo.test")
}

/// So many of them, with two messages in each.
pub async fn make_maildrops(plan: &Plan, count: u32) -> anyhow::Result<()> {
    for number in 0..count {
        let address = maildrop(number);
        plan.make_account(&address, PASSWORD)?;
        let message = format!("From: <load@outside.test>\r\nTo: <{address}>\r\nSubject: a maildrop\r\n\r\nText.\r\n");
        let mut smtp = Smtp::connect(plan.address(SMTP), None).await?;
        for _ in 0..2 {
            ensure!(smtp.send("load@outside.test", &[&address], message.as_bytes()).await?, "{address} got no mail");
        }
    }
    Ok(())
}

/// A process of clients.
struct Clients {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _script: tempfile::NamedTempFile,
}

impl Clients {
    async fn start(folder: &Path, plan: &Plan, script: &str, asked: &[String]) -> anyhow::Result<Self> {
        let mut file = tempfile::Builder::new().suffix(".py").tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, script.as_bytes())?;
        let mut command = tokio::process::Command::new("python3");
        command.arg(file.path()).arg("--ca").arg(plan.data.join("ca.pem")).kill_on_drop(true);
        command.args(["--offset", &plan.port_offset.to_string()]).args(asked);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("python3")?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut clients = Self { child, input, output, _script: file };
        ensure!(clients.line().await? == "ready", "the clients did not get ready");
        Ok(clients)
    }

    /// Ends the sessions; what they saw.
    async fn report(&mut self) -> anyhow::Result<Value> {
        self.input.write_all(b"stop\n").await?;
        let line = self.line().await?;
        self.child.wait().await?;
        serde_json::from_str(&line).context(line)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(CLIENTS_MAX, self.output.next_line()).await;
        line.context("the clients say nothing")??.context("the clients ended")
    }
}

/// The process that serves last is no child of ours, so that nobody here is told of its end.
async fn wait_until_gone(pid: u64) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody has waited for yet is a zombie.
        if status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the server does not stop");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
