//! A session between two commands as a plain value, and a session made from one: how a dialogue leaves its process.
//!
//! Apart from the machine, whose states hold more than may stand still: within AUTH, DATA or a question to the owner there
//! is no snapshot. Whatever comes back is proved again to be a state that the machine could have reached.

use std::collections::HashSet;

use posthouse_mail::Envelope;

use super::{Command, Facts, Flavour, Greeted, Login, MailTransaction, Phase, SmtpSession};

/// All that a session knows between two commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub login: Option<Login>,
    /// Refused commands since the last accepted message.
    pub errors: usize,
    pub messages: usize,
    pub progress: Progress,
}

/// How far the dialogue has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    ExpectHello,
    ExpectReversePath(Hello),
    /// `refused`: a forward-path was.
    ExpectForwardPath {
        hello: Hello,
        envelope: Envelope,
        refused: bool,
    },
}

/// What the client said it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub name: String,
    /// EHLO, not HELO.
    pub extended: bool,
}

impl SmtpSession {
    /// Whether the session is between two commands.
    pub fn is_between_commands(&self) -> bool {
        matches!(self.phase, Phase::ExpectHello | Phase::ExpectReversePath(_) | Phase::ExpectForwardPath(_))
    }

    /// All that the session knows; `None` within a command.
    pub fn into_snapshot(self) -> Option<Snapshot> {
        let progress = match self.phase {
            Phase::ExpectHello => Progress::ExpectHello,
            Phase::ExpectReversePath(greeted) => Progress::ExpectReversePath(greeted.into()),
            Phase::ExpectForwardPath(MailTransaction { greeted, envelope, refused }) => {
                Progress::ExpectForwardPath { hello: greeted.into(), envelope, refused }
            }
            _ => return None,
        };
        let Facts { login, errors, messages, .. } = self.facts;
        Some(Snapshot { login, errors, messages, progress })
    }

    /// A session that goes on where another one stopped; `None` where none could have come there.
    pub fn restore(flavour: Flavour, tls: bool, snapshot: Snapshot) -> Option<Self> {
        let Snapshot { login, errors, messages, progress } = snapshot;
        // RFC 4954 §4, RFC 6409 §4.3: a login comes under TLS and on submission only, and there before a transaction.
        let may_log_in = flavour == Flavour::Submit && tls;
        let may_begin = flavour == Flavour::Receive || login.is_some();
        let phase = match progress {
            Progress::ExpectHello => Phase::ExpectHello,
            Progress::ExpectReversePath(hello) => Phase::ExpectReversePath(hello.check()?),
            Progress::ExpectForwardPath { hello, envelope, refused } if may_begin => {
                let mut paths = HashSet::new();
                if !envelope.recipients.iter().all(|recipient| paths.insert(&recipient.path)) {
                    return None;
                }
                Phase::ExpectForwardPath(MailTransaction { greeted: hello.check()?, envelope, refused })
            }
            Progress::ExpectForwardPath { .. } => return None,
        };
        if login.is_some() && !may_log_in {
            return None;
        }
        Some(Self { facts: Facts { flavour, tls, login, errors, messages }, phase })
    }
}

impl From<Greeted> for Hello {
    fn from(Greeted { hello, extended }: Greeted) -> Self {
        Self { name: hello, extended }
    }
}

impl Hello {
    /// The name stands in header fields, so it must be what the command's grammar lets in.
    fn check(self) -> Option<Greeted> {
        let read = Command::parse(&format!("EHLO {}", self.name));
        matches!(read, Ok(Command::Ehlo(name)) if name == self.name)
            .then_some(Greeted { hello: self.name, extended: self.extended })
    }
}
