//! One SMTP connection, on port 25 or for submission: carries out what `wire/smtp` decides.
//!
//! The dialogue itself is one value; this adds the stream, the deadlines and the node's answers. Between two commands
//! nothing else is held, so that is where a session is told to go, or moves to another process (`smtp/parked.rs`). What the
//! two flavours do differently stands in `smtp/receiving.rs` and `submission.rs`.

mod data;
pub mod desk;
pub(super) mod intake;
pub mod node_desk;
pub(super) mod parked;
pub(super) mod receiving;
mod secure;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_filter::rate::{Admission, ConnectionGuard, Refusal};
use posthouse_mail::{AccountId, ForwardPath, IngestId, Reply, ReversePath};
use posthouse_net::{Error as NetError, LineStream, TlsAcceptor};
use posthouse_obs::emit;
use posthouse_obs::event::session::{CommandRefused, MessageAbandoned, MessageBegun, SessionEnded};
use posthouse_wire::smtp::line::LineCutter;
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::{Effect, Flavour, Policy, SmtpSession as Dialogue};
use ractor::SpawnErr;
use tokio::time::Instant;

use crate::clock;
use crate::listener::{Accepted, SessionFactory};
use crate::session::smtp::desk::Desk;
use crate::session::{
    self, Busy, Call, Calls, Doze, Home, Origin, Parked, Presence, Protocol, ResumeError, Resumed, Session, Wake,
    submission, wait_for_input,
};

/// What every SMTP session of a listener shares.
#[derive(Clone)]
pub struct SmtpServices<D> {
    pub desk: D,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub settings: Arc<Settings>,
    pub policy: Arc<Policy>,
    pub calls: Calls,
}

impl<D: Desk> SmtpServices<D> {
    pub fn new(desk: D, protocol: Protocol, tls: Option<TlsAcceptor>, settings: Arc<Settings>, calls: Calls) -> Self {
        let policy = Arc::new(policy(&settings, flavour(protocol), tls.is_some()));
        Self { desk, protocol, tls, settings, policy, calls }
    }
}

impl<D: Desk> SessionFactory for SmtpServices<D> {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>> {
        let session = SmtpSession::new(self.clone(), accepted);
        session::spawn(session, home)
    }

    fn resume(&self, parked: Parked, admission: &Admission) -> Result<Resumed, ResumeError> {
        let session = SmtpSession::resume(self.clone(), parked, admission)?;
        Ok(Resumed::new(|home| session::spawn(session, home)))
    }

    fn refusal(&self, why: Refusal) -> Vec<u8> {
        reply::connection_refused(why.text()).to_wire().into_bytes()
    }
}

fn flavour(protocol: Protocol) -> Flavour {
    if protocol == Protocol::Smtp { Flavour::Receive } else { Flavour::Submit }
}

fn policy(settings: &Settings, flavour: Flavour, starttls: bool) -> Policy {
    let smtp = &settings.smtp;
    Policy {
        hostname: settings.node.hostname.clone(),
        message_max: smtp.message_max.get(),
        recipients_max: match flavour {
            Flavour::Receive => smtp.recipients_max,
            Flavour::Submit => settings.submission.recipients_max,
        },
        command_line_max: smtp.command_line_max.len(),
        errors_max: smtp.errors_max,
        messages_max: smtp.messages_per_connection_max,
        starttls,
        dsn: true,
        vrfy_reveals: smtp.vrfy_reveals,
    }
}

/// Why a session is over; the words are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// QUIT, or a refusal that closes.
    Closed,
    /// The client went without a word.
    Gone,
    TimedOut,
    Drained,
    /// It goes on in another process.
    Moved,
    /// It sleeps, and has nothing to do by itself until then.
    Asleep(Instant),
    EarlyTalker,
    TlsFailed,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone => "gone",
            Self::TimedOut => "timed_out",
            Self::Drained => "drained",
            Self::Moved => "moved",
            Self::Asleep(_) => "asleep",
            Self::EarlyTalker => "early_talker",
            Self::TlsFailed => "tls_failed",
        }
    }
}

/// What comes before the first command, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// TLS, where it comes first.
    Handshake,
    /// The silence before the greeting, and its end once it has begun.
    Silence(Option<Instant>),
    Greeted,
}

