//! The loop of an IMAP session: frames in, answers out, and the table from command to the file that carries it out.

use std::sync::Arc;

use posthouse_conf::Settings;
use posthouse_mail::{AccountId, ModSeq};
use posthouse_net::{LineStream, TlsAcceptor, Transport};
use posthouse_obs::emit;
use posthouse_obs::event::net::HandshakeFailed;
use posthouse_obs::event::session::{AnswerBroken, CommandRefused};
use posthouse_wire::imap::capability::capabilities;
use posthouse_wire::imap::command::append::AppendHead;
use posthouse_wire::imap::command::search::Search;
use posthouse_wire::imap::command::{ParseLimits, Tagged, Unreadable};
use posthouse_wire::imap::response::mailbox::put_namespace;
use posthouse_wire::imap::response::status::{Code, Condition, Status, put_continuation};
use posthouse_wire::imap::seq_view::Permit;
use posthouse_wire::imap::state::{Refusal, Situation, check};
use posthouse_wire::imap::{
    Command, Frame, FrameError, FrameLimits, FrameReader, NumberKind, ParseError, State, Tag, parse,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ImapServices;
use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::state::{Activity, Phase, Selected, SessionState};
use crate::session::handshake::{self, Opening};
use crate::session::parked::UNSENT_MAX;
use crate::session::{Busy, Call, Calls, Doze, Parked, Presence, Protocol, Wake, wait_for_input};

/// Room in the input buffer beside the longest line: one read of the stream.
const READ_ROOM: usize = 16 * 1024;

/// A session at work.
pub struct Dialogue<D> {
    pub desk: D,
    pub settings: Arc<Settings>,
    pub tls: Option<TlsAcceptor>,
    pub stream: LineStream,
    /// Answers that are not yet sent.
    pub out: Vec<u8>,
    pub reader: FrameReader,
    pub state: SessionState,
    pub calls: Calls,
    pub(super) protocol: Protocol,
    pub(super) presence: Presence,
    /// The greeting was given; before it comes the handshake, where TLS comes first.
    pub(super) greeted: bool,
    /// Wakes the session in IDLE.
    pub(super) notices: Option<watch::Receiver<Option<ModSeq>>>,
    pub(super) login_by: Instant,
    /// The client must say something by then; set while it is waited for.
    pub(super) input_by: Option<Instant>,
    pub(super) doze: Doze,
    /// A handshake is about to begin.
    busy: Option<Busy>,
}

impl<D: Desk> Dialogue<D> {
    pub fn new(services: ImapServices<D>, transport: Transport) -> Self {
        let imap = &services.settings.imap;
        let stream = LineStream::new(transport, input_max(&frame_limits(&services.settings)));
        let login_by = Instant::now() + imap.login_timeout.get();
        Self::with(services, stream, SessionState::default(), login_by)
    }

    /// A session in some state, whose greeting is yet to come.
    pub(super) fn with(services: ImapServices<D>, stream: LineStream, state: SessionState, login_by: Instant) -> Self {
        let ImapServices { desk, protocol, tls, settings, calls } = services;
        Self {
            desk,
            tls,
            stream,
            out: Vec::new(),
            reader: FrameReader::new(frame_limits(&settings)),
            calls,
            protocol,
            presence: Presence::new(protocol, state.word()),
            greeted: false,
            notices: None,
            state,
            login_by,
            input_by: None,
            doze: Doze::new(&settings.node),
            busy: None,
            settings,
        }
    }

    /// Greets and serves until the session is over, and says why, or until it leaves for another process.
    pub async fn run(mut self) -> Result<Parked, &'static str> {
        loop {
            let stop = match self.serve().await {
                Ok(never) => match never {},
                Err(stop) => stop,
            };
            match stop {
                Stop::Moved => return self.park(None).map_err(|_| "closed"),
                Stop::Asleep(until) => return self.park(Some(until)).map_err(|_| "closed"),
                Stop::StartTls => {
                    let (protocol, client) = (self.protocol.as_str(), self.stream.transport().peer_ip());
                    match Box::pin(self.start_tls()).await {
                        Ok(secured) => self = secured,
                        Err(error) => {
                            emit(HandshakeFailed { protocol, client, reason: error.to_string() });
                            return Err("handshake");
                        }
                    }
                }
                stop => return Err(Box::pin(self.end(stop)).await),
            }
        }
    }

    /// One step after another; the top of the loop is the safe point. Boxed, what only some moments need: thousands of
    /// sessions wait, few do something.
    async fn serve(&mut self) -> Outcome<std::convert::Infallible> {
        loop {
            if self.calls.now() == Call::Move && self.is_movable() {
                return Err(Stop::Moved);
            }
            if self.out.len() >= self.settings.imap.io_buffer.len().max(1) {
                self.send_some().await?;
                continue;
            }
            match &self.state.activity {
                _ if !self.greeted => self.greet().await?,
                Activity::Listening => self.listen().await?,
                Activity::Idling { .. } => Box::pin(self.idle_on()).await?,
                Activity::Answering(_) => Box::pin(self.answer_on()).await?,
            }
            self.presence.moved(self.state.word());
        }
    }

    /// The greeting, behind the handshake where TLS comes first.
    async fn greet(&mut self) -> Outcome<()> {
        if self.protocol.is_implicit_tls() && !self.stream.transport().is_tls() {
            let limit = self.settings.tls.handshake_timeout.get();
            match handshake::opening(&self.stream, limit, &mut self.calls).await {
                Opening::Begun => {}
                Opening::Called => return Ok(()),
                // Before TLS there is no farewell that the client could read.
                Opening::Leaving | Opening::Lost => return Err(Stop::Lost(posthouse_net::Error::Closed)),
            }
            self.busy = self.calls.begin();
            if self.busy.is_some() {
                return Err(Stop::StartTls);
            }
            self.calls.changed().await;
            return Ok(());
        }
        let greeting = Status::ok(format!("{} is ready", self.settings.node.hostname));
        greeting.code(self.capability_code()).put(&mut self.out, None);
        self.greeted = true;
        Ok(())
    }

    async fn listen(&mut self) -> Outcome<()> {
        match self.reader.next_frame(self.stream.input_mut()) {
            Frame::NeedInput => self.await_input(self.is_movable()).await,
            Frame::Command(text) => self.on_command(text).await,
            Frame::Append(text, head) => match self.calls.begin() {
                Some(busy) => Box::pin(self.on_append(head, busy)).await,
                None if self.reader.put_back(&text, self.stream.input_mut()) => self.hold().await,
                None => self.append_after_hold(head).await,
            },
            Frame::Refused(text, error) => self.on_refused(&text, error),
            Frame::Continue => {
                put_continuation(&mut self.out, "go ahead");
                Ok(())
            }
            Frame::Broken(error) => Err(Stop::Flooded(error)),
            // Lines and messages are read by the commands that ask for them.
            Frame::Line(_) | Frame::MessageChunk(_) | Frame::MessageEnd { .. } => Ok(()),
        }
    }

    /// The next frame, once there is one: for a command that asks for more than its first line.
    pub async fn next_frame(&mut self) -> Outcome<Frame> {
        loop {
            let frame = self.reader.next_frame(self.stream.input_mut());
            if frame != Frame::NeedInput {
                return Ok(frame);
            }
            self.await_input(false).await?;
        }
    }

    /// Sends everything answered so far, then waits for input. Returns before there is any when the node calls.
    async fn await_input(&mut self, may_sleep: bool) -> Outcome<()> {
        if !self.send_waiting().await? {
            return Ok(());
        }
        let idle_timeout = self.settings.imap.idle_timeout.get();
        let deadline = match self.state.phase {
            Phase::NotAuthenticated => self.login_by,
            _ => *self.input_by.get_or_insert_with(|| Instant::now() + idle_timeout),
        };
        let may_leave = self.reader.is_between_commands();
        let sleep_at = if may_sleep { self.doze.at() } else { None };
        match wait_for_input(&mut self.stream, deadline, sleep_at, &mut self.calls, may_leave).await {
            Wake::Input => {
                self.input_by = None;
                self.doze.stir();
                Ok(())
            }
            Wake::Called => Ok(()),
            Wake::Drowsy => Err(Stop::Asleep(deadline)),
            Wake::Leaving => Err(Stop::Draining),
            Wake::Lost(error) => Err(Stop::Lost(error)),
        }
    }

    /// What must not begin now was put back: waits for another call.
    async fn hold(&mut self) -> Outcome<()> {
        if self.send_waiting().await? {
            self.calls.changed().await;
        }
        Ok(())
    }

    /// An APPEND that cannot be put back waits where it is, and moves only behind its end.
    async fn append_after_hold(&mut self, head: AppendHead) -> Outcome<()> {
        while self.calls.now() == Call::Hold {
            self.hold().await?;
        }
        let busy = self.calls.busy();
        Box::pin(self.on_append(head, busy)).await
    }

    async fn on_command(&mut self, text: Vec<u8>) -> Outcome<()> {
        let limits = ParseLimits { search_depth_max: self.settings.imap.search_depth_max };
        let Tagged { tag, command } = match parse(&text, limits) {
            Ok(tagged) => tagged,
            Err(unreadable) => return self.on_unreadable(unreadable),
        };
        if let Err(refusal) = check(command.verb(), self.situation()) {
            return self.complete(&tag, refusal_status(refusal));
        }
        if matches!(command, Command::StartTls) {
            self.busy = self.calls.begin();
            if self.busy.is_none() {
                self.reader.put_back(&[&text[..], b"\r\n"].concat(), self.stream.input_mut());
                return self.hold().await;
            }
        }
        let permit = permit(&command);
        // Boxed, so that a session that waits between commands holds no room for the largest of them.
        let status = match Box::pin(self.execute(command, text, &tag)).await {
            Ok(None) => return Ok(()),
            Ok(Some(status)) | Err(Stop::Answer(status)) => status,
            // The client must read the tagged OK before it begins the handshake.
            Err(Stop::StartTls) => {
                Status::ok("begin TLS now").put(&mut self.out, Some(&tag));
                self.flush().await?;
                return Err(Stop::StartTls);
            }
            Err(stop) => return Err(stop),
        };
        self.finish(&tag, permit, status).await
    }

    /// Ends a command: tells what has changed, then how the command went.
    pub(super) async fn finish(&mut self, tag: &Tag, permit: Permit, status: Status) -> Outcome<()> {
        Box::pin(self.tell_changes(permit)).await?;
        self.complete(tag, status)?;
        if self.state.state() == State::Logout {
            self.flush().await?;
            return Err(Stop::LoggedOut);
        }
        Ok(())
    }

    /// Each command's own file does the work; `None` where it is answered step by step from now on.
    async fn execute(&mut self, command: Command, text: Vec<u8>, tag: &Tag) -> Outcome<Option<Status>> {
        let status = match command {
            Command::Fetch(fetch) => return self.begin_fetch(text, tag.clone(), fetch).map(|()| None),
            Command::Idle => {
                self.begin_idle(tag.clone());
                return Ok(None);
            }
            Command::Capability => Ok(self.capability()),
            Command::Noop => Ok(Status::ok("done")),
            Command::Check => Ok(Status::ok("everything is stored already")),
            Command::Logout => Ok(self.logout()),
            Command::Id(_) => Ok(self.identify()),
            Command::StartTls => Err(Stop::StartTls),
            Command::Login(login) => self.login(login).await,
            Command::Authenticate(authenticate) => self.authenticate(authenticate).await,
            Command::Enable(_) => Ok(self.enable()),
            Command::Namespace => {
                put_namespace(&mut self.out);
                Ok(Status::ok("namespaces told"))
            }
            Command::Select(select) => self.select(select).await,
            Command::Unselect => Ok(self.unselect()),
            Command::Close => self.close().await,
            Command::Create(create) => self.create(create).await,
            Command::Delete(mailbox) => self.delete(mailbox).await,
            Command::Rename(rename) => self.rename(rename).await,
            Command::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Command::List(list) => self.list(list).await,
            Command::Lsub(lsub) => self.lsub(lsub).await,
            Command::Status(status) => self.status(status).await,
            Command::Expunge(uids) => self.expunge(uids).await,
            Command::Search(search) => self.search(search).await,
            Command::Store(store) => self.store(store).await,
            Command::Copy(copy) => self.copy(copy).await,
        };
        status.map(Some)
    }

    fn on_unreadable(&mut self, unreadable: Unreadable) -> Outcome<()> {
        let text = unreadable.error.to_string();
        let status = match unreadable.error {
            ParseError::Charset => Status::no(text).code(Code::BadCharset),
            ParseError::MailboxName => Status::no(text).code(Code::Cannot),
            _ => Status::bad(text),
        };
        self.answer(unreadable.tag.as_ref(), status)
    }

    fn on_refused(&mut self, text: &[u8], error: FrameError) -> Outcome<()> {
        self.answer(Tag::of(text).as_ref(), Status::bad(error.to_string()))
    }

    pub fn complete(&mut self, tag: &Tag, status: Status) -> Outcome<()> {
        self.answer(Some(tag), status)
    }

    /// Ends a command with its status; wrong ones in a row are counted.
    fn answer(&mut self, tag: Option<&Tag>, status: Status) -> Outcome<()> {
        status.put(&mut self.out, tag);
        if status.condition != Condition::Ok {
            emit(CommandRefused {
                protocol: self.protocol.as_str(),
                client: self.stream.transport().peer_ip(),
                kind: if status.code == Some(Code::Unavailable) { "temporary" } else { "permanent" },
                reply: status.text.clone(),
            });
        }
        // A guess at a password counts as much as a wrong command, another NO neither for nor against the client.
        let is_guess = status.code == Some(Code::AuthenticationFailed);
        match status.condition {
            Condition::Ok => self.state.errors = 0,
            Condition::Bad => self.state.errors += 1,
            _ => self.state.errors += usize::from(is_guess),
        }
        if self.state.errors >= self.settings.imap.errors_max { Err(Stop::TooManyErrors) } else { Ok(()) }
    }

    async fn start_tls(self) -> Result<Self, posthouse_net::Error> {
        let Some(acceptor) = &self.tls else {
            return Err(posthouse_net::Error::AlreadyTls);
        };
        // RFC 3501 §6.2.1: what was said before counts no more; the stream drops what was sent ahead.
        let stream = handshake::shake(self.stream, acceptor, &self.calls).await?;
        Ok(Self { stream, busy: None, ..self })
    }

    /// Says goodbye where there is somebody to hear it.
    async fn end(mut self, stop: Stop) -> &'static str {
        let limit = self.settings.imap.write_timeout.get();
        if let Stop::Unreadable(error) = &stop {
            let client = self.stream.transport().peer_ip();
            emit(AnswerBroken { protocol: self.protocol.as_str(), client, reason: error.to_string() });
        }
        if let Some(farewell) = stop.farewell() {
            farewell.put(&mut self.out, None);
        }
        if !matches!(stop, Stop::Lost(posthouse_net::Error::WriteTimeout | posthouse_net::Error::Closed)) {
            // The session is over: whether the client still reads is its own affair.
            let _ = self.flush().await;
        }
        self.stream.close(limit).await;
        stop.reason()
    }

    /// Sends what waits, whatever the node asks.
    async fn flush(&mut self) -> Outcome<()> {
        Ok(self.stream.send(&mut self.out, self.settings.imap.write_timeout.get()).await?)
    }

    /// Sends what waits; false when the node called before all of it was out.
    pub async fn send_waiting(&mut self) -> Outcome<bool> {
        let limit = self.settings.imap.write_timeout.get();
        tokio::select! {
            biased;
            sent = self.stream.send(&mut self.out, limit) => Ok(sent.map(|()| true)?),
            () = self.calls.changed() => Ok(false),
        }
    }

    /// Sends as much as the client takes, or nothing when the node calls.
    async fn send_some(&mut self) -> Outcome<()> {
        let limit = self.settings.imap.write_timeout.get();
        tokio::select! {
            biased;
            sent = self.stream.write_some(&self.out, limit) => drop(self.out.drain(..sent?)),
            () = self.calls.changed() => {}
        }
        Ok(())
    }

    /// Within a command: sends what is rendered when it fills the buffer that a slow client may hold. A session that is to
    /// move keeps it instead, so that it comes to a safe point although its client does not read.
    pub async fn flush_if_full(&mut self) -> Outcome<()> {
        while self.out.len() >= self.settings.imap.io_buffer.len() {
            if self.calls.now() == Call::Move && self.out.len() < UNSENT_MAX / 2 || self.send_waiting().await? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub fn situation(&self) -> Situation {
        let transport = self.stream.transport();
        let tls = transport.is_tls();
        Situation {
            state: self.state.state(),
            read_only: self.state.selected().is_some_and(|selected| selected.read_only),
            tls,
            tls_offered: self.tls.is_some(),
            password_allowed: tls || transport.is_loopback(),
        }
    }

    pub fn capability_code(&self) -> Code {
        Code::Capability(capabilities(self.situation()))
    }

    /// The account; the table of states has let only a logged-in client come here.
    pub fn account(&self) -> Outcome<AccountId> {
        self.state.account().ok_or_else(|| Stop::Answer(refusal_status(Refusal::LogInFirst)))
    }

    /// The open mailbox; the table of states has let only a client that selected one come here.
    pub fn selected(&self) -> Outcome<&Selected> {
        self.state.selected().ok_or_else(|| Stop::Answer(refusal_status(Refusal::SelectFirst)))
    }

    pub fn selected_mut(&mut self) -> Outcome<&mut Selected> {
        self.state.selected_mut().ok_or_else(|| Stop::Answer(refusal_status(Refusal::SelectFirst)))
    }
}

/// The bounds of what a client may send.
pub(super) fn frame_limits(settings: &Settings) -> FrameLimits {
    let imap = &settings.imap;
    FrameLimits {
        line_max: imap.line_max.len(),
        literal_max: imap.literal_max.get(),
        literals_total_max: imap.literals_total_max.get(),
        append_max: imap.append_max.get(),
    }
}

/// Octets that may wait to be read.
pub(super) fn input_max(limits: &FrameLimits) -> usize {
    limits.line_max.saturating_add(READ_ROOM)
}

/// The one place that words a refusal of the table of states.
pub fn refusal_status(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::PrivacyRequired => Status::no(text).code(Code::PrivacyRequired),
        Refusal::ReadOnly => Status::no(text).code(Code::ReadOnly),
        refusal if refusal.is_bad() => Status::bad(text),
        _ => Status::no(text),
    }
}

/// RFC 3501 §7.4.1: what may be told before the command completes.
fn permit(command: &Command) -> Permit {
    let kind = match command {
        Command::Fetch(fetch) => fetch.kind,
        Command::Store(store) => store.kind,
        Command::Search(Search { kind, .. }) => *kind,
        _ => NumberKind::Uid,
    };
    if command.verb().permits_expunge(kind) { Permit::All } else { Permit::Arrivals }
}
