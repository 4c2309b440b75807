//! The beginning of a node that takes over from the process before, or from the node that this process was.
//!
//! The other half of `handover.rs`: sockets first, the store when it is free, then sessions, each batch checked as a whole
//! before any of it may run here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use posthouse_cluster::handoff::{Door, HandoffError, Parcel, Refusal, Taker};
use posthouse_conf::Settings;
use posthouse_obs::emit;
use posthouse_obs::event::handover::{HandoverCutShort, SessionNotResumed, SessionsMovedIn, StoreAwaited};
use thiserror::Error;
use tokio::time::Instant;

use super::arrivals::Arrival;
use super::custody::{Carried, FORMS, Forms, Luggage};
use super::handover::Remains;
use super::loaded::Loaded;
use super::parcel::unpack;
use super::rehearsal::{Rehearsed, rehearse};
use super::successor::{TAKE_OVER, hello, limits};
use super::{Node, StartError};

/// How long another process that has the store is waited for: longer than a command on a stopped node takes.
pub(super) const LOCKED_MAX: Duration = Duration::from_secs(10);
const LOCKED_PAUSE: Duration = Duration::from_millis(50);

/// Why this process does not serve.
#[derive(Debug, Error)]
pub enum TakeoverError {
    #[error("the process to take over from: {0}")]
    Giver(#[from] HandoffError),
    #[error(transparent)]
    Start(#[from] StartError),
    /// It was to take the place of a process that serves, and would not do.
    #[error("{0}")]
    Rehearsal(String),
}

/// Takes over from the process that waits behind the socket; returns a node that serves.
pub async fn take_over(settings: Arc<Settings>, socket: &Path) -> Result<Node, TakeoverError> {
    let carried = Carried::read();
    // The one before serves, and goes on if this process says no. From a custodian there is nobody to go on.
    let is_beside = std::env::var_os(TAKE_OVER).is_some() && carried.is_none();
    let mut luggage = Luggage::default();
    let reached = match is_beside {
        true => reach_beside(&settings, socket, &mut luggage).await,
        false => reach_custodian(&settings, socket, &mut luggage).await,
    };
    let Reached { mut taker, doors, loaded } = match reached {
        Ok(reached) => reached,
        // The custodian is gone, with all that it kept, and nobody else serves.
        Err(TakeoverError::Giver(error)) if !is_beside => {
            emit(HandoverCutShort { reason: error.to_string() });
            let _ = std::fs::remove_file(socket);
            let loaded = Loaded::read(&settings)?;
            let node = begin(settings, Vec::new(), loaded, LOCKED_MAX).await?;
            if let Err(error) = node.open_gate().await {
                emit(HandoverCutShort { reason: error.to_string() });
            }
            node.services.departure.arrived();
            if let Some(carried) = carried {
                node.obey(&carried);
                carried.finish_without(luggage, error.to_string()).await;
            }
            return Ok(node);
        }
        Err(error) => return Err(error),
    };
    // Whoever serves again if this takes too long must hear before it has waited in vain.
    let patience = if is_beside { LOCKED_MAX.min(settings.upgrade.start_limit.get() / 2) } else { LOCKED_MAX };
    let begun = match loaded.map_or_else(|| Loaded::read(&settings), Ok) {
        Ok(loaded) => begin(settings.clone(), doors, loaded, patience).await,
        Err(error) => Err(error),
    };
    let node = match begun {
        Ok(node) => node,
        Err(error) => {
            // Whether it hears why or only that we end: it takes everything back.
            let _ = taker.refuse(&words(&error)).await;
            return Err(match carried {
                Some(carried) => TakeoverError::Rehearsal(carried.give_up(words(&error), &luggage, &settings)),
                None => error.into(),
            });
        }
    };
    let mut arrivals = Arrived { since: carried.as_ref().map(Carried::handed_on), ..Arrived::default() };
    let mut received = receive(&node, &mut taker, &mut arrivals).await;
    if received.is_err() && !is_beside && arrivals.is_empty() {
        // The store took so long that the custodian gave this process up: it waits for the next one, which may be this one.
        received = ask_again(&node, socket, &mut arrivals).await;
    }
    // From now on nobody takes the store back. A gate that stays shut costs nothing but the newer format.
    let opened = node.open_gate().await.map_err(|error| error.to_string());
    if let Err(reason) = received.map_err(|error| error.to_string()).and(opened) {
        // What a process that has gone still had is lost with it; what came over stays.
        emit(HandoverCutShort { reason });
    }
    node.services.departure.arrived();
    if let Some(carried) = carried {
        node.obey(&carried);
        carried.finish(luggage, arrivals.times, arrivals.refused).await;
    }
    Ok(node)
}

/// What became of the sessions that came.
#[derive(Default)]
struct Arrived {
    /// When they were given to the custodian, where there was one.
    since: Option<SystemTime>,
    /// For each, how long after that it went on.
    times: Vec<Duration>,
    refused: usize,
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.times.is_empty() && self.refused == 0
    }
}

/// The sessions alone: the listeners are here already, and the store is open.
async fn ask_again(node: &Node, socket: &Path, arrived: &mut Arrived) -> Result<(), HandoffError> {
    let mut taker = Taker::connect(socket, hello(), limits(&node.services.settings.upgrade)).await?;
    taker.doors().await?;
    taker.ready().await?;
    taker.store_is_free().await?;
    receive(node, &mut taker, arrived).await
}

/// The process before, its listeners, and the store, which is free; the luggage is told as soon as it is here.
struct Reached {
    taker: Taker,
    doors: Vec<Door>,
    /// Read at the rehearsal, where there was one.
    loaded: Option<Loaded>,
}

/// From a process that serves until this one has said that it can.
async fn reach_beside(settings: &Settings, socket: &Path, luggage: &mut Luggage) -> Result<Reached, TakeoverError> {
    let mut taker = Taker::connect(socket, hello(), limits(&settings.upgrade)).await?;
    let doors;
    (*luggage, doors) = Luggage::of(taker.doors().await?);
    // A program before that does not tell its forms is not asked.
    let fits = std::env::var(FORMS).map_or(Ok(()), |forms| Forms::check_told(&forms, settings));
    let Rehearsed { loaded, doors } = match fits.and_then(|()| rehearse(settings, doors)) {
        Ok(rehearsed) => rehearsed,
        Err(reason) => {
            taker.refuse(&reason).await?;
            return Err(TakeoverError::Rehearsal(reason));
        }
    };
    taker.ready().await?;
    // Whoever goes before it has said that the store is free still serves: no matter for this process.
    taker.store_is_free().await?;
    Ok(Reached { taker, doors, loaded: Some(loaded) })
}

/// From a custodian, which has rehearsed, and whom nobody else takes anything from.
async fn reach_custodian(settings: &Settings, socket: &Path, luggage: &mut Luggage) -> Result<Reached, TakeoverError> {
    let mut taker = Taker::connect(socket, hello(), limits(&settings.upgrade)).await?;
    let doors;
    (*luggage, doors) = Luggage::of(taker.doors().await?);
    taker.ready().await?;
    taker.store_is_free().await?;
    Ok(Reached { taker, doors, loaded: None })
}

/// An error with its causes.
pub(super) fn words(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A node on the sockets of the one before.
pub(super) async fn begin(
    settings: Arc<Settings>,
    doors: Vec<Door>,
    loaded: Loaded,
    patience: Duration,
) -> Result<Node, StartError> {
    let node = start_when_free(settings, loaded, patience).await?;
    // Until all sessions are here; commands are taken before.
    node.services.departure.arrive();
    let opened = match node.services.doors.inherit(doors) {
        Ok(()) => node.listen().await,
        Err(error) => Err(error.into()),
    };
    match opened {
        Ok(()) => Ok(node),
        Err(error) => {
            // At once, and without the drain, which ends listening sockets for everybody: they are another process's too, or
            // those of the node that is tried next.
            node.close(Instant::now()).await;
            Err(error)
        }
    }
}

/// Starts a node on a store that was closed for it. A command that takes the store for itself in that moment is waited for.
async fn start_when_free(settings: Arc<Settings>, loaded: Loaded, patience: Duration) -> Result<Node, StartError> {
    let (deadline, mut is_told) = (Instant::now() + patience, false);
    loop {
        match Node::start_unproved(settings.clone(), loaded.clone()).await {
            Err(StartError::Store { source: posthouse_storage::Error::Locked, .. }) if Instant::now() < deadline => {
                if !std::mem::replace(&mut is_told, true) {
                    emit(StoreAwaited {});
                }
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            started => return started,
        }
    }
}

async fn receive(node: &Node, taker: &mut Taker, arrived: &mut Arrived) -> Result<(), HandoffError> {
    taker.serving().await?;
    while let Some(batch) = taker.next_batch().await? {
        let (sessions, refusals) = node.prepare(batch);
        let committed = taker.accept(&refusals).await?;
        emit(SessionsMovedIn { sessions: sessions.len() });
        arrived.refused += refusals.len();
        if let Some(since) = arrived.since {
            let time = since.elapsed().unwrap_or_default();
            arrived.times.extend(std::iter::repeat_n(time, sessions.len()));
        }
        sessions.into_iter().for_each(|session| node.services.arrivals.admit(session));
        taker.started(committed).await?;
    }
    Ok(())
}

impl Node {
    /// What the image before was told and had no time to do.
    fn obey(&self, carried: &Carried) {
        if carried.stop() {
            // A node that has only just begun is not closed.
            let _ = self.services.request_stop();
        }
    }

    /// Reads a batch: what can go on here, and what cannot, which is dropped.
    fn prepare(&self, batch: Vec<Parcel>) -> (Vec<Arrival>, Vec<Refusal>) {
        let (mut sessions, mut refusals) = (Vec::with_capacity(batch.len()), Vec::new());
        for (index, parcel) in batch.into_iter().enumerate() {
            let services = &self.services;
            match unpack(parcel).and_then(|parked| services.arrivals.prepare(&services.admission, parked)) {
                Ok(session) => sessions.push(session),
                Err(error) => refusals.push(Refusal { index, reason: error.to_string() }),
            }
        }
        (sessions, refusals)
    }

    /// This node is closed: a new one goes on with what it has left, after a successor did not come up. It reads
    /// none of its own files anew, for what was wrong with the successor may be wrong with them; the store reads its keys.
    pub async fn take_back(self, remains: Remains) -> Result<Self, StartError> {
        let Remains { doors, sessions } = remains;
        let (settings, loaded) = (self.services.settings.clone(), self.services.loaded.clone());
        drop(self);
        let node = begin(settings, doors, loaded, LOCKED_MAX).await?;
        for parked in sessions {
            let protocol = parked.protocol.as_str().to_owned();
            match node.services.arrivals.prepare(&node.services.admission, parked) {
                Ok(session) => node.services.arrivals.admit(session),
                Err(error) => emit(SessionNotResumed { protocol, reason: error.to_string() }),
            }
        }
        node.services.departure.arrived();
        Ok(node)
    }
}
