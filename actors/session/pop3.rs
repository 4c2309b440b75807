//! One POP3 connection: carries out what `wire/pop3` decides.
//!
//! The dialogue, the open maildrop and a long answer under way are one value, `State`; between two steps of `run` nothing
//! else is held, so that is where a session is told to go, or moves to another process (`pop3/parked.rs`). What touches the
//! store stands in `pop3/maildrops.rs`.

pub mod maildrops;
pub(super) mod parked;
mod secure;
mod sending;
pub mod stored;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_filter::rate::{Admission, ConnectionGuard, Refusal};
use posthouse_mail::Uid;
use posthouse_net::{Error as NetError, LineStream, TlsAcceptor, Transport};
use posthouse_obs::emit;
use posthouse_obs::event::session::{CommandRefused, SessionEnded};
use posthouse_wire::pop3::command::LINE_MAX;
use posthouse_wire::pop3::{Effect, LineLimit, Offer, Response, Server};
use posthouse_wire::sasl::Credentials;
use posthouse_wire::smtp::line::LineCutter;
use ractor::SpawnErr;
use tokio::time::Instant;

use crate::auth::AuthRefusal;
use crate::listener::{Accepted, SessionFactory};
use crate::session::{
    self, Busy, Call, Calls, Doze, Home, Origin, Parked, Presence, Protocol, ResumeError, Resumed, Session, Wake,
    wait_for_input,
};
use maildrops::{Maildrops, Opened, Trouble};
use sending::{Sending, Step};

/// What every POP3 session of a listener shares.
#[derive(Clone)]
pub struct Pop3Services<M> {
    pub maildrops: M,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub settings: Arc<Settings>,
    pub calls: Calls,
}

impl<M: Maildrops> SessionFactory for Pop3Services<M> {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>> {
        let session = Pop3Session::new(self.clone(), accepted);
        session::spawn(session, home)
    }

    fn resume(&self, parked: Parked, admission: &Admission) -> Result<Resumed, ResumeError> {
        let session = Pop3Session::resume(self.clone(), parked, admission)?;
        Ok(Resumed::new(|home| session::spawn(session, home)))
    }

    fn refusal(&self, why: Refusal) -> Vec<u8> {
        Response::try_later(why.text()).to_wire()
    }
}

/// Why a session is over; the words are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Gone,
    TimedOut,
    Drained,
    /// It goes on in another process.
    Moved,
    /// It sleeps, and has nothing to do by itself until then.
    Asleep(Instant),
    TooManyErrors,
    TlsFailed,
    /// Another session holds the maildrop now, or the store failed in the middle of an answer.
    MaildropLost,
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
            Self::TooManyErrors => "errors",
            Self::TlsFailed => "tls_failed",
            Self::MaildropLost => "maildrop_lost",
        }
    }
}

/// One connection.
pub struct Pop3Session<M> {
    services: Pop3Services<M>,
    state: State,
    /// Absent only while a handshake runs.
    stream: Option<LineStream>,
    client: IpAddr,
    doze: Doze,
    presence: Presence,
    origin: Origin,
    /// The connection's place among those counted; it leaves only with the session.
    place: Option<ConnectionGuard>,
}

/// All that the session knows, and all that would move with it.
struct State {
    /// The greeting was given; before it comes the handshake, where TLS comes first.
    greeted: bool,
    server: Server,
    cutter: LineCutter,
    /// Answers that wait until the client has sent all its pipelined commands (RFC 2449 §6.6).
    output: Vec<u8>,
    opened: Option<Opened>,
    sending: Option<Sending>,
    refused_count: usize,
    /// Autologout; before the login, the end of the patience with it.
    deadline: Instant,
}

impl<M: Maildrops> Session for Pop3Session<M> {
    fn protocol(&self) -> Protocol {
        self.services.protocol
    }

    fn calls(&self) -> &Calls {
        &self.services.calls
    }

    async fn run(mut self) -> Option<Parked> {
        let (protocol, client) = (self.services.protocol.as_str(), self.client);
        self.origin.tell(protocol, client);
        let mut end = self.converse().await;
        if matches!(end, End::Moved | End::Asleep(_)) {
            match self.park(end) {
                Ok(parked) => return Some(parked),
                Err(why) => end = why,
            }
        }
        emit(SessionEnded { protocol, client, reason: end.as_str() });
        // RFC 1939 §6: whatever ended the session but QUIT, no message is removed; the lock is free again at once.
        if let Some(opened) = self.state.opened.take() {
            Box::pin(self.services.maildrops.release(&opened)).await;
        }
        if let Some(stream) = self.stream.take() {
            stream.close(self.services.settings.pop3.write_timeout.get()).await;
        }
        None
    }
}

