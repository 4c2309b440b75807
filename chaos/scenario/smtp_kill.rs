//! Kill -9 against the whole server: a load of deliveries and submissions, the process killed and started again and again,
//! then every mailbox read over IMAP and the remote host asked what it got.
//!
//! What must hold: an acknowledged try is there exactly once for each local recipient and at least once at the remote
//! host, an unanswered one at most once; nothing is damaged, and the store proves its invariants. A second copy at the
//! remote host is counted, not judged: RFC 5321 §6.1 admits it when the server dies between the remote 250 and its own
//! note of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::smtp_load::{self, ACCOUNTS, Load, PASSWORD, Way};
use crate::client::Imap;
use crate::options::{Folder, Program, Seed};
use crate::oracle::Violation;
use crate::server::{Plan, Server, free_port_offset};
use crate::sink::Sink;
use crate::workload;

#[derive(clap::Args)]
pub struct Args {
    /// Kills.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    #[command(flatten)]
    seed: Seed,
    /// A few rounds, for CI.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    folder: Folder,
    /// Added to every port of the server; one at which they are free is found when absent.
    #[arg(long)]
    port_offset: Option<u16>,
}

const IMAP: u16 = 2143;
/// Sessions of each way in.
const SESSIONS: [(Way, u32); 2] = [(Way::Smtp, 4), (Way::Submission, 2)];
/// How long spool and queue may take to finish what was accepted, after the last start.
const SETTLE_MAX: Duration = Duration::from_secs(180);

pub async fn run(arguments: &Args) -> anyhow::Result<()> {
    let seed = arguments.seed.draw();
    let rounds = if arguments.short { 5 } else { arguments.rounds };
    println!("smtp-kill: seed {seed}, {rounds} rounds");
    let lab = arguments.folder.lab("posthouse-smtp-kill")?;
    let (sink, sink_address) = Sink::start().await?;
    let plan = Plan {
        program: arguments.program.path()?,
        data: lab.path().join("data"),
        port_offset: arguments.port_offset.map_or_else(free_port_offset, Ok)?,
        environment: vec![
            ("POSTHOUSE_QUEUE__SMARTHOST".to_owned(), sink_address.to_string()),
            ("POSTHOUSE_QUEUE__SCHEDULE".to_owned(), "1s".to_owned()),
        ],
    };
    let (stop, stopped) = watch::channel(false);
    let load = Load {
        plan: plan.clone(),
        ledger: Mutex::default(),
        may_break: true,
        surprises: Mutex::default(),
        stop: stopped,
    };
    let load = Arc::new(load);
    let mut server = plan.start()?;
    tokio::task::block_in_place(|| server.wait_ready())?;
    let sessions = start_sessions(&load, seed);
    let killed = kill_often(&load, server, (seed, rounds)).await;
    stop.send_replace(true);
    let server = killed.with_context(|| format!("seed {seed}"))?;
    for session in sessions {
        session.await?;
    }
    let settled = settle(&load, &sink).await.with_context(|| format!("seed {seed}"))?;
    let (status, said) = plan.run(&["stop"])?;
    ensure!(status.success(), "posthouse stop failed: {said}");
    tokio::task::block_in_place(|| server.wait_stopped())?;
    let (status, said) = plan.run(&["check", "--store"])?;
    ensure!(status.success(), "posthouse check --store failed, seed {seed}:\n{said}");
    let surprises = load.surprises.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(surprises.is_empty(), "refused for good: {:?}, seed {seed}", surprises.iter().take(5).collect::<Vec<_>>());
    let counts = load.ledger.lock().unwrap_or_else(PoisonError::into_inner).counts();
    println!(
        "smtp-kill: {rounds} kills, {} tried, {} acknowledged, {} unanswered; lost 0, doubled 0, damaged 0, sent twice to the \
         remote host {}; the store is whole; seed {seed}",
        counts.tried, counts.acknowledged, counts.unanswered, settled.sent_twice
    );
    Ok(())
}

pub(super) fn start_sessions(load: &Arc<Load>, seed: u64) -> Vec<tokio::task::JoinHandle<()>> {
    let ways = SESSIONS.iter().flat_map(|(way, count)| (0..*count).map(move |_| *way));
    ways.zip(0..).map(|(way, session)| tokio::spawn(smtp_load::run(load.clone(), way, session, seed))).collect()
}

/// Kills and starts the server, and leaves it running.
async fn kill_often(load: &Load, mut server: Server, (seed, rounds): (u64, u32)) -> anyhow::Result<Server> {
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1500))).await;
        server.kill().with_context(|| format!("round {round}"))?;
        server = load.plan.start()?;
        // One start in eight is killed while it opens the store or takes up what was left.
        if random.random_ratio(1, 8) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
            server.kill().with_context(|| format!("round {round}, while starting"))?;
            server = load.plan.start()?;
        }
        tokio::task::block_in_place(|| server.wait_ready()).with_context(|| format!("after round {round}"))?;
        if round % 20 == 19 {
            println!("round {}: {:?}", round + 1, load.ledger.lock().unwrap_or_else(PoisonError::into_inner).counts());
        }
    }
    // Some load without a kill, so that the last start is seen to serve.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(server)
}

pub(super) struct Settled {
    pub sent_twice: usize,
}

/// Waits until everything accepted has arrived, and judges.
pub(super) async fn settle(load: &Load, sink: &Sink) -> anyhow::Result<Settled> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let mut found = read_accounts(load).await?;
        let remote = sink.taken();
        let sent_twice = remote.values().filter(|copies| **copies > 1).count();
        found.extend(remote.into_keys().map(|name| (name, 1)));
        let violations = load.ledger.lock().unwrap_or_else(PoisonError::into_inner).judge(&found);
        if violations.is_empty() {
            return Ok(Settled { sent_twice });
        }
        // What has not arrived yet may still be on its way; everything else is final.
        let may_heal = violations.iter().all(|violation| matches!(violation, Violation::Lost(_)));
        if !may_heal || Instant::now() > deadline {
            violations.iter().take(50).for_each(|violation| println!("{violation}"));
            anyhow::bail!("{} violations", violations.len());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What stands in all mailboxes of all accounts.
async fn read_accounts(load: &Load) -> anyhow::Result<HashMap<String, usize>> {
    let mut found = HashMap::new();
    for account in ACCOUNTS {
        let mut imap = Imap::connect(load.plan.address(IMAP), None, (account, PASSWORD)).await?;
        for mailbox in imap.mailboxes().await? {
            imap.read_mailbox(&mailbox, |message| {
                let name = workload::verify(message).map_err(|reason| {
                    let head = String::from_utf8_lossy(&message[..message.len().min(1500)]).into_owned();
                    anyhow::anyhow!("a message of {account} in {mailbox}: {reason}\n{head}")
                })?;
                *found.entry(format!("{name} {account}")).or_default() += 1;
                Ok(())
            })
            .await?;
        }
    }
    Ok(found)
}
