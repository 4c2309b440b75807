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
use posthouse_obs::event::handover::{HandoverCutShort, SessionNotResumed, SessionsMovedIn};
use thiserror::Error;

use super::arrivals::Arrival;
use super::custody::{Carried, Luggage};
use super::handover::Remains;
use super::parcel::unpack;
use super::successor::{TAKE_OVER, hello, limits};
use super::{Node, StartError};

/// Why this process does not serve.
#[derive(Debug, Error)]
pub enum TakeoverError {
    #[error("the process to take over from: {0}")]
    Giver(#[from] HandoffError),
    #[error(transparent)]
    Start(#[from] StartError),
    /// It was to take this process's place later, and would not do.
    #[error("{0}")]
    Rehearsal(String),
}

/// Takes over from the process that waits behind the socket; returns a node that serves.
pub async fn take_over(settings: Arc<Settings>, socket: &Path) -> Result<Node, TakeoverError> {
    let carried = Carried::read();
    let mut luggage = Luggage::default();
    let (mut taker, doors) = match reach(&settings, socket, &mut luggage).await {
        Ok(reached) => reached,
        // The custodian is gone, with all that it kept, and nobody else serves.
        Err(error) if std::env::var_os(TAKE_OVER).is_none() || carried.is_some() => {
            emit(HandoverCutShort { reason: error.to_string() });
            let _ = std::fs::remove_file(socket);
            let node = begin(settings, Vec::new()).await?;
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
        Err(error) => return Err(error.into()),
    };
    let node = match begin(settings.clone(), doors).await {
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
    let received = receive(&node, &mut taker, &mut arrivals).await;
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

/// The process before, its listeners, and the store when it is free; the luggage as soon as it is here.
async fn reach(settings: &Settings, socket: &Path, luggage: &mut Luggage) -> Result<(Taker, Vec<Door>), HandoffError> {
    let mut taker = Taker::connect(socket, hello(), limits(&settings.upgrade)).await?;
    let doors;
    (*luggage, doors) = Luggage::of(taker.doors().await?);
    taker.ready().await?;
    // Whoever goes before it has said that the store is free went with everything, or still serves: no matter for this process.
    taker.store_is_free().await?;
    Ok((taker, doors))
}

/// An error with its causes.
fn words(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A node on the sockets of the one before.
async fn begin(settings: Arc<Settings>, doors: Vec<Door>) -> Result<Node, StartError> {
    let node = Node::start_unproved(settings).await?;
    // Until all sessions are here; commands are taken before.
    node.services.departure.arrive();
    let opened = match node.services.doors.inherit(doors) {
        Ok(()) => node.listen().await,
        Err(error) => Err(error.into()),
    };
    match opened {
        Ok(()) => Ok(node),
        Err(error) => {
            node.stop().await;
            Err(error)
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

    /// Goes on with what a node that was closed has left: after a successor did not come up.
    pub async fn take_back(settings: Arc<Settings>, remains: Remains) -> Result<Self, StartError> {
        let Remains { doors, sessions } = remains;
        let node = begin(settings, doors).await?;
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
