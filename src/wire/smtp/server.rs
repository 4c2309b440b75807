//! The server's machine: one value a session, one table of verbs and states (RFC 5321 §4.1.4).
//!
//! Without I/O: a line goes in, the next state and one effect come out. What needs an answer from elsewhere (a password,
//! an address, the filter) leaves as an effect, and the answer comes in through the method of the same name. The value
//! holds all that a session knows between two lines, so that it can be moved to another process there.

mod greeted;
pub mod snapshot;
mod transaction;

use posthouse_mail::{AccountId, Address, Envelope, ForwardPath, IngestId, Recipient, Reply};

use super::command::{Command, CommandFault, Mail, Rcpt, Verb};
use super::line::LineFault;
use super::reply;
use crate::sasl::{Credentials, Exchange};

/// Whom a session serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Port 25: mail from anywhere for us.
    Receive,
    /// Ports 587 and 465: mail from our users for anywhere (RFC 6409).
    Submit,
}

/// What the configuration says; the same for every session of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub hostname: String,
    pub message_max: u64,
    pub recipients_max: usize,
    pub command_line_max: usize,
    /// Refused commands before the connection ends; an accepted message sets the count back.
    pub errors_max: usize,
    pub messages_max: usize,
    /// Whether there is a certificate, and so STARTTLS.
    pub starttls: bool,
    /// Whether delivery status notifications can be asked for (RFC 3461).
    pub dsn: bool,
    /// Whether VRFY looks addresses up.
    pub vrfy_reveals: bool,
}

/// One session, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpSession {
    facts: Facts,
    phase: Phase,
}

/// What holds whatever the phase.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    flavour: Flavour,
    tls: bool,
    login: Option<Login>,
    /// Refused commands since the last accepted message.
    errors: usize,
    /// Messages that reached their end of data.
    messages: usize,
}

/// Who has proved to be whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub account: AccountId,
    /// The account's own address.
    pub address: Address,
}

/// The client has said who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Greeted {
    hello: String,
    /// EHLO, not HELO.
    extended: bool,
}

/// From MAIL to the end of data.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MailTransaction {
    greeted: Greeted,
    envelope: Envelope,
    /// A forward-path was refused.
    refused: bool,
}

/// Where the dialogue stands; each phase holds just what is known in it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    ExpectHello,
    ExpectReversePath(Greeted),
    ExpectSaslResponse(Greeted, Exchange),
    CheckingCredentials(Greeted),
    CheckingReversePath(Greeted, Mail),
    ExpectForwardPath(MailTransaction),
    CheckingForwardPath(MailTransaction, Rcpt),
    ReceivingData(MailTransaction),
    Closed,
}

/// What the session's owner does next.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send it and go on with the next line.
    Reply(Reply),
    /// Send it and close.
    Close(Reply),
    /// Throw away what was read beyond this line, send the reply, start TLS, then call `on_tls` (RFC 3207 §4.2).
    StartTls(Reply),
    /// Check and call `on_credentials`.
    CheckCredentials(Credentials),
    /// Check and call `on_reverse_path`.
    CheckReversePath(Mail),
    /// Check and call `on_forward_path`.
    CheckForwardPath(ForwardPath),
    /// Look up and call `on_verified`. Only when the policy says so.
    Verify(String),
    /// Send the reply, receive data until its end, then call `on_message`.
    ReceiveData(Reply),
}

type Next = (Phase, Effect);

impl SmtpSession {
    /// A new connection; `tls` for implicit TLS (RFC 8314 §3.3).
    pub fn new(flavour: Flavour, tls: bool) -> Self {
        Self { facts: Facts { flavour, tls, login: None, errors: 0, messages: 0 }, phase: Phase::ExpectHello }
    }

    /// The reply that opens the dialogue.
    pub fn greeting(&self, policy: &Policy) -> Reply {
        reply::greeting(&policy.hostname)
    }

    /// Takes a line: a command, or a response within AUTH.
    pub fn on_line(self, line: Result<&str, LineFault>, policy: &Policy) -> (Self, Effect) {
        match (self.phase, line) {
            (Phase::ExpectSaslResponse(greeted, exchange), Ok(line)) => {
                self.facts.settle(greeted.sasl_step(exchange.on_line(line)), policy)
            }
            (phase, Ok(line)) => Self { phase, ..self }.on_command(Command::parse(line), policy),
            (phase, Err(fault)) => Self { phase, ..self }.on_command(Err(fault.into()), policy),
        }
    }