impl<M: Maildrops> Pop3Session<M> {
    pub fn new(services: Pop3Services<M>, accepted: Accepted) -> Self {
        let Accepted { transport, guard, .. } = accepted;
        let pop3 = &services.settings.pop3;
        let state = State {
            greeted: false,
            server: Server::new(offer(&services, &transport)),
            cutter: LineCutter::default(),
            output: Vec::new(),
            opened: None,
            sending: None,
            refused_count: 0,
            deadline: Instant::now() + pop3.login_timeout.get(),
        };
        Self {
            state,
            client: transport.peer_ip(),
            presence: Presence::new(services.protocol, "authorization"),
            stream: Some(LineStream::new(transport, LINE_MAX)),
            doze: Doze::new(&services.settings.node),
            services,
            origin: Origin::Fresh,
            place: Some(guard),
        }
    }

    async fn converse(&mut self) -> End {
        match self.steps().await {
            Ok(never) => match never {},
            Err(end) => {
                self.farewell(end).await;
                end
            }
        }
    }

    /// One step after another; the top of the loop is the safe point.
    async fn steps(&mut self) -> Result<Never, End> {
        loop {
            if self.services.calls.now() == Call::Move && self.is_movable() {
                return Err(End::Moved);
            }
            // Boxed, what only some moments need: thousands of sessions wait, few do something.
            self.keep_lock().await?;
            if self.state.output.len() >= self.services.settings.pop3.io_buffer.len().max(1) {
                self.send_waiting().await?;
            } else if !self.state.greeted {
                self.greet().await?;
            } else if self.state.sending.is_some() {
                Box::pin(self.send_on()).await?;
            } else if !self.answer_line().await? && self.send_waiting().await? {
                self.wait().await?;
            }
        }
    }

    /// The greeting, behind the handshake where TLS comes first.
    async fn greet(&mut self) -> Result<(), End> {
        if self.services.protocol.is_implicit_tls() {
            if !self.awaits_tls().await? {
                return Ok(());
            }
            let Some(_busy) = self.services.calls.begin() else {
                self.services.calls.changed().await;
                return Ok(());
            };
            Box::pin(self.start_tls()).await?;
        }
        self.say(&Response::greeting(&self.services.settings.node.hostname));
        self.state.greeted = true;
        Ok(())
    }

    /// Answers the next line, if a whole one is there.
    async fn answer_line(&mut self) -> Result<bool, End> {
        let Some(stream) = self.stream.as_mut() else { return Err(End::Gone) };
        let State { server, cutter, .. } = &mut self.state;
        let begun = self.services.calls.begin();
        // Only a client that has not logged in can ask for TLS, and then the copy is small.
        let before = (begun.is_none() && !server.is_open()).then(|| (server.clone(), cutter.clone()));
        let (octets, line) = cutter.cut(stream.input(), LINE_MAX);
        let effect = match line {
            Some(Ok(line)) => server.on_line(&line),
            Some(Err(fault)) => Effect::Refuse(Response::err(fault.to_string())),
            None => {
                stream.consume(octets);
                return Ok(false);
            }
        };
        match (effect, before) {
            // The handshake must not begin now: the line is left where it was, for whoever takes it up.
            (Effect::StartTls(_), Some((server, cutter))) => {
                (self.state.server, self.state.cutter) = (server, cutter);
                if self.send_waiting().await? {
                    self.services.calls.changed().await;
                }
            }
            (effect, _) => {
                stream.consume(octets);
                Box::pin(self.carry_out(effect, begun)).await?;
            }
        }
        Ok(true)
    }