/// One connection.
pub struct SmtpSession<D> {
    services: SmtpServices<D>,
    opening: Opening,
    dialogue: Dialogue,
    cutter: LineCutter,
    /// Absent only while a handshake runs.
    stream: Option<LineStream>,
    /// Replies that wait until the client has to hear them (RFC 2920 §3.2).
    output: Vec<u8>,
    client: IpAddr,
    /// No limit by address applies.
    exempt: bool,
    /// The forward-path accepted last, where it is one account. Forgotten where the session moves: then it is asked again.
    resolved: Option<(ForwardPath, AccountId)>,
    /// The end of data must be there by then.
    transaction_deadline: Option<Instant>,
    /// The client must say something by then; set while it is waited for.
    command_deadline: Option<Instant>,
    /// TLS version and suite, for the Received field.
    tls: Option<String>,
    doze: Doze,
    presence: Presence,
    origin: Origin,
    /// The connection's place among those counted; it leaves only with the session.
    place: Option<ConnectionGuard>,
}

impl<D: Desk> Session for SmtpSession<D> {
    fn protocol(&self) -> Protocol {
        self.services.protocol
    }

    fn calls(&self) -> &Calls {
        &self.services.calls
    }

    async fn run(mut self) -> Option<Parked> {
        let (protocol, client) = (self.services.protocol.as_str(), self.client);
        self.origin.tell(protocol, client);
        let mut end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if matches!(end, End::Moved | End::Asleep(_)) {
            match self.park(end) {
                Ok(parked) => return Some(parked),
                Err(why) => end = why,
            }
        }
        emit(SessionEnded { protocol, client, reason: end.as_str() });
        if let Some(stream) = self.stream.take() {
            stream.close(self.services.settings.smtp.command_timeout.get()).await;
        }
        None
    }
}

/// What a dialogue returns that only ever ends by an `End`.
enum Never {}

impl<D: Desk> SmtpSession<D> {
    /// A session on a fresh connection.
    pub fn new(services: SmtpServices<D>, accepted: Accepted) -> Self {
        let Accepted { transport, exempt, guard, .. } = accepted;
        let client = transport.peer_ip();
        let implicit_tls = services.protocol.is_implicit_tls();
        let input_max = input_max(&services.settings);
        Self {
            opening: if implicit_tls { Opening::Handshake } else { Opening::Silence(None) },
            dialogue: Dialogue::new(flavour(services.protocol), implicit_tls),
            cutter: LineCutter::default(),
            stream: Some(LineStream::new(transport, input_max)),
            output: Vec::new(),
            client,
            exempt,
            resolved: None,
            transaction_deadline: None,
            command_deadline: None,
            tls: None,
            doze: Doze::new(&services.settings.node),
            presence: Presence::new(services.protocol, "hello"),
            origin: Origin::Fresh,
            place: Some(guard),
            services,
        }
    }

    /// One step after another; the top of the loop is the safe point.
    async fn converse(&mut self) -> Result<Never, End> {
        loop {
            if self.services.calls.now() == Call::Move && self.is_movable() {
                return Err(End::Moved);
            }
            match self.opening {
                Opening::Handshake => self.open_tls().await?,
                Opening::Silence(until) => self.await_silence(until).await?,
                // Bounds the replies that a client can make us hold by pipelining.
                Opening::Greeted if self.output.len() >= self.services.settings.smtp.io_buffer.len().max(1) => {
                    self.send_waiting().await?;
                }
                Opening::Greeted => self.answer_line().await?,
            }
            self.presence.moved(self.dialogue.phase_name());
        }
    }

    /// RFC 5321 §4.3.1: the client waits for the greeting. One that doesn't is a program in a hurry, rarely a mail server.
    async fn await_silence(&mut self, until: Option<Instant>) -> Result<(), End> {
        if !self.exempt && self.services.protocol == Protocol::Smtp {
            let begin = || Instant::now() + self.services.settings.smtp.early_talker_wait.get();
            let until = until.unwrap_or_else(begin);
            self.opening = Opening::Silence(Some(until));
            let stream = self.stream.as_mut().expect(STREAM);
            match wait_for_input(stream, until, None, &mut self.services.calls, true).await {
                Wake::Lost(NetError::ReadTimeout) => {}
                Wake::Lost(error) => return Err(ended_by(&error)),
                Wake::Called | Wake::Drowsy => return Ok(()),
                Wake::Leaving => return Err(self.go_away().await),
                Wake::Input => {
                    self.say(&reply::early_talker());
                    self.flush().await?;
                    return Err(End::EarlyTalker);
                }
            }
        }
        let greeting = self.dialogue.greeting(&self.services.policy);
        self.say(&greeting);
        self.opening = Opening::Greeted;
        Ok(())
    }

