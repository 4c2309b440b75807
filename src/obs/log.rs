//! Where log lines go: standard error, as text for people or JSON for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Trace,
}

/// Starts logging, once per process; a second call changes nothing. Libraries of others are heard from `warn` on.
pub fn init(level: Level, json: bool) {
    let ours = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new().with_default(LevelFilter::ERROR).with_target("posthouse", ours);
    let registry = tracing_subscriber::registry().with(filter);
    // Only the first call in a process can set the subscriber; tests start several servers in one.
    let _ = if json {
        registry
            .with(tracing_subscriber::fmt::layer().json().with_target(false).with_writer(std::io::stderr))
            .try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr);
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
    };
}