    /// The whole table of verbs and states, and nothing else.
    fn on_command(self, command: Result<Command, CommandFault>, policy: &Policy) -> (Self, Effect) {
        use Command as C;
        use Phase as P;
        let facts = self.facts;
        let command = match command {
            Ok(command) => command,
            Err(fault) => return facts.settle(self.phase.on_fault(&fault), policy),
        };
        let verb = command.verb();
        let next = match (self.phase, command) {
            // RFC 5321 §4.1.4: these are never out of sequence.
            (_, C::Quit) => (P::Closed, Effect::Close(reply::goodbye(&policy.hostname))),
            (phase, C::Noop) => (phase, Effect::Reply(reply::ok())),
            (phase, C::Help) => (phase, Effect::Reply(reply::help())),
            (phase, C::Vrfy(name)) if policy.vrfy_reveals => (phase, Effect::Verify(name)),
            (phase, C::Vrfy(_)) => (phase, Effect::Reply(reply::cannot_verify())),
            (phase, C::Expn) => (phase, Effect::Reply(reply::not_implemented(Verb::Expn))),
            (phase, C::Rset) => (phase.reset(), Effect::Reply(reply::ok())),
            // RFC 5321 §4.1.4: EHLO at any time starts afresh.
            (_, C::Ehlo(hello)) => facts.greet(Greeted { hello, extended: true }, policy),
            (_, C::Helo(hello)) => facts.greet(Greeted { hello, extended: false }, policy),

            (phase @ (P::ExpectHello | P::ExpectReversePath(_)), C::StartTls) => facts.start_tls(phase, policy),
            (P::ExpectReversePath(greeted), C::Auth { mechanism, initial }) => {
                facts.authenticate(greeted, &mechanism, initial.as_deref())
            }
            (P::ExpectReversePath(greeted), C::Mail(mail)) => facts.check_mail(greeted, mail, policy),
            (P::ExpectForwardPath(transaction), C::Rcpt(rcpt)) => transaction.check_rcpt(rcpt, policy),
            (P::ExpectForwardPath(transaction), C::Data) => transaction.start_data(),

            (phase, C::StartTls | C::Auth { .. } | C::Mail(_) | C::Rcpt(_) | C::Data) => facts.refuse(phase, verb),
        };
        facts.settle(next, policy)
    }

    /// TLS is active: what was said before it is forgotten (RFC 3207 §4.2).
    pub fn on_tls(self) -> Self {
        Self { facts: Facts { tls: true, login: None, ..self.facts }, phase: Phase::ExpectHello }
    }

    /// The password was right, or the reply says why not.
    pub fn on_credentials(self, checked: Result<Login, Reply>, policy: &Policy) -> (Self, Effect) {
        let Self { mut facts, phase } = self;
        let Phase::CheckingCredentials(greeted) = phase else {
            return Self { facts, phase }.unasked();
        };
        let said = checked.map_or_else(
            |refusal| refusal,
            |login| {
                facts.login = Some(login);
                reply::authenticated()
            },
        );
        facts.settle((Phase::ExpectReversePath(greeted), Effect::Reply(said)), policy)
    }

    /// The reverse-path may send, under this id, or the reply says why not.
    pub fn on_reverse_path(self, checked: Result<IngestId, Reply>, policy: &Policy) -> (Self, Effect) {
        let Self { facts, phase } = self;
        let Phase::CheckingReversePath(greeted, mail) = phase else {
            return Self { facts, phase }.unasked();
        };
        let next = match checked {
            Ok(id) => {
                let transaction = MailTransaction::begin(greeted, mail, id);
                (Phase::ExpectForwardPath(transaction), Effect::Reply(reply::sender_ok()))
            }
            Err(refusal) => (Phase::ExpectReversePath(greeted), Effect::Reply(refusal)),
        };
        facts.settle(next, policy)
    }