    /// Answers the next whole line. Without one the replies leave and more is waited for: never before every line at hand is
    /// answered.
    async fn answer_line(&mut self) -> Result<(), End> {
        let begun = self.services.calls.begin();
        // Boxed: most of the time there is none.
        let before = begun.is_none().then(|| Box::new((self.dialogue.clone(), self.cutter.clone())));
        let stream = self.stream.as_mut().expect(STREAM);
        let (octets, line) = self.cutter.cut(stream.input(), self.services.policy.command_line_max);
        let Some(line) = line else {
            stream.consume(octets);
            drop(begun);
            return if self.send_waiting().await? { self.wait_for_command().await } else { Ok(()) };
        };
        // The whole command counts: one octet at a time is no way to stay for ever.
        self.command_deadline = None;
        let line = line.as_deref().map_err(|fault| *fault);
        let effect = self.step(|dialogue, policy| dialogue.on_line(line, policy));
        match (effect, before) {
            // It must not begin now: the line is left where it was, for whoever takes it up.
            (Effect::ReceiveData(_) | Effect::StartTls(_), Some(before)) => {
                (self.dialogue, self.cutter) = *before;
                if self.send_waiting().await? {
                    self.services.calls.changed().await;
                }
                Ok(())
            }
            (effect, _) => {
                self.stream().consume(octets);
                self.carry_out(effect, begun).await
            }
        }
    }

    async fn wait_for_command(&mut self) -> Result<(), End> {
        let begin = || Instant::now() + self.services.settings.smtp.command_timeout.get();
        let command_deadline = *self.command_deadline.get_or_insert_with(begin);
        let deadline = self.transaction_deadline.map_or(command_deadline, |end| end.min(command_deadline));
        let may_leave = self.dialogue.is_between_messages();
        let sleep_at = if self.is_movable() { self.doze.at() } else { None };
        let stream = self.stream.as_mut().expect(STREAM);
        match wait_for_input(stream, deadline, sleep_at, &mut self.services.calls, may_leave).await {
            Wake::Input => {
                self.doze.stir();
                Ok(())
            }
            Wake::Called => Ok(()),
            Wake::Drowsy => Err(End::Asleep(deadline)),
            Wake::Leaving => Err(self.go_away().await),
            Wake::Lost(error) => Err(self.lost(&error).await),
        }
    }

    /// RFC 5321 §3.8: a server that ends says so with a 421, whatever the client is at.
    async fn go_away(&mut self) -> End {
        self.say(&reply::going_away(&self.services.policy.hostname));
        let _ = self.flush().await;
        self.abandon(End::Drained);
        End::Drained
    }

    /// The wait for the client ended without input.
    async fn lost(&mut self, error: &NetError) -> End {
        let end = ended_by(error);
        if end == End::TimedOut {
            // RFC 5321 §3.8: say why before closing. Whether the client hears it changes nothing.
            self.say(&reply::timed_out());
            let _ = self.flush().await;
        }
        self.abandon(end);
        end
    }

    /// Of a message that was begun nothing is kept.
    fn abandon(&self, end: End) {
        if let Some(envelope) = self.dialogue.envelope() {
            emit(MessageAbandoned {
                message: envelope.id,
                protocol: self.services.protocol.as_str(),
                client: self.client,
                reason: end.as_str(),
            });
        }
    }

    /// Lets the dialogue take a step.
    fn step(&mut self, step: impl FnOnce(Dialogue, &Policy) -> (Dialogue, Effect)) -> Effect {
        let fresh = Dialogue::new(self.dialogue.flavour(), false);
        let (dialogue, effect) = step(std::mem::replace(&mut self.dialogue, fresh), &self.services.policy);
        self.dialogue = dialogue;
        effect
    }

