//! The client's side of one SMTP connection, without I/O: what to send, what to wait for, what became of each recipient.
//!
//! The relay asks `step` what to do next and tells the machine what came back (`receive`), that the line broke (`lost`),
//! that TLS stands (`tls_started`) or that the data went out (`data_sent`). Whatever a server answers, every recipient of
//! a transaction ends with exactly one outcome, and a broken line is always a temporary one (RFC 5321 §4.5.4.1).

mod data;
mod extensions;
mod reply;
mod transaction;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthouse_mail::{DeliveryOutcome, RemoteReply, Secret};

pub use data::DotStuffer;
pub use extensions::Extensions;
pub use reply::{ReplyFault, ReplyLimits, ReplyReader};
pub use transaction::{Transaction, TransactionResult};

use transaction::{Next, Running};

/// How the client behaves on one connection.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Our own name, for EHLO.
    pub hostname: String,
    /// The peer's name, as outcomes and reports show it.
    pub peer: String,
    pub tls: ClientTls,
    pub login: Option<ClientLogin>,
    pub reply_limits: ReplyLimits,
}

/// When STARTTLS is asked for (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    Never,
    IfOffered,
    Required,
    /// The connection began with TLS (RFC 8314 §3.3).
    Active,
}

/// A login at a smarthost (RFC 4954).
#[derive(Debug, Clone)]
pub struct ClientLogin {
    pub user: String,
    pub password: Secret<String>,
    /// The peer is on this machine: the password may go without TLS.
    pub clear_allowed: bool,
}

/// What the relay does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Send(Vec<u8>),
    /// Read what the server says, then call `receive`; at the end of patience or of the stream, `lost`.
    Await(Wait),
    /// Shake hands, then call `tls_started`. If that fails the connection is of no more use.
    StartTls,
    /// The connection is free: call `begin` or `quit`, or drop it.
    Ready,
    /// Send the message through a `DotStuffer`, then call `data_sent`.
    SendData,
    Finished(TransactionResult),
    /// Nothing more will happen on this connection.
    Closed(CloseReason),
}

/// What is awaited: each has a time limit of its own (RFC 5321 §4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Greeting,
    Command,
    /// The reply to DATA.
    DataStart,
    /// The reply to the end of data: the longest wait, since a repeat is the price of giving up (§4.5.3.2.6).
    DataEnd,
}

/// Why a connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// We said QUIT.
    Quit,
    /// The server would not serve us: at the greeting, at EHLO, or with 421.
    Refused(RemoteReply),
    /// TLS is required here and the server has none.
    TlsMissing,
    /// The server does not take our login, or offers none that is safe.
    LoginRefused(Option<RemoteReply>),
    /// The line broke, or what came was no SMTP.
    Lost(String),
}

/// One connection's machine.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    phase: Phase,
    reader: ReplyReader,
    outbox: Vec<u8>,
    finished: Option<TransactionResult>,
    extensions: Extensions,
    /// A transaction ended before its data: the next one begins with RSET.
    needs_reset: bool,
}

#[derive(Debug)]
enum Phase {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Login,
    Ready,
    /// RSET was sent; the transaction waits.
    Reset(Box<Running>),
    Mail(Box<Running>),
    Quit,
    Closed(CloseReason),
}

impl Client {
    /// A connection that was just opened: the server speaks first (RFC 5321 §3.1).
    pub fn new(settings: ClientSettings) -> Self {
        let reader = ReplyReader::new(settings.reply_limits);
        Self {
            settings,
            phase: Phase::Greeting,
            reader,
            outbox: Vec::new(),
            finished: None,
            extensions: Extensions::default(),
            needs_reset: false,
        }
    }

    /// What the server offered at EHLO.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// What to do next. `Finished` is said once; all others until something changes.
    pub fn step(&mut self) -> Step {
        if !self.outbox.is_empty() {
            return Step::Send(std::mem::take(&mut self.outbox));
        }
        if let Some(result) = self.finished.take() {
            return Step::Finished(result);
        }
        match &self.phase {
            Phase::Greeting => Step::Await(Wait::Greeting),
            Phase::Handshake => Step::StartTls,
            Phase::Ready => Step::Ready,
            Phase::Mail(running) => match running.awaited() {
                Some(wait) => Step::Await(wait),
                None => Step::SendData,
            },
            Phase::Closed(reason) => Step::Closed(reason.clone()),
            Phase::Ehlo | Phase::Helo | Phase::StartTls | Phase::Login | Phase::Reset(_) | Phase::Quit => {
                Step::Await(Wait::Command)
            }
        }
    }

