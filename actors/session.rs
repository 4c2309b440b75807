//! One actor per connection: what the sessions of all protocols share.
//!
//! A session's loop lives in its protocol's folder; it runs inside the actor made here, so that a panic in it is an event for
//! its supervisor and ends nobody else's session.
//!
//! Owns: one connection and the state of its dialogue.   Receives: Run, and the calls of its node.   Sends: nothing; it asks.
//! Bounds: the protocol's input buffer, conf.limits.connections_max; every wait has the protocol's deadline.
//! On failure: the connection closes, nothing half done is kept.   Standards: those of the protocol.

pub mod call;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod imap;
pub mod parked;
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
use tokio::time::Instant;

use call::Present;
pub use call::{Busy, Call, Calls, Switch};
pub use parked::{Parked, ResumeError, Resumed};

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

    /// The protocol of a word.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Smtp, Self::Submission, Self::Submissions, Self::Imap, Self::Imaps, Self::Pop3, Self::Pop3s];
        all.into_iter().find(|protocol| protocol.as_str() == word)
    }

    /// Whether TLS comes before the first octet of the protocol (RFC 8314 §3).
    pub fn is_implicit_tls(self) -> bool {
        matches!(self, Self::Submissions | Self::Imaps | Self::Pop3s)
    }
}

/// What ended a session's wait for its client.
#[derive(Debug)]
pub enum Wake {
    /// There is more input.
    Input,
    /// The node asks for something else than before.
    Called,
    /// The node asks to leave, and the session may.
    Leaving,
    /// The deadline passed, the client is gone, or the buffer is full.
    Lost(posthouse_net::Error),
}

/// Waits for input, the deadline or a call, whichever comes first; `may_leave` where a farewell would do the client no harm.
/// Cancel-safe.
pub async fn wait_for_input(stream: &mut LineStream, deadline: Instant, calls: &mut Calls, may_leave: bool) -> Wake {
    let leaving = may_leave && calls.now() == Call::Leave;
    tokio::select! {
        // Input that is there already is answered before the farewell.
        biased;
        filled = stream.fill(deadline) => filled.map_or_else(Wake::Lost, |_| Wake::Input),
        () = std::future::ready(()), if leaving => Wake::Leaving,
        () = calls.changed() => Wake::Called,
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

    fn calls(&self) -> &Calls;

    /// Returns when the connection is over, for whatever reason, or when the session leaves for another process; an error of
    /// the peer is no failure of the actor.
    fn run(self) -> impl Future<Output = Option<Parked>> + Send;
}

/// Starts the actor of a session under `supervisor`.
pub async fn spawn<S: Session + Sync>(session: S, supervisor: ActorCell) -> Result<ActorRef<SessionMsg>, SpawnErr> {
    let present = session.calls().present();
    Ok(Actor::spawn_linked(None, SessionActor::<S>(PhantomData), (session, present), supervisor).await?.0)
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
    type State = Option<(S, Present)>;
    type Arguments = (S, Present);

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMsg>,
        arguments: (S, Present),
    ) -> Result<Option<(S, Present)>, ActorProcessingErr> {
        myself.cast(SessionMsg::Run)?;
        Ok(Some(arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        _message: SessionMsg,
        state: &mut Option<(S, Present)>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((session, _present)) = state.take() {
            let _alive = Alive::new(session.protocol().as_str());
            let calls = session.calls().clone();
            // Boxed: inline, the session would lie in each layer of the actor's own future.
            if let Some(parked) = Box::pin(session.run()).await {
                calls.park(parked);
            }
        }
        myself.stop(None);
        Ok(())
    }
}
