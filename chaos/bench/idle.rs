//! Many idle IMAP sessions under TLS, half of them in IDLE: memory of each, and how long one takes to answer, awake and asleep;
//! Posthouse beside Dovecot, with the same client.
//!
//! Memory is the growth of all processes of a server from before the first session, divided by the sessions: resident, and
//! proportional (what several processes share counts once). Buffers in the kernel are in neither.

mod client;
mod dovecot;
mod posthouse;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

use client::{Client, Place};
use dovecot::Dovecot;
use posthouse::Posthouse;

use crate::options::Program;

#[derive(Args)]
pub struct IdleArgs {
    #[command(flatten)]
    program: Program,
    /// Which servers, one after the other.
    #[arg(long, value_delimiter = ',', default_values = ["posthouse"])]
    servers: Vec<Kind>,
    /// Sessions.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Sessions of a Dovecot, each of which is a process.
    #[arg(long, default_value_t = 1000)]
    dovecot_sessions: usize,
    /// Accounts that they belong to.
    #[arg(long, default_value_t = 100)]
    accounts: usize,
    /// Answers that are timed, of each kind.
    #[arg(long, default_value_t = 2000)]
    answers: usize,
    /// After how many seconds a session sleeps: long enough for all to be there before the first one does.
    #[arg(long, default_value_t = 60)]
    sleep_after: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Posthouse,
    Dovecot,
    /// With imap-hibernate.
    DovecotHibernating,
}

/// A server that this program started; it ends when dropped.
trait Subject {
    fn place(&self) -> Place;

    /// Its processes.
    fn processes(&self) -> anyhow::Result<Vec<u32>>;

    /// Sessions that sleep at the moment, of so many that are open.
    fn asleep(&self, open: usize) -> anyhow::Result<usize>;

    /// How many of so many sessions can sleep, half of which are in IDLE.
    fn sleepers(&self, sessions: usize) -> usize;

    fn name(&self) -> &'static str;
}

/// Connections that are made at once.
const AT_ONCE: usize = 32;
/// For memory to settle.
const SETTLE: Duration = Duration::from_secs(2);
/// For all to fall asleep, beside the time that they wait.
const ASLEEP_MAX: Duration = Duration::from_secs(60);

