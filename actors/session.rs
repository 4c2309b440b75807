//! One actor per connection: what the sessions of all protocols share.
//!
//! A session's loop lives in its protocol's folder; it runs inside the actor made here, so that a panic in it is an event for
//! its supervisor and ends nobody else's session.
//!
//! Owns: one connection and the state of its dialogue.   Receives: Run, and the calls of its node.   Sends: nothing; it asks.
//! Bounds: the protocol's input buffer, conf.limits.connections_max; every wait has the protocol's deadline.
//! On failure: the connection closes, nothing half done is kept.   Standards: those of the protocol.

pub mod call;
mod doze;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
pub mod home;
pub mod imap;
pub mod parked;
pub mod pop3;
pub mod smtp;
pub mod submission;

use std::future::Future;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use posthouse_conf::Listen;
use posthouse_net::LineStream;
use posthouse_obs::emit;
use posthouse_obs::event::actor::{ActorEnded, ActorStarted};
use posthouse_obs::event::session::{SessionEntered, SessionLeft, SessionMovedIn, SessionStarted};
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::time::Instant;

use call::Present;
pub use call::{Busy, Call, Calls, Switch};
pub use doze::Doze;
use home::Guest;
pub use home::Home;
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

    /// Where each protocol is spoken. Ports that need a certificate stay closed without one.
    pub(crate) fn addresses(listen: &Listen, has_certificate: bool) -> impl Iterator<Item = (Self, &[SocketAddr])> {
        let all: [(Self, &[SocketAddr]); 7] = [
            (Self::Smtp, &listen.smtp),
            (Self::Submission, &listen.submission),
            (Self::Submissions, &listen.submissions),
            (Self::Imap, &listen.imap),
            (Self::Imaps, &listen.imaps),
            (Self::Pop3, &listen.pop3),
            (Self::Pop3s, &listen.pop3s),
        ];
        all.into_iter().filter(move |(protocol, _)| has_certificate || !protocol.is_implicit_tls())
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
    /// Nothing came for so long that the session may sleep.
    Drowsy,
    /// The deadline passed, the client is gone, or the buffer is full.
    Lost(posthouse_net::Error),
}

/// Waits for input, the deadline or a call, whichever comes first; `may_leave` where a farewell would do the client no harm,
/// `sleep_at` where the session could sleep and nothing but its client keeps it waiting. Cancel-safe.
pub async fn wait_for_input(
    stream: &mut LineStream,
    deadline: Instant,
    sleep_at: Option<Instant>,
    calls: &mut Calls,
    may_leave: bool,
) -> Wake {
    let (call, now) = (calls.now(), Instant::now());
    let leaving = calls.leaves(may_leave);
    let settled = |stream: &LineStream| stream.transport().is_settled();
    // Whoever was woken for his deadline must come to it, and not fall asleep before.
    let sleep_at = sleep_at.filter(|at| now.max(*at) < deadline && call == Call::Serve && settled(stream));
    tokio::select! {
        // Input that is there already is answered before the farewell.
        biased;
        filled = stream.fill(sleep_at.unwrap_or(deadline)) => match filled {
            Ok(_) => Wake::Input,
            // What the client sent may have had an answer of the record layer's own, which has to go out first.
            Err(posthouse_net::Error::ReadTimeout) if sleep_at.is_some() =>
                if settled(stream) { Wake::Drowsy } else { Wake::Called },
            Err(error) => Wake::Lost(error),
        },
        () = std::future::ready(()), if leaving => {
            calls.said_goodbye();
            Wake::Leaving
        }
        () = calls.changed() => Wake::Called,
    }
}

/// Where a session that starts comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Fresh,
    /// Another process.
    Moved,
    /// It slept here.
    Woken,
}

impl Origin {
    /// Of a session that was parked.
    fn of(rest: &Option<parked::Rest>) -> Self {
        if rest.is_some() { Self::Woken } else { Self::Moved }
    }

    fn tell(self, protocol: &'static str, client: IpAddr) {
        match self {
            Self::Fresh => emit(SessionStarted { protocol, client }),
            Self::Moved => emit(SessionMovedIn { protocol, client }),
            // Whoever woke it has told.
            Self::Woken => {}
        }
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

    /// Counts the same session once more.
    fn again(&self) -> Self {
        Self::new(self.protocol, self.state)
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

    /// Returns when the connection is over, for whatever reason, or when the session sleeps or leaves for another process; an
    /// error of the peer is no failure of the actor.
    fn run(self) -> impl Future<Output = Option<Parked>> + Send;
}

/// Starts the actor of a session at its listener.
pub fn spawn<S: Session + Sync>(session: S, home: Home) -> BoxFuture<'static, Result<(), SpawnErr>> {
    let (present, guest, supervisor) = (session.calls().present(), home.guest(), home.supervisor());
    let stay = Stay { session: Box::new(session), present, guest, home };
    Box::pin(async move { Actor::spawn_linked(None, SessionActor::<S>(PhantomData), stay, supervisor).await.map(drop) })
}

/// A session and whatever counts it.
struct Stay<S> {
    /// Boxed: on its way into the actor it passes through many futures.
    session: Box<S>,
    present: Present,
    guest: Guest,
    home: Home,
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
    type State = Option<Stay<S>>;
    type Arguments = Stay<S>;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMsg>,
        stay: Stay<S>,
    ) -> Result<Option<Stay<S>>, ActorProcessingErr> {
        myself.cast(SessionMsg::Run)?;
        Ok(Some(stay))
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        _message: SessionMsg,
        state: &mut Option<Stay<S>>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(Stay { session, present, guest, home }) = state.take() {
            let _alive = Alive::new(session.protocol().as_str());
            let mut calls = session.calls().clone();
            tokio::select! {
                // Boxed: inline, the session would lie in each layer of the actor's own future.
                parked = Box::pin(session.run()) => match parked {
                    Some(parked) if parked.rest.is_some() => home.lay_down(parked, present, guest),
                    Some(parked) => calls.park(parked),
                    None => {}
                },
                () = calls.overdue() => calls.was_cut(),
            }
        }
        myself.stop(None);
        Ok(())
    }
}