    async fn wait(&mut self) -> Result<(), End> {
        let sleep_at = if self.is_movable() { self.doze.at() } else { None };
        let Some(stream) = self.stream.as_mut() else { return Err(End::Gone) };
        let renewal = self.state.opened.as_ref().map(Opened::renew_at);
        let deadline = renewal.map_or(self.state.deadline, |at| at.min(self.state.deadline));
        match wait_for_input(stream, deadline, sleep_at, &mut self.services.calls, true).await {
            Wake::Input => {
                self.doze.stir();
                if self.state.server.is_open() {
                    self.state.deadline = Instant::now() + self.services.settings.pop3.idle_timeout.get();
                }
                Ok(())
            }
            Wake::Called => Ok(()),
            Wake::Drowsy => Err(End::Asleep(deadline)),
            Wake::Leaving => Err(End::Drained),
            // Woken for the lock only.
            Wake::Lost(NetError::ReadTimeout) if Instant::now() < self.state.deadline => Ok(()),
            Wake::Lost(NetError::ReadTimeout) => Err(End::TimedOut),
            Wake::Lost(_) => Err(End::Gone),
        }
    }

    async fn carry_out(&mut self, effect: Effect, begun: Option<Busy>) -> Result<(), End> {
        match effect {
            Effect::Send(octets) => self.state.output.extend_from_slice(&octets),
            Effect::Refuse(response) => self.refuse(response).await?,
            Effect::StartTls(response) => {
                let _busy = begun;
                self.say(&response);
                self.flush().await?;
                self.start_tls().await?;
                self.state.server.tls_started();
                self.state.cutter = LineCutter::default();
            }
            Effect::Authenticate(credentials) => self.log_in(credentials).await?,
            Effect::List(response, listing) => {
                self.say(&response);
                self.state.sending = Some(Sending::Listing(listing));
            }
            Effect::Retrieve { entry, limit, .. } => self.retrieve(entry.uid, limit).await?,
            Effect::Commit(uids) => return self.commit(uids).await,
            Effect::Close(response) => {
                self.say(&response);
                return Err(End::Closed);
            }
        }
        Ok(())
    }

    async fn log_in(&mut self, credentials: Credentials) -> Result<(), End> {
        match self.services.maildrops.log_in(&credentials, self.client).await {
            Ok(account) => match self.services.maildrops.open(account).await {
                Ok((opened, maildrop)) => {
                    let response = self.state.server.opened(maildrop);
                    self.say(&response);
                    self.state.opened = Some(opened);
                    self.state.deadline = Instant::now() + self.services.settings.pop3.idle_timeout.get();
                    self.presence.moved("transaction");
                    Ok(())
                }
                Err(trouble) => self.refuse_login(of_trouble(trouble)).await,
            },
            Err(refusal) => self.refuse_login(of_refusal(refusal)).await,
        }
    }

    async fn refuse_login(&mut self, response: Response) -> Result<(), End> {
        self.state.server.refused();
        self.refuse(response).await
    }

    async fn retrieve(&mut self, uid: Uid, limit: Option<LineLimit>) -> Result<(), End> {
        let Some(opened) = &self.state.opened else { return Err(End::MaildropLost) };
        match self.services.maildrops.find(opened, uid).await {
            Ok(Some(email)) => {
                self.say(&Response::ok(format!("{} octets", email.size())));
                self.state.sending = Some(Sending::message(email, limit));
                Ok(())
            }
            // Another protocol removed it in the meantime; RFC 1939 §5 knows no word for that.
            Ok(None) => self.refuse(Response::err("the message is no longer there")).await,
            Err(trouble) => self.refuse(of_trouble(trouble)).await,
        }
    }

    /// Renders the next piece of a long answer.
    async fn send_on(&mut self) -> Result<(), End> {
        let Some(sending) = self.state.sending.take() else { return Ok(()) };
        let enough = self.services.settings.pop3.io_buffer.len().max(1);
        let output = &mut self.state.output;
        let step = match sending {
            Sending::Listing(listing) => {
                let maildrop = self.state.server.maildrop().ok_or(End::MaildropLost)?;
                listing.render(maildrop, output, enough).map_or(Step::Done, |next| Step::More(Sending::Listing(next)))
            }
            Sending::Message(message) => message.step(&self.services.maildrops, output, enough).await,
        };
        match step {
            Step::More(sending) => {
                self.state.sending = Some(sending);
                Ok(())
            }
            Step::Done => Ok(()),
            // There is no way to take back a beginning: the client must not see a final dot.
            Step::Broken => Err(End::MaildropLost),
        }
    }