pub async fn run(arguments: &IdleArgs) -> anyhow::Result<()> {
    let raised = posthouse_net::open_files::raise()?;
    let files = usize::try_from(raised.to.unwrap_or(u64::MAX))?;
    ensure!(files > arguments.sessions + 100, "{files} open files are too few");
    let lab = tempfile::Builder::new().prefix("posthouse-idle").tempdir()?;
    std::fs::set_permissions(lab.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for kind in &arguments.servers {
        match kind {
            Kind::Posthouse => {
                let server = Posthouse::start(arguments, &lab.path().join("posthouse")).await?;
                measure(&server, arguments, arguments.sessions).await?;
            }
            Kind::Dovecot | Kind::DovecotHibernating => {
                let hibernates = *kind == Kind::DovecotHibernating;
                let folder = lab.path().join(if hibernates { "hibernating" } else { "dovecot" });
                let server = Dovecot::start(arguments, &folder, hibernates)?;
                measure(&server, arguments, arguments.dovecot_sessions).await?;
            }
        }
    }
    Ok(())
}

/// The sessions of one server.
struct Crowd {
    /// In IDLE, by account.
    idling: Vec<Vec<Client>>,
    listening: Vec<Client>,
    /// One for each account, to change its mailbox.
    writers: Vec<Client>,
}

async fn measure(server: &impl Subject, arguments: &IdleArgs, sessions: usize) -> anyhow::Result<()> {
    let name = server.name();
    let place = server.place();
    let mut writers = Vec::new();
    for account in 0..arguments.accounts {
        writers.push(Client::log_in(&place, account).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let before = Memory::of(server)?;
    let began = Instant::now();
    let mut crowd = gather(&place, arguments.accounts, sessions, writers).await?;
    println!("{name}: {sessions} sessions, {:.1} s to connect", began.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    let open = sessions + arguments.accounts;
    let asleep = server.asleep(open)?;
    Memory::of(server)?.print(name, "awake", before, sessions, asleep);
    // Those that are used now sleep later than the others, and are not used again.
    let count = arguments.answers.min(crowd.listening.len() / 2);
    time_answers(name, "awake", &mut crowd.listening[..count]).await?;
    time_notices(name, "awake", &mut crowd, arguments.answers).await?;
    let sleepers = server.sleepers(sessions);
    if sleepers == 0 {
        return Ok(());
    }
    let until = Instant::now() + Duration::from_secs(arguments.sleep_after) + ASLEEP_MAX;
    while server.asleep(open)? < sleepers {
        ensure!(Instant::now() < until, "only {} of {sleepers} sessions sleep", server.asleep(open)?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(SETTLE).await;
    Memory::of(server)?.print(name, "asleep", before, sessions, server.asleep(open)?);
    if sleepers == open {
        time_answers(name, "asleep", &mut crowd.listening[count..2 * count]).await?;
    }
    time_notices(name, "asleep", &mut crowd, arguments.answers).await
}

async fn gather(place: &Place, accounts: usize, sessions: usize, writers: Vec<Client>) -> anyhow::Result<Crowd> {
    let (mut idling, mut listening): (Vec<Vec<Client>>, _) = ((0..accounts).map(|_| Vec::new()).collect(), Vec::new());
    let (mut connecting, mut next) = (JoinSet::new(), 0);
    while next < sessions || !connecting.is_empty() {
        while next < sessions && connecting.len() < AT_ONCE {
            let (place, number) = (place.clone(), next);
            connecting.spawn(async move {
                let account = number % accounts;
                let mut client = Client::log_in(&place, account).await?;
                let idles = (number / accounts).is_multiple_of(2);
                if idles {
                    client.idle().await?;
                }
                anyhow::Ok((account, idles, client))
            });
            next += 1;
        }
        let (account, idles, client) = connecting.join_next().await.context("a connection")??.context("a client")?;
        if idles { idling[account].push(client) } else { listening.push(client) }
    }
    Ok(Crowd { idling, listening, writers })
}

/// One NOOP after the other, each in a session of its own.
async fn time_answers(name: &str, state: &str, clients: &mut [Client]) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(clients.len());
    for client in clients {
        let began = Instant::now();
        client.noop().await?;
        times.push(began.elapsed());
    }
    print_times(name, state, "NOOP to OK", times);
    Ok(())
}

/// A message in a mailbox, and the EXISTS that each session in IDLE there hears of it.
async fn time_notices(name: &str, state: &str, crowd: &mut Crowd, answers: usize) -> anyhow::Result<()> {
    let (mut times, mut used) = (Vec::new(), 0);
    for (idling, writer) in crowd.idling.iter_mut().zip(&mut crowd.writers) {
        if times.len() >= answers {
            break;
        }
        used += 1;
        let began = Instant::now();
        let mut hearing = JoinSet::new();
        for mut client in idling.drain(..) {
            hearing.spawn(async move {
                client.exists().await?;
                anyhow::Ok((client, began.elapsed()))
            });
        }
        writer.append().await?;
        while let Some(heard) = hearing.join_next().await {
            let (client, time) = heard??;
            idling.push(client);
            times.push(time);
        }
    }
    // Whoever was used comes last the next time.
    crowd.idling.rotate_left(used);
    crowd.writers.rotate_left(used);
    print_times(name, state, "APPEND to EXISTS", times);
    Ok(())
}

fn print_times(name: &str, state: &str, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).or(times.last()).map_or(0.0, Duration::as_secs_f64);
    let (p50, p99) = (at(50) * 1000.0, at(99) * 1000.0);
    println!("{name:<20} {state:<7} {what:<17} p50 {p50:>7.2} ms  p99 {p99:>7.2} ms  of {}", times.len());
}

/// Kibibytes of all processes of a server.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    processes: usize,
    resident: u64,
    proportional: u64,
    anonymous: u64,
}

impl Memory {
    fn of(server: &impl Subject) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for process in server.processes()? {
            // One that ended meanwhile has none.
            let Ok(rollup) = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")) else { continue };
            let kibibytes = |key: &str| -> u64 {
                let line = rollup.lines().find(|line| line.starts_with(key));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
            };
            sum.processes += 1;
            sum.resident += kibibytes("Rss:");
            sum.proportional += kibibytes("Pss:");
            sum.anonymous += kibibytes("Anonymous:");
        }
        ensure!(sum.processes > 0, "{} has no process", server.name());
        Ok(sum)
    }

    fn print(self, name: &str, state: &str, before: Self, sessions: usize, asleep: usize) {
        let each = |now: u64, then: u64| (now as f64 - then as f64) / sessions as f64;
        println!(
            "{name:<20} {state:<7} {asleep:>6} asleep, {:>5} processes, Pss {:>7.1} MiB; a session: Pss {:>7.2} KiB, anonymous {:>7.2} KiB, \
             Rss {:>7.2} KiB",
            self.processes,
            self.proportional as f64 / 1024.0,
            each(self.proportional, before.proportional),
            each(self.anonymous, before.anonymous),
            each(self.resident, before.resident),
        );
    }
}
