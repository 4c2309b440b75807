//! The command line: every command with its arguments, one file each.
//!
//! Exit codes: 0 done, 1 failed, 2 usage. Results go to standard output, everything else to standard error.

mod account;
mod admin_client;
mod alias;
mod backup;
mod certificate;
mod check;
mod demo;
mod domain;
mod drain;
mod init;
mod key;
mod output;
mod queue;
mod restore;
mod serve;
mod site;
mod status;
mod stop;
mod upgrade;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use output::Output;
use posthouse_conf::Settings;

/// Posthouse: a mail server where the mail never stops.
#[derive(Parser)]
#[command(name = "posthouse", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// Print results as JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a complete mail server on 127.0.0.1 with accounts to try it with.
    Demo(demo::DemoArgs),
    /// Write a configuration, keys, the store and the first administrator of a new site.
    Init(init::InitArgs),
    /// Run a node in the foreground.
    Serve(serve::ServeArgs),
    /// Hand a running node's sessions to a new program, without dropping one.
    Upgrade(upgrade::UpgradeArgs),
    /// End a running node cleanly.
    Stop(stop::StopArgs),
    /// Let the clients of a running node go, and take no new ones.
    Drain(drain::DrainArgs),
    /// Check the configuration and what it needs, or with --store the store.
    Check(check::CheckArgs),
    /// Accounts.
    Account(account::AccountArgs),
    /// Local domains.
    Domain(domain::DomainArgs),
    /// Aliases: addresses that stand for others.
    Alias(alias::AliasArgs),
    /// Messages waiting for other servers.
    Queue(queue::QueueArgs),
    /// The keys that bodies in the store are encrypted under.
    Key(key::KeyArgs),
    /// Make the certificate by which a node is known to the other nodes of its cluster.
    Certificate(certificate::CertificateArgs),
    /// Take a backup of the site, list its points, prune them.
    Backup(backup::BackupArgs),
    /// Bring back a whole site, an account or a mailbox from a backup.
    Restore(restore::RestoreArgs),
    /// What a running node is doing.
    Status(SiteArgs),
    /// The version of this program.
    Version,
}

/// Which node a command is for.
#[derive(Args, Clone)]
struct SiteArgs {
    /// The configuration file of the node.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The data folder of a demo.
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "config")]
    data: Option<PathBuf>,
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let mut cli = Cli::parse();
    let output = Output::new(cli.json);
    let threads = cli.command.blocking_threads();
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&anyhow::Error::new(error).context("the runtime did not start")),
    };
    let done = runtime.block_on(dispatch(cli.command, output));
    // Whatever still runs then has had its time to finish; a blocked thread must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    posthouse_storage::Store::finish();
    match done {
        Ok(code) => code,
        Err(error) => output.fail(&error),
    }
}

impl Command {
    /// Threads for what blocks, as the node is configured. What is wrong with a configuration the command itself says.
    fn blocking_threads(&mut self) -> usize {
        let max = match self {
            Self::Serve(arguments) => arguments.settings().as_ref().ok().map(|read| read.node.blocking_threads_max),
            _ => Settings::default().overridden(site::environment()).ok().map(|own| own.node.blocking_threads_max),
        };
        max.unwrap_or(Settings::default().node.blocking_threads_max).max(1)
    }
}

async fn dispatch(command: Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(arguments, output).await,
        Command::Init(arguments) => init::run(arguments, output).await,
        Command::Serve(arguments) => serve::run(arguments, output).await,
        Command::Upgrade(arguments) => upgrade::run(arguments, output).await,
        Command::Stop(arguments) => stop::run(arguments, output).await,
        Command::Drain(arguments) => drain::run(arguments, output).await,
        Command::Check(arguments) => check::run(arguments, output).await,
        Command::Account(arguments) => account::run(arguments, output).await,
        Command::Domain(arguments) => domain::run(arguments, output).await,
        Command::Alias(arguments) => alias::run(arguments, output).await,
        Command::Queue(arguments) => queue::run(arguments, output).await,
        Command::Key(arguments) => key::run(arguments, output).await,
        Command::Certificate(arguments) => certificate::run(arguments, output),
        Command::Backup(arguments) => backup::run(arguments, output).await,
        Command::Restore(arguments) => restore::run(arguments, output).await,
        Command::Status(site) => status::run(site, output).await,
        Command::Version => version::run(output),
    }
}