    /// Does what the dialogue asks, and what follows from the answer, up to a reply. What takes long is boxed, so that a
    /// session that waits for a command does not hold the room for it.
    async fn carry_out(&mut self, mut effect: Effect, _busy: Option<Busy>) -> Result<(), End> {
        loop {
            effect = match effect {
                Effect::Reply(reply) => {
                    self.say(&reply);
                    return Ok(());
                }
                Effect::Close(reply) => {
                    self.say(&reply);
                    self.flush().await?;
                    return Err(End::Closed);
                }
                Effect::StartTls(reply) => {
                    self.say(&reply);
                    self.flush().await?;
                    Box::pin(self.handshake()).await?;
                    let before = Dialogue::new(self.dialogue.flavour(), false);
                    self.dialogue = std::mem::replace(&mut self.dialogue, before).on_tls();
                    return Ok(());
                }
                Effect::CheckCredentials(credentials) => {
                    let checked = Box::pin(self.services.desk.log_in(credentials, self.client)).await;
                    self.step(|dialogue, policy| dialogue.on_credentials(checked, policy))
                }
                Effect::CheckReversePath(mail) => {
                    let checked = self.begin_transaction(&mail.reverse_path).await;
                    self.step(|dialogue, policy| dialogue.on_reverse_path(checked, policy))
                }
                Effect::CheckForwardPath(path) => {
                    let checked = Box::pin(self.check_forward_path(&path)).await;
                    self.step(|dialogue, policy| dialogue.on_forward_path(checked, policy))
                }
                Effect::Verify(name) => {
                    let said = Box::pin(receiving::verify(&self.services.desk, &name)).await;
                    self.step(|dialogue, policy| dialogue.on_verified(said, policy))
                }
                Effect::ReceiveData(reply) => {
                    let answer = Box::pin(self.receive_data(&reply)).await?;
                    self.transaction_deadline = None;
                    self.step(|dialogue, policy| dialogue.on_message(answer, policy))
                }
            };
        }
    }

    /// MAIL: whether the sender may send now, and the id of what it sends.
    async fn begin_transaction(&mut self, path: &ReversePath) -> Result<IngestId, Reply> {
        if let (Some(login), Some(address)) = (self.dialogue.login(), path.address()) {
            Box::pin(submission::check_sender(&self.services.desk, login, address)).await?;
        }
        self.services.desk.admit_message(self.client, self.dialogue.login())?;
        let message = clock::ingest_id(clock::now());
        let (protocol, client) = (self.services.protocol.as_str(), self.client);
        emit(MessageBegun { message, protocol, client, reverse_path: path.clone() });
        self.transaction_deadline = Some(Instant::now() + self.services.settings.smtp.transaction_timeout.get());
        Ok(message)
    }

    async fn check_forward_path(&mut self, path: &ForwardPath) -> Result<(), Reply> {
        let size = self.dialogue.envelope().and_then(|envelope| envelope.declared_size);
        match self.dialogue.flavour() {
            Flavour::Receive => {
                let account = receiving::check_forward_path(&self.services.desk, path, size).await?;
                self.resolved = account.map(|account| (path.clone(), account));
                Ok(())
            }
            Flavour::Submit => submission::check_forward_path(&self.services.desk, path, size).await,
        }
    }

    /// Puts a reply behind those that wait.
    fn say(&mut self, reply: &Reply) {
        if !reply.is_positive() {
            let kind = if reply.is_transient() { "temporary" } else { "permanent" };
            let (protocol, client) = (self.services.protocol.as_str(), self.client);
            emit(CommandRefused { protocol, client, kind, reply: reply.to_wire().trim_end().to_owned() });
        }
        reply.put_on_wire(&mut self.output);
    }

    /// Sends what waits; false when the node called before all of it was out.
    async fn send_waiting(&mut self) -> Result<bool, End> {
        let limit = self.services.settings.smtp.command_timeout.get();
        let stream = self.stream.as_mut().expect(STREAM);
        tokio::select! {
            biased;
            sent = stream.send(&mut self.output, limit) => sent.map(|()| true).map_err(|error| ended_by(&error)),
            () = self.services.calls.changed() => Ok(false),
        }
    }

    /// Sends what waits, whatever the node asks.
    async fn flush(&mut self) -> Result<(), End> {
        let limit = self.services.settings.smtp.command_timeout.get();
        let stream = self.stream.as_mut().expect(STREAM);
        stream.send(&mut self.output, limit).await.map_err(|error| ended_by(&error))
    }

    fn stream(&mut self) -> &mut LineStream {
        self.stream.as_mut().expect(STREAM)
    }
}

const STREAM: &str = "the stream is there but within a handshake, and a failed one ends the session";

/// Octets that may wait to be read.
fn input_max(settings: &Settings) -> usize {
    settings.smtp.io_buffer.len().max(settings.smtp.command_line_max.len())
}

fn ended_by(error: &NetError) -> End {
    match error {
        NetError::ReadTimeout | NetError::WriteTimeout => End::TimedOut,
        _ => End::Gone,
    }
}

#[cfg(test)]
mod tests;
