//! The hostile world: faults, workloads, oracles and load against the built program and its store.
//!
//! A scenario prints the seed that it ran with; the same seed draws the same workload and the same moments for its faults.

mod bench;
mod client;
mod disk;
mod foundationdb;
mod options;
mod oracle;
mod scenario;
mod served;
mod server;
mod sink;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// That of the program, so that what runs here costs what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "posthouse-chaos", about = "Faults, workloads and load against Posthouse")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill a process that writes to a store, again and again, and prove that nothing acknowledged is lost
    StoreKill(scenario::store_kill::Args),
    /// Cut the power under a process that writes to a store: a file system of its own is shut down, again and again
    PowerCut(scenario::power_cut::Args),
    /// The load that store-kill and power-cut run in a child process
    #[command(hide = true)]
    StoreLoad(scenario::store_load::Args),
    /// Kill FoundationDB's servers under the load of store-kill, and prove that nothing acknowledged is lost
    FdbKill(scenario::fdb_kill::Args),
    /// Kill a data node and the node that keeps its store with it, by turns and together
    ServedKill(scenario::served_kill::Args),
    /// Fill the file system under a process that writes to a store, again and again
    DiskFull(scenario::disk_full::Args),
    /// Deliveries per second of the store alone, beside the disk's own limit and Maildir files
    StoreBench(bench::store::Args),
    /// Kill the whole server under mail, again and again, and read everything back
    SmtpKill(scenario::smtp_kill::Args),
    /// Upgrade a server again and again under mail and many sessions, and see that no client notices
    Upgrade(scenario::upgrade::Args),
    /// Kill either side of an upgrade in each of its phases, and tell what clients saw
    UpgradeKill(scenario::upgrade_kill::Args),
    /// Change rows and bodies at random and see that check --store finds each change
    CheckMutate(scenario::check_mutate::Args),
    /// Mail of real sizes into the store, beside the device and Maildir files: rates, octets written, memory, restart, scan
    MailBench(bench::mail::Args),
    /// The load of mail-bench that is killed at its end
    #[command(hide = true)]
    MailFill(bench::mail::FillArgs),
    /// Messages per second over SMTP, beside Postfix with Dovecot and beside the store alone
    SmtpBench(bench::smtp::SmtpBenchArgs),
    /// The store alone of smtp-bench
    #[command(hide = true)]
    SmtpStore(bench::smtp::store::SmtpStoreArgs),
    /// Memory of many idle sessions, awake and asleep, and how long they take to answer; beside Dovecot
    Idle(bench::idle::IdleArgs),
    /// Memory of the server under long bodies, idle and busy connections
    Memory(bench::memory::MemoryArgs),
    /// CPU and latency of a TLS connection on our record stream, beside tokio-rustls
    TlsBench(bench::tls::TlsBenchArgs),
    /// One of the two servers of tls-bench
    #[command(hide = true)]
    TlsServe(bench::tls::TlsServeArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::StoreKill(arguments) => scenario::store_kill::run(&arguments),
        Command::PowerCut(arguments) => scenario::power_cut::run(&arguments),
        Command::StoreLoad(arguments) => scenario::store_load::run(&arguments),
        Command::FdbKill(arguments) => scenario::fdb_kill::run(&arguments),
        Command::ServedKill(arguments) => scenario::served_kill::run(&arguments),
        Command::DiskFull(arguments) => scenario::disk_full::run(&arguments),
        Command::StoreBench(arguments) => bench::store::run(&arguments),
        Command::SmtpKill(arguments) => block_on(scenario::smtp_kill::run(&arguments)),
        Command::Upgrade(arguments) => block_on(scenario::upgrade::run(&arguments)),
        Command::UpgradeKill(arguments) => block_on(scenario::upgrade_kill::run(&arguments)),
        Command::CheckMutate(arguments) => block_on(scenario::check_mutate::run(&arguments)),
        Command::MailBench(arguments) => bench::mail::run(&arguments),
        Command::MailFill(arguments) => block_on(bench::mail::fill(&arguments)),
        Command::SmtpBench(arguments) => bench::smtp::run(&arguments),
        Command::SmtpStore(arguments) => block_on(bench::smtp::store::serve(&arguments)),
        Command::Idle(arguments) => block_on(bench::idle::run(&arguments)),
        Command::Memory(arguments) => block_on(bench::memory::run(&arguments)),
        Command::TlsBench(arguments) => block_on(bench::tls::run(&arguments)),
        Command::TlsServe(arguments) => bench::tls::serve(&arguments),
    };
    posthouse_storage::Store::finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program that waits on many things at once.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