    /// The forward-path is one that we serve, or the reply says why not.
    pub fn on_forward_path(self, checked: Result<(), Reply>, policy: &Policy) -> (Self, Effect) {
        let Self { facts, phase } = self;
        let Phase::CheckingForwardPath(mut transaction, rcpt) = phase else {
            return Self { facts, phase }.unasked();
        };
        let Err(refusal) = checked else {
            transaction.add(rcpt);
            let next = (Phase::ExpectForwardPath(transaction), Effect::Reply(reply::recipient_ok()));
            return facts.settle(next, policy);
        };
        // A list with many stale addresses is no attack: a transaction counts as one error, however many it names.
        let counted = !transaction.refused;
        transaction.refused = true;
        let next = (Phase::ExpectForwardPath(transaction), Effect::Reply(refusal));
        if counted { facts.settle(next, policy) } else { (Self { facts, phase: next.0 }, next.1) }
    }

    /// What VRFY found; an unknown address counts as a refused command, so that nobody tries all names.
    pub fn on_verified(self, reply: Reply, policy: &Policy) -> (Self, Effect) {
        self.facts.settle((self.phase, Effect::Reply(reply)), policy)
    }

    /// The message is durable or refused: `reply` says which.
    pub fn on_message(self, reply: Reply, policy: &Policy) -> (Self, Effect) {
        let Self { mut facts, phase } = self;
        let Phase::ReceivingData(transaction) = phase else {
            return Self { facts, phase }.unasked();
        };
        facts.messages += 1;
        if reply.is_positive() {
            facts.errors = 0;
        }
        facts.settle((Phase::ExpectReversePath(transaction.greeted), Effect::Reply(reply)), policy)
    }

    /// An answer came that nobody asked for: a bug of the owner, which must not become a wrong transaction.
    fn unasked(self) -> (Self, Effect) {
        debug_assert!(false, "an answer without a question in {:?}", self.phase);
        (Self { phase: Phase::Closed, ..self }, Effect::Close(reply::local_error()))
    }

    pub fn flavour(&self) -> Flavour {
        self.facts.flavour
    }

    pub fn tls(&self) -> bool {
        self.facts.tls
    }

    /// Who logged in.
    pub fn login(&self) -> Option<&Login> {
        self.facts.login.as_ref()
    }

    /// The envelope of the transaction under way.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.phase {
            Phase::ExpectForwardPath(t) | Phase::CheckingForwardPath(t, _) | Phase::ReceivingData(t) => {
                Some(&t.envelope)
            }
            _ => None,
        }
    }

    /// The argument of EHLO or HELO, once known.
    pub fn hello(&self) -> Option<&str> {
        self.phase.greeted().map(|greeted| greeted.hello.as_str())
    }

    /// The `with` word of the Received field (RFC 5321 §4.4, RFC 3848 §2, RFC 6531 §4.3).
    pub fn protocol(&self) -> &'static str {
        let extended = self.phase.greeted().is_some_and(|greeted| greeted.extended);
        let utf8 = self.envelope().is_some_and(|envelope| envelope.smtputf8);
        match (extended, utf8, self.facts.tls, self.facts.login.is_some()) {
            (_, true, false, false) => "UTF8SMTP",
            (_, true, false, true) => "UTF8SMTPA",
            (_, true, true, false) => "UTF8SMTPS",
            (_, true, true, true) => "UTF8SMTPSA",
            (false, ..) => "SMTP",
            (true, _, false, false) => "ESMTP",
            (true, _, false, true) => "ESMTPA",
            (true, _, true, false) => "ESMTPS",
            (true, _, true, true) => "ESMTPSA",
        }
    }

    /// Whether a client that is told to go away now loses nothing: it is between two messages.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.phase, Phase::ExpectHello | Phase::ExpectReversePath(_))
    }

    /// The phase in one word, for metrics.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::ExpectHello => "hello",
            Phase::ExpectReversePath(_) => "idle",
            Phase::ExpectSaslResponse(..) | Phase::CheckingCredentials(_) => "auth",
            Phase::CheckingReversePath(..) | Phase::ExpectForwardPath(_) | Phase::CheckingForwardPath(..) => "envelope",
            Phase::ReceivingData(_) => "data",
            Phase::Closed => "closed",
        }
    }
}

