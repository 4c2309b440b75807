//! Commands of the administrator: takes them from the admin socket, runs them, answers.
//!
//! Owns: the admin socket.   Receives: Accept.   Sends: requests to mailboxes, domains, queues; reads of the store.
//! Bounds: CONNECTIONS_MAX at once, REQUEST_MAX octets a request, REQUEST_WAIT for one to arrive.
//! On failure: the node restarts it; a command that it was running fails at its client.   Standards: none.

mod account;
mod backup;
mod check;
mod domain;
mod queue;
mod request;
mod upgrade;

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use posthouse_net::local_socket::{self, AdminStream};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc};

pub use request::*;

use crate::clock;
use crate::node::{Pace, Services, Wish, drain_once};

/// Commands under way at once.
const CONNECTIONS_MAX: usize = 32;
/// Octets in one request.
const REQUEST_MAX: u64 = 1 << 20;
/// Longest wait for a request on an open connection.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// Hears how far a long command is: done, total, what.
pub type Progress<'a> = &'a (dyn Fn(u64, u64, &str) + Send + Sync);

/// Runs commands, from the socket or from within the program.
#[derive(Clone)]
pub struct Admin {
    services: Arc<Services>,
}

/// A command's end: a view as JSON, or what went wrong in words for a person.
pub type AdminResult = Result<Value, String>;

impl Admin {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services }
    }

    /// Runs one command to its end.
    pub async fn run(&self, request: AdminRequest, progress: Progress<'_>) -> AdminResult {
        let services = &self.services;
        match request {
            AdminRequest::Status => view(&services.status().await?),
            AdminRequest::Stop => {
                services.request_stop()?;
                Ok(json!({ "stopping": true }))
            }
            AdminRequest::Drain { now, stop } => {
                let pace = if now { Pace::AT_ONCE } else { services.pace() };
                let drained = drain_once(services.clone(), pace, progress).await?;
                if stop {
                    services.request_stop()?;
                }
                view(&drained)
            }
            AdminRequest::Upgrade { program, in_place } => {
                upgrade::run(services, Wish { program, in_place, console: None }, progress).await
            }
            AdminRequest::RepairStore => check::repair(services, progress).await,
            AdminRequest::CheckStore { bodies } => check::store(services, bodies, progress).await,
            AdminRequest::KeyRotate => {
                let key = services.store.rotate_key(clock::now()).await.map_err(words)?;
                view(&KeyView { key: key.to_string() })
            }
            AdminRequest::Backup { target } => backup::take(services, target, progress).await,
            AdminRequest::Restore(order) => backup::restore(services, order, progress).await,
            AdminRequest::AccountCreate { .. }
            | AdminRequest::AccountList { .. }
            | AdminRequest::AccountShow { .. }
            | AdminRequest::AccountSet { .. }
            | AdminRequest::AccountDelete { .. } => account::run(services, request).await,
            AdminRequest::DomainCreate { .. }
            | AdminRequest::DomainList
            | AdminRequest::DomainShow { .. }
            | AdminRequest::DomainSet { .. }
            | AdminRequest::DomainDelete { .. }
            | AdminRequest::DomainDns { .. }
            | AdminRequest::DomainRotateKeys { .. }
            | AdminRequest::DomainRemoveKey { .. }
            | AdminRequest::AliasCreate { .. }
            | AdminRequest::AliasList { .. }
            | AdminRequest::AliasShow { .. }
            | AdminRequest::AliasSet { .. }
            | AdminRequest::AliasDelete { .. } => domain::run(services, request).await,
            AdminRequest::QueueList { .. }
            | AdminRequest::QueueShow { .. }
            | AdminRequest::QueueRetry { .. }
            | AdminRequest::QueueBounce { .. } => queue::run(services, request).await,
        }
    }
}

/// A view as JSON.
fn view<T: serde::Serialize>(value: &T) -> AdminResult {
    serde_json::to_value(value).map_err(words)
}

/// An error in words for a person.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Takes connections on the admin socket.
pub(crate) struct AdminActor;

pub(crate) enum AdminMsg {
    Accept,
}

impl ractor::Message for AdminMsg {}

pub(crate) struct AdminState {
    admin: Admin,
    listener: local_socket::AdminListener,
    connections: Arc<Semaphore>,
}

impl Actor for AdminActor {
    type Msg = AdminMsg;
    type State = AdminState;
    type Arguments = Admin;

    async fn pre_start(&self, myself: ActorRef<AdminMsg>, admin: Admin) -> Result<AdminState, ActorProcessingErr> {
        let listener = local_socket::bind(&admin.services.settings.node.data_dir)?;
        myself.cast(AdminMsg::Accept)?;
        Ok(AdminState { admin, listener, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    async fn handle(
        &self,
        myself: ActorRef<AdminMsg>,
        _message: AdminMsg,
        state: &mut AdminState,
    ) -> Result<(), ActorProcessingErr> {
        let permit = state.connections.clone().acquire_owned().await?;
        let stream = local_socket::accept(&state.listener).await?;
        let admin = state.admin.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle has nobody left to hear of it.
            let _ = serve(admin, stream).await;
            drop(permit);
        });
        myself.cast(AdminMsg::Accept)?;
        Ok(())
    }
}

/// One request and its answer.
async fn serve(admin: Admin, stream: AdminStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_MAX));
    tokio::time::timeout(REQUEST_WAIT, reader.read_line(&mut line)).await??;
    let (progress, mut steps) = mpsc::channel(16);
    let request = serde_json::from_str(&line);
    let ends = matches!(request, Ok(AdminRequest::Stop));
    // The answer may come from another program than the one that was asked.
    let console = write.as_ref().as_fd().try_clone_to_owned().ok();
    let work = async {
        match request {
            Ok(request) => {
                let report = |done, total, what: &str| {
                    // A step that nobody has read yet is as good as the next one.
                    let _ = progress.try_send(AdminLine::Progress { done, total, what: what.to_owned() });
                };
                match request {
                    AdminRequest::Upgrade { program, in_place } => {
                        upgrade::run(&admin.services, Wish { program, in_place, console }, &report).await
                    }
                    request => admin.run(request, &report).await,
                }
            }
            Err(error) => Err(format!("the command is not understood: {error}")),
        }
    };
    tokio::pin!(work);
    let answer = loop {
        tokio::select! {
            Some(step) = steps.recv() => send(&mut write, &step).await?,
            answer = &mut work => break answer,
        }
    };
    let last = match answer {
        Ok(value) => AdminLine::Done(value),
        Err(reason) => AdminLine::Failed(reason),
    };
    send(&mut write, &last).await?;
    if ends {
        // Whoever waits for the end of the process hears it by this connection's.
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

async fn send(write: &mut (impl tokio::io::AsyncWrite + Unpin), line: &AdminLine) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}