    async fn commit(&mut self, uids: Vec<Uid>) -> Result<(), End> {
        let Some(opened) = self.state.opened.take() else { return Err(End::MaildropLost) };
        let response = if uids.is_empty() {
            Response::ok("goodbye")
        } else {
            match self.services.maildrops.remove(&opened, uids).await {
                Ok(()) => Response::ok("the marked messages are gone, goodbye"),
                Err(_) => Response::some_not_removed(),
            }
        };
        self.services.maildrops.release(&opened).await;
        self.say(&response);
        Err(End::Closed)
    }

    /// Renews the maildrop's lock when that is due; without it the session must not go on (RFC 1939 §4).
    async fn keep_lock(&mut self) -> Result<(), End> {
        let Some(opened) = self.state.opened.as_mut().filter(|opened| opened.renew_at() <= Instant::now()) else {
            return Ok(());
        };
        match Box::pin(self.services.maildrops.renew(opened)).await {
            Ok(()) => Ok(()),
            Err(Trouble::InUse) => Err(End::MaildropLost),
            // The store may be back before the lease is over.
            Err(Trouble::Temporary) if opened.is_held() => {
                opened.put_off();
                Ok(())
            }
            Err(Trouble::Temporary) => Err(End::MaildropLost),
        }
    }

    /// Answers with a refusal, and ends the session after too many of them.
    async fn refuse(&mut self, response: Response) -> Result<(), End> {
        let protocol = self.services.protocol.as_str();
        let reply = String::from_utf8_lossy(&response.to_wire()).trim_end().to_owned();
        emit(CommandRefused { protocol, client: self.client, kind: response.kind(), reply });
        self.say(&response);
        self.state.refused_count += 1;
        if self.state.refused_count >= self.services.settings.pop3.errors_max {
            return Err(End::TooManyErrors);
        }
        Ok(())
    }

    fn say(&mut self, response: &Response) {
        self.state.output.extend_from_slice(&response.to_wire());
    }

    /// Sends what waits; false when the node called before all of it was out.
    async fn send_waiting(&mut self) -> Result<bool, End> {
        let Some(stream) = self.stream.as_mut() else { return Err(End::Gone) };
        let limit = self.services.settings.pop3.write_timeout.get();
        tokio::select! {
            biased;
            sent = stream.send(&mut self.state.output, limit) => sent.map(|()| true).map_err(|error| of_write(&error)),
            () = self.services.calls.changed() => Ok(false),
        }
    }

    /// Sends what waits, whatever the node asks.
    async fn flush(&mut self) -> Result<(), End> {
        let Some(stream) = self.stream.as_mut() else { return Err(End::Gone) };
        let limit = self.services.settings.pop3.write_timeout.get();
        stream.send(&mut self.state.output, limit).await.map_err(|error| of_write(&error))
    }

    /// The last words, where there are any.
    async fn farewell(&mut self, end: End) {
        match end {
            End::Drained => self.say(&going_down()),
            End::TooManyErrors => self.say(&Response::err("too many errors, goodbye")),
            End::Closed => {}
            // RFC 1939 §3: the autologout timer ends the connection without an answer. In the middle of an answer
            // another line would be taken for a part of the message.
            End::TimedOut | End::Gone | End::TlsFailed | End::MaildropLost | End::Moved | End::Asleep(_) => return,
        }
        let _ = self.flush().await;
    }
}

fn going_down() -> Response {
    Response::try_later("the server is going down, come back in a moment")
}

/// What `steps` returns: it ends by an `End` only.
enum Never {}

/// What the connection allows. RFC 8314 §3.1, and our own rule: a password in plain text only where nobody else can listen.
fn offer<M>(services: &Pop3Services<M>, transport: &Transport) -> Offer {
    let tls = services.protocol.is_implicit_tls() || transport.is_tls();
    Offer { stls: services.tls.is_some() && !tls, login: tls || transport.is_loopback() }
}

fn of_write(error: &NetError) -> End {
    if matches!(error, NetError::WriteTimeout) { End::TimedOut } else { End::Gone }
}

fn of_refusal(refusal: AuthRefusal) -> Response {
    match refusal {
        AuthRefusal::Wrong => Response::wrong_credentials(),
        AuthRefusal::Limited | AuthRefusal::Busy | AuthRefusal::Unavailable => {
            Response::try_later(&refusal.to_string())
        }
    }
}

fn of_trouble(trouble: Trouble) -> Response {
    match trouble {
        Trouble::InUse => Response::in_use(),
        Trouble::Temporary => Response::temporary(),
    }
}
