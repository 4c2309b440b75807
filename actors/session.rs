//! One actor per connection: what the sessions of all protocols share.
//!
//! A session's loop lives in its protocol's folder; it runs inside the actor made here, so that a panic in it is an event for
//! its supervisor and ends nobody else's session.
//!
//! Owns: one connection and the state of its dialogue.   Receives: Run, and the drain signal.   Sends: nothing; it asks.
//! Bounds: the protocol's input buffer, conf.limits.connections_max; every wait has the protocol's deadline.
//! On failure: the connection closes, nothing half done is kept.   Standards: those of the protocol.

pub mod imap;
pub mod pop3;
pub mod smtp;
pub mod submission;

use std::future::Future;
use std::marker::PhantomData;

use posthouse_net::LineStream;
use posthouse_obs::emit;
use posthouse_obs::event::actor::{ActorEnded, ActorStarted};
use posthouse_obs::event::session::{SessionEntered, SessionLeft};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Smtp,
    Submission,
    Submissions,
    Imap,
    Imaps,
    Pop3,
    Pop3s,
}

impl Protocol {
    /// The word for logs and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
        }
    }

    /// Whether TLS comes before the first octet of the protocol (RFC 8314 §3).
    pub fn is_implicit_tls(self) -> bool {
        matches!(self, Self::Submissions | Self::Imaps | Self::Pop3s)
    }
}

/// Tells every session that the node is stopping: finish at the next safe point, with the protocol's farewell.
#[derive(Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// A drain signal and the switch that sets it.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (switch, signal) = watch::channel(false);
        (switch, Self(signal))
    }

    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the node is stopping. Safe to cancel.
    pub async fn wait(&mut self) {
        // A dropped switch means that the node is gone: that is a drain too.
        let _ = self.0.wait_for(|set| *set).await;
    }
}

/// What ended a session's wait for its client.
#[derive(Debug)]
pub enum Wake {
    /// There is more input.
    Input,
    /// The node is stopping.
    Draining,
    /// The deadline passed, the client is gone, or the buffer is full.
    Lost(posthouse_net::Error),
}

/// Waits for input, the deadline or the drain, whichever comes first. Safe to cancel.
pub async fn wait_for_input(stream: &mut LineStream, deadline: Instant, drain: &mut Drain) -> Wake {
    tokio::select! {
        // Input that is there already is answered before the farewell.
        biased;
        filled = stream.fill(deadline) => filled.map_or_else(Wake::Lost, |_| Wake::Input),
        () = drain.wait() => Wake::Draining,
    }
}

/// Counts a session under its protocol and state for as long as it lives.
#[derive(Debug)]
pub struct Presence {
    protocol: Protocol,
    state: &'static str,
}

impl Presence {
    /// `state` is one of the protocol's few fixed words.
    pub fn new(protocol: Protocol, state: &'static str) -> Self {
        emit(SessionEntered { protocol: protocol.as_str(), state });
        Self { protocol, state }
    }

    /// The session is in another state now.
    pub fn moved(&mut self, state: &'static str) {
        if self.state != state {
            let successor = Self::new(self.protocol, state);
            *self = successor;
        }
    }
}

impl std::ops::Drop for Presence {
    fn drop(&mut self) {
        emit(SessionLeft { protocol: self.protocol.as_str(), state: self.state });
    }
}

/// A session that can be run to its end.
pub trait Session: Send + 'static {
    fn protocol(&self) -> Protocol;

    /// Returns when the connection is over, for whatever reason; an error of the peer is no failure of the actor.
    fn run(self) -> impl Future<Output = ()> + Send;
}

/// Starts the actor of a session under `supervisor`.
pub async fn spawn<S: Session + Sync>(session: S, supervisor: ActorCell) -> Result<ActorRef<SessionMsg>, SpawnErr> {
    Ok(Actor::spawn_linked(None, SessionActor::<S>(PhantomData), session, supervisor).await?.0)
}

/// The one message of a session: its whole life.
pub enum SessionMsg {
    Run,
}

impl ractor::Message for SessionMsg {}

struct SessionActor<S>(PhantomData<fn() -> S>);

/// Counts a live session, also when it is killed in the middle.
struct Alive(&'static str);

impl Alive {
    fn new(kind: &'static str) -> Self {
        emit(ActorStarted { kind });
        Self(kind)
    }
}

impl std::ops::Drop for Alive {
    fn drop(&mut self) {
        emit(ActorEnded { kind: self.0 });
    }
}

impl<S: Session + Sync> Actor for SessionActor<S> {
    type Msg = SessionMsg;
    type State = Option<S>;
    type Arguments = S;

    async fn pre_start(&self, myself: ActorRef<SessionMsg>, session: S) -> Result<Option<S>, ActorProcessingErr> {
        myself.cast(SessionMsg::Run)?;
        Ok(Some(session))
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        _message: SessionMsg,
        state: &mut Option<S>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(session) = state.take() {
            let _alive = Alive::new(session.protocol().as_str());
            // Boxed: inline, the session would lie in each layer of the actor's own future.
            Box::pin(session.run()).await;
        }
        myself.stop(None);
        Ok(())
    }
}