impl Facts {
    /// Joins facts and phase again, counts a permanent refusal, and ends the dialogue at one too many. A temporary refusal
    /// is our doing, not the client's.
    fn settle(mut self, (phase, effect): Next, policy: &Policy) -> (SmtpSession, Effect) {
        if let Effect::Reply(reply) = &effect
            && !reply.is_positive()
            && !reply.is_transient()
        {
            self.errors += 1;
            if self.errors > policy.errors_max {
                return (SmtpSession { facts: self, phase: Phase::Closed }, Effect::Close(reply::too_many_errors()));
            }
        }
        (SmtpSession { facts: self, phase }, effect)
    }

    /// The one refusal of a command out of sequence; names what was expected.
    fn refuse(&self, phase: Phase, verb: Verb) -> Next {
        let said = match verb {
            // RFC 4954 §6, RFC 3207 §4: on submission the reason is a missing layer, whatever the phase.
            Verb::Auth if self.flavour == Flavour::Receive => reply::not_implemented(verb),
            Verb::Auth if !self.tls => reply::encryption_required(),
            Verb::Mail | Verb::Rcpt | Verb::Data if self.flavour == Flavour::Submit && !self.tls => {
                reply::starttls_required()
            }
            _ => reply::bad_sequence(verb, phase.expected(self)),
        };
        (phase, Effect::Reply(said))
    }
}

impl Phase {
    /// What would be in sequence now.
    fn expected(&self, facts: &Facts) -> &'static [Verb] {
        match self {
            Self::ExpectReversePath(_) if facts.flavour == Flavour::Submit && !facts.tls => &[Verb::StartTls],
            Self::ExpectReversePath(_) if facts.flavour == Flavour::Submit && facts.login.is_none() => &[Verb::Auth],
            Self::ExpectReversePath(_) => &[Verb::Mail],
            Self::ExpectForwardPath(t) if t.envelope.recipients.is_empty() => &[Verb::Rcpt],
            Self::ExpectForwardPath(_) => &[Verb::Rcpt, Verb::Data],
            _ => &[Verb::Ehlo],
        }
    }

    fn greeted(&self) -> Option<&Greeted> {
        match self {
            Self::ExpectReversePath(greeted)
            | Self::ExpectSaslResponse(greeted, _)
            | Self::CheckingCredentials(greeted)
            | Self::CheckingReversePath(greeted, _) => Some(greeted),
            Self::ExpectForwardPath(t) | Self::CheckingForwardPath(t, _) | Self::ReceivingData(t) => Some(&t.greeted),
            Self::ExpectHello | Self::Closed => None,
        }
    }

    /// RFC 5321 §4.1.1.5: RSET drops the transaction and nothing else.
    fn reset(self) -> Self {
        match self {
            Self::ExpectForwardPath(transaction) => Self::ExpectReversePath(transaction.greeted),
            other => other,
        }
    }

    /// A line that is no command. A wrong line end also drops the transaction: whoever can write an LF into an address
    /// must not get another command obeyed behind it.
    fn on_fault(self, fault: &CommandFault) -> Next {
        let said = Effect::Reply(reply::command_fault(fault));
        match (self, fault) {
            // RFC 4954 §4: a line too long or broken ends the exchange.
            (Self::ExpectSaslResponse(greeted, _), _) => (Self::ExpectReversePath(greeted), said),
            (phase, CommandFault::Line(LineFault::BareLineEnd)) => (phase.reset(), said),
            (phase, _) => (phase, said),
        }
    }
}

impl MailTransaction {
    fn begin(greeted: Greeted, mail: Mail, id: IngestId) -> Self {
        let envelope = Envelope {
            body: mail.body,
            smtputf8: mail.smtputf8,
            declared_size: mail.declared_size,
            envelope_id: mail.envelope_id,
            dsn_return: mail.dsn_return,
            ..Envelope::new(id, mail.reverse_path)
        };
        Self { greeted, envelope, refused: false }
    }

    /// A forward-path that comes twice gets the message once.
    fn add(&mut self, rcpt: Rcpt) {
        if self.envelope.recipients.iter().any(|known| known.path == rcpt.path) {
            return;
        }
        self.envelope.recipients.push(Recipient {
            path: rcpt.path,
            notify: rcpt.notify.unwrap_or_default(),
            original: rcpt.original,
        });
    }
}

#[cfg(test)]
mod tests;
