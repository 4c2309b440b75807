//! `posthouse serve`: runs a node in the foreground until a signal or `posthouse stop` ends it, or another process takes over.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::node::{
    Form, HandoverFailure, KEEP, Node, Order, Successor, TAKE_OVER, UpgradeOrder, UpgradeView, custody, keep,
    own_program, settings_before, take_over,
};
use posthouse_conf::Settings;
use posthouse_conf::observe::{LogFormat, LogLevel};
use posthouse_conf::upgrade::InPlace;
use posthouse_obs::emit;
use posthouse_obs::event::handover::{UpgradeGivenUp, UpgradeRefused, UpgradeTakenBack};
use posthouse_obs::event::net::{OpenFilesNotRaised, OpenFilesRaised};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::{Output, say};
use super::site;

#[derive(Args)]
pub struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What was read there.
    #[arg(skip)]
    read: Option<anyhow::Result<Arc<Settings>>>,
}

impl ServeArgs {
    /// The settings of the file, or what the program before had where this one is to go on as that did. Read once: who asks
    /// before the command runs sees what it will run on.
    pub fn settings(&mut self) -> &anyhow::Result<Arc<Settings>> {
        self.read.get_or_insert_with(|| read(&self.config))
    }
}

fn read(config: &Path) -> anyhow::Result<Arc<Settings>> {
    settings_before().map_or_else(|| site::load(config), |before| Ok(Arc::new(before)))
}

pub async fn run(mut arguments: ServeArgs, output: Output) -> anyhow::Result<ExitCode> {
    let settings = arguments.read.take().unwrap_or_else(|| read(&arguments.config))?;
    start_logging(&settings);
    live(settings, output, async |_| Ok(())).await
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

/// Signals that a node obeys.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?,
            hang_up: signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Whether one has come that ends the node.
    async fn have_come(&mut self) -> bool {
        tokio::select! {
            biased;
            () = tokio::task::unconstrained(self.end()) => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// A node's whole life: it starts, or takes over from the process that asked for it, says `ready`, and serves until it is told to
/// end or has handed everything on. `prepare` runs before anybody can connect to a node that starts.
pub async fn live(
    settings: Arc<Settings>,
    output: Output,
    prepare: impl AsyncFnOnce(&Node) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    raise_open_files();
    let mut signals = Signals::watch()?;
    let mut node = match (std::env::var_os(TAKE_OVER), std::env::var(KEEP)) {
        (Some(socket), Ok(forms)) => {
            keep(settings, Path::new(&socket), &forms, signals.end()).await?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some(socket), Err(_)) => take_over(settings.clone(), Path::new(&socket)).await?,
        (None, _) => match custody(&settings) {
            Some(socket) => take_over(settings.clone(), &socket).await?,
            None => begin(settings.clone(), prepare).await?,
        },
    };
    say("ready");
    say_serving();
    while let Some(order) = next_order(&node, &mut signals, output).await {
        match upgrade(node, &settings, order, &mut signals).await? {
            After::Serve(still) => node = still,
            After::End(still) => {
                node = still;
                break;
            }
            After::Leave => return Ok(ExitCode::SUCCESS),
        }
    }
    output.note("stopping: sessions finish what they are doing (a second signal ends at once)");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tokio::select! {
        () = node.stop() => {}
        () = signals.end() => {}
    }
    // Whoever runs a node that failed starts it anew.
    Ok(if node.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Each session needs a descriptor, and a service starts with few.
fn raise_open_files() {
    match posthouse_net::open_files::raise() {
        Ok(raised) if raised.from == raised.to => {}
        Ok(raised) => {
            let (from, to) = (raised.from.unwrap_or(u64::MAX), raised.to.unwrap_or(u64::MAX));
            emit(OpenFilesRaised { from, to });
        }
        Err(error) => emit(OpenFilesNotRaised { reason: error.to_string() }),
    }
}

async fn begin(
    settings: Arc<Settings>,
    prepare: impl AsyncFnOnce(&Node) -> anyhow::Result<()>,
) -> anyhow::Result<Node> {
    let node = Node::start(settings).await?;
    let open = async {
        // Before anything is put into a store that is half there.
        node.refuse_half_restored().await?;
        prepare(&node).await?;
        node.listen().await.map_err(anyhow::Error::from)
    };
    let opened = open.await;
    match opened {
        Ok(()) => Ok(node),
        Err(error) => {
            node.stop().await;
            Err(error)
        }
    }
}

/// The service manager is to follow this process.
fn say_serving() {
    let main = sd_notify::NotifyState::MainPid(std::process::id());
    let _ = sd_notify::notify(&[main, sd_notify::NotifyState::Ready]);
}

/// The service manager is to follow that process. It has to know before this one has ended, which would be the end of the
/// service, and the new one may not have come to saying so.
fn say_successor(pid: u32) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)]);
}

/// The next order to hand everything on; none when the node is to end.
async fn next_order(node: &Node, signals: &mut Signals, output: Output) -> Option<UpgradeOrder> {
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return None,
            _ = signals.terminate.recv() => return None,
            () = node.stop_requested() => return None,
            Order::Upgrade(order) = node.ordered() => return Some(order),
            _ = signals.hang_up.recv() => match node.reload_certificate() {
                Ok(()) => output.note("the certificate was read anew"),
                Err(error) => output.note(&format!("the certificate stays as it was: {error}")),
            },
        }
    }
}