    /// Takes octets that the server sent.
    pub fn receive(&mut self, octets: &[u8]) {
        self.reader.push(octets);
        loop {
            // What comes while it is our turn is kept until it is the server's again.
            if matches!(self.phase, Phase::Closed(_) | Phase::Handshake | Phase::Ready) || self.is_sending() {
                return;
            }
            match self.reader.next_reply() {
                Ok(Some(reply)) => self.on_reply(reply),
                Ok(None) => return,
                Err(fault) => return self.lost(&fault.to_string()),
            }
        }
    }

    fn is_sending(&self) -> bool {
        matches!(&self.phase, Phase::Mail(running) if running.awaited().is_none())
    }

    /// The line broke, or the server took too long.
    pub fn lost(&mut self, reason: &str) {
        if self.is_sending()
            && let Ok(Some(reply)) = self.reader.next_reply()
            && reply.code >= 400
        {
            // A server that refuses in the middle of the data and hangs up has answered all the same.
            if let Phase::Mail(running) = &mut self.phase {
                running.data_sent();
            }
            self.on_reply(reply);
        }
        if !matches!(self.phase, Phase::Closed(_)) {
            self.close(CloseReason::Lost(reason.to_owned()));
        }
    }

    /// The TLS handshake is done: all that was known of the server is void (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if !matches!(self.phase, Phase::Handshake) {
            return;
        }
        self.settings.tls = ClientTls::Active;
        // Octets that came in the clear behind the 220 are nobody's: the server speaks next only after our EHLO.
        self.reader = ReplyReader::new(self.settings.reply_limits);
        self.extensions = Extensions::default();
        self.say_hello();
    }

    /// Starts a transaction; only when `step` said `Ready`.
    pub fn begin(&mut self, transaction: Transaction) {
        if !matches!(self.phase, Phase::Ready) {
            debug_assert!(false, "begin is called when the connection is ready");
            return;
        }
        let running = Running::new(transaction, &self.extensions, &self.settings.peer);
        if let Some(result) = running.refused_beforehand() {
            self.finished = Some(result);
        } else if std::mem::take(&mut self.needs_reset) {
            self.send("RSET\r\n");
            self.phase = Phase::Reset(Box::new(running));
        } else {
            self.go_on(Box::new(running));
        }
    }

    /// The data and its end went out.
    pub fn data_sent(&mut self) {
        if let Phase::Mail(running) = &mut self.phase {
            running.data_sent();
            self.receive(&[]);
        }
    }

    /// Says goodbye; only when `step` said `Ready`.
    pub fn quit(&mut self) {
        if matches!(self.phase, Phase::Ready) {
            self.send("QUIT\r\n");
            self.phase = Phase::Quit;
        }
    }

    fn send(&mut self, text: &str) {
        self.outbox.extend_from_slice(text.as_bytes());
    }

    fn on_reply(&mut self, reply: RemoteReply) {
        // RFC 5321 §3.8: 421 may come at any time, for any command.
        if reply.code == 421 && !matches!(self.phase, Phase::Quit) {
            return self.close(CloseReason::Refused(reply));
        }
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Greeting if reply.code == 220 => self.say_hello(),
            // RFC 5321 §3.1: 554 here says that this host takes no mail at all. Another MX may; so never a bounce.
            Phase::Greeting => self.close(CloseReason::Refused(reply)),
            Phase::Ehlo => self.after_ehlo(reply),
            Phase::Helo if is_ok(&reply) => self.after_hello(),
            Phase::Helo => self.close(CloseReason::Refused(reply)),
            Phase::StartTls => self.after_starttls(reply),
            Phase::Login if reply.code == 235 => {}
            Phase::Login => self.close(CloseReason::LoginRefused(Some(reply))),
            Phase::Reset(running) if is_ok(&reply) => self.go_on(running),
            Phase::Reset(running) => {
                self.phase = Phase::Reset(running);
                self.close(CloseReason::Refused(reply));
            }
            Phase::Mail(mut running) => {
                running.on_reply(&reply);
                self.go_on(running);
            }
            Phase::Quit => self.phase = Phase::Closed(CloseReason::Quit),
            other @ (Phase::Handshake | Phase::Ready | Phase::Closed(_)) => self.phase = other,
        }
    }

    fn say_hello(&mut self) {
        let hello = format!("EHLO {}\r\n", self.settings.hostname);
        self.send(&hello);
        self.phase = Phase::Ehlo;
    }

    fn after_ehlo(&mut self, reply: RemoteReply) {
        if is_ok(&reply) {
            self.extensions = Extensions::read(self.reader.last_lines());
            return self.after_hello();
        }
        if reply.code < 500 {
            return self.close(CloseReason::Refused(reply));
        }
        // RFC 5321 §3.2: a server that does not know EHLO is asked with HELO.
        self.extensions = Extensions::default();
        let hello = format!("HELO {}\r\n", self.settings.hostname);
        self.send(&hello);
        self.phase = Phase::Helo;
    }

    fn after_hello(&mut self) {
        let offered = self.extensions.starttls;
        match self.settings.tls {
            ClientTls::IfOffered | ClientTls::Required if offered => {
                self.send("STARTTLS\r\n");
                self.phase = Phase::StartTls;
            }
            ClientTls::Required => self.close(CloseReason::TlsMissing),
            ClientTls::Never | ClientTls::IfOffered | ClientTls::Active => self.log_in(),
        }
    }

    fn after_starttls(&mut self, reply: RemoteReply) {
        if reply.code == 220 {
            // Replies smuggled in behind the 220 would be taken for the server's own (RFC 3207 §6): no TLS with such a peer.
            match self.reader.is_empty() {
                true => self.phase = Phase::Handshake,
                false => self.close(CloseReason::Lost("octets in the clear behind the reply to STARTTLS".to_owned())),
            }
        } else if self.settings.tls == ClientTls::Required {
            self.close(CloseReason::TlsMissing);
        } else {
            // RFC 3207 §4: 454, TLS not available at the moment. Opportunistic TLS goes on in the clear.
            self.log_in();
        }
    }

    fn log_in(&mut self) {
        self.phase = Phase::Ready;
        let Some(login) = &self.settings.login else { return };
        // RFC 4954 §4, RFC 4616 §4: PLAIN shows the password to whoever reads the line.
        let safe = self.settings.tls == ClientTls::Active || login.clear_allowed;
        if !safe || !self.extensions.auth_plain {
            return self.close(CloseReason::LoginRefused(None));
        }
        let token = STANDARD.encode(format!("\0{}\0{}", login.user, login.password.reveal()));
        let command = format!("AUTH PLAIN {token}\r\n");
        self.send(&command);
        self.phase = Phase::Login;
    }

    /// Sends the next commands of a transaction, or ends it.
    fn go_on(&mut self, mut running: Box<Running>) {
        match running.next() {
            Next::Send(commands) => {
                self.outbox.extend_from_slice(&commands);
                self.phase = Phase::Mail(running);
            }
            Next::Wait => self.phase = Phase::Mail(running),
            Next::Ended { needs_reset } => {
                self.needs_reset = needs_reset;
                self.finished = Some(running.into_result(None));
                self.phase = Phase::Ready;
            }
        }
    }

    /// Ends the connection; recipients without an outcome are tried again later.
    fn close(&mut self, reason: CloseReason) {
        self.outbox.clear();
        let phase = std::mem::replace(&mut self.phase, Phase::Closed(reason.clone()));
        if let Phase::Mail(running) | Phase::Reset(running) = phase {
            self.finished = Some(running.into_result(Some(&reason)));
        }
    }
}

impl CloseReason {
    /// What recipients hear that this connection could not serve: always a temporary failure.
    pub fn outcome(&self, host: &str) -> DeliveryOutcome {
        let (status, reason, reply) = match self {
            Self::Quit => ((4, 4, 2), "the connection was closed".to_owned(), None),
            Self::Refused(reply) => ((4, 3, 2), "the server does not serve us now".to_owned(), Some(reply.clone())),
            Self::TlsMissing => ((4, 7, 4), "the server offers no TLS, which is required here".to_owned(), None),
            Self::LoginRefused(reply) => ((4, 7, 0), "the server does not take our login".to_owned(), reply.clone()),
            Self::Lost(why) => ((4, 4, 2), why.clone(), None),
        };
        let (class, subject, detail) = status;
        let status = posthouse_mail::EnhancedStatus::new(class, subject, detail);
        DeliveryOutcome::Deferred { host: Some(host.to_owned()), status, reason, reply }
    }
}

fn is_ok(reply: &RemoteReply) -> bool {
    (200..300).contains(&reply.code)
}
