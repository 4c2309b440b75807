//! `posthouse serve`: runs a node in the foreground until a signal or `posthouse stop` ends it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::node::Node;
use posthouse_conf::Settings;
use posthouse_conf::observe::{LogFormat, LogLevel};
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::site;

#[derive(Args)]
pub struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub async fn run(arguments: ServeArgs, output: Output) -> anyhow::Result<ExitCode> {
    let settings = site::load(&arguments.config)?;
    start_logging(&settings);
    let node = Node::start(settings).await?;
    until_stopped(node, output).await
}

/// Log lines to standard error as the configuration says.
pub fn start_logging(settings: &Settings) {
    let level = match settings.observe.log_level {
        LogLevel::Error => posthouse_obs::log::Level::Error,
        LogLevel::Warn => posthouse_obs::log::Level::Warn,
        LogLevel::Info => posthouse_obs::log::Level::Info,
        LogLevel::Trace => posthouse_obs::log::Level::Trace,
    };
    posthouse_obs::log::init(level, settings.observe.log_format == LogFormat::Json);
}

/// Opens the listeners, says `ready`, and ends the node when asked to.
pub async fn until_stopped(node: Node, output: Output) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?;
    let node = Arc::new(node);
    if let Err(error) = node.listen().await {
        node.stop().await;
        return Err(error.into());
    }
    println!("ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = node.stop_requested() => break,
            _ = hang_up.recv() => match node.reload_certificate() {
                Ok(()) => output.note("the certificate was read anew"),
                Err(error) => output.note(&format!("the certificate stays as it was: {error}")),
            },
        }
    }
    output.note("stopping: sessions finish what they are doing (a second signal ends at once)");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tokio::select! {
        () = node.stop() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Whoever runs a node that failed starts it anew.
    Ok(if node.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