/// What there is to do after an upgrade.
enum After {
    /// It did not come about, and the node serves.
    Serve(Node),
    /// It did not come about, and the node was told to end.
    End(Node),
    /// Another process has everything.
    Leave,
}

/// Hands the node to a new program. Whoever told it to end meanwhile is obeyed: by this process, or by the one that serves then.
async fn upgrade(
    node: Node,
    settings: &Arc<Settings>,
    mut order: UpgradeOrder,
    signals: &mut Signals,
) -> anyhow::Result<After> {
    let in_place = order.in_place || stays_in_place(settings.upgrade.in_place);
    let form = if in_place { Form::InPlace { console: order.take_console() } } else { Form::Beside };
    let handed = match hand_over(&node, &order, form, signals).await {
        Err(HandoverFailure::Untouched(reason)) => {
            emit(UpgradeRefused { reason: reason.clone() });
            order.answer(Err(format!("{reason}; the node serves as before"))).await;
            return Ok(After::Serve(node));
        }
        Err(HandoverFailure::Stopping) => {
            emit(UpgradeGivenUp {});
            order.answer(Err("the node was told to end, and ends".to_owned())).await;
            return Ok(After::End(node));
        }
        Err(HandoverFailure::Closed { reason, remains }) => Err((reason, remains)),
        Ok(view) => Ok(view),
    };
    // The node is closed, so its last word is known.
    let stop = signals.have_come().await || node.was_told_to_end();
    let (reason, remains) = match handed {
        Err(back) => back,
        Ok(view) if in_place => {
            let remains = Node::become_program(settings, order.program.as_deref(), view, stop).await;
            remains.map_err(anyhow::Error::msg)?
        }
        Ok(view) => {
            let pid = view.pid;
            say_successor(pid);
            view.note();
            order.answer(Ok(view)).await;
            if stop || signals.have_come().await {
                posthouse_net::descriptors::ask_to_end(pid);
            }
            return Ok(After::Leave);
        }
    };
    let node = node.take_back(remains).await.context(reason.clone())?;
    // The new program may have told the service manager of itself.
    say_serving();
    emit(UpgradeTakenBack { reason: reason.clone() });
    order.answer(Err(format!("{reason}; the program before goes on"))).await;
    Ok(if stop { After::End(node) } else { After::Serve(node) })
}

/// Starts the new program and hands it everything, unless this one is told to end before.
async fn hand_over(
    node: &Node,
    order: &UpgradeOrder,
    form: Form,
    signals: &mut Signals,
) -> Result<UpgradeView, HandoverFailure> {
    let mut stop = pin!(async {
        tokio::select! {
            () = signals.end() => {}
            () = node.stop_requested() => {}
        }
    });
    let successor = tokio::select! {
        biased;
        () = &mut stop => return Err(HandoverFailure::Stopping),
        successor = successor(node, order, form) => successor.map_err(HandoverFailure::Untouched)?,
    };
    node.hand_over(successor, stop, &|done, total, what| order.step(done, total, what)).await
}

/// Whoever runs process 1 follows that process only.
fn stays_in_place(in_place: InPlace) -> bool {
    match in_place {
        InPlace::Auto => std::process::id() == 1,
        InPlace::Always => true,
        InPlace::Never => false,
    }
}

async fn successor(node: &Node, order: &UpgradeOrder, form: Form) -> Result<Successor, String> {
    let own = || own_program().map_err(|error| format!("this program is not known by its path: {error}"));
    let program = order.program.clone().map_or_else(own, Ok)?;
    Successor::start(&program, node, form).await
}
