//! Which command is legal in which state, as one table, and the one function that refuses (RFC 3501 §3, §6).

use super::sequence::NumberKind;

/// RFC 3501 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    NotAuthenticated,
    Authenticated,
    Selected,
    Logout,
}

/// The name of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    Authenticate,
    Login,
    Enable,
    Select,
    Examine,
    Create,
    Delete,
    Rename,
    Subscribe,
    Unsubscribe,
    List,
    Lsub,
    Namespace,
    Status,
    Append,
    Check,
    Close,
    Unselect,
    Expunge,
    Search,
    Fetch,
    Store,
    Copy,
    Move,
    Idle,
}

const VERBS: [(Verb, &str); 30] = [
    (Verb::Capability, "CAPABILITY"),
    (Verb::Noop, "NOOP"),
    (Verb::Logout, "LOGOUT"),
    (Verb::Id, "ID"),
    (Verb::StartTls, "STARTTLS"),
    (Verb::Authenticate, "AUTHENTICATE"),
    (Verb::Login, "LOGIN"),
    (Verb::Enable, "ENABLE"),
    (Verb::Select, "SELECT"),
    (Verb::Examine, "EXAMINE"),
    (Verb::Create, "CREATE"),
    (Verb::Delete, "DELETE"),
    (Verb::Rename, "RENAME"),
    (Verb::Subscribe, "SUBSCRIBE"),
    (Verb::Unsubscribe, "UNSUBSCRIBE"),
    (Verb::List, "LIST"),
    (Verb::Lsub, "LSUB"),
    (Verb::Namespace, "NAMESPACE"),
    (Verb::Status, "STATUS"),
    (Verb::Append, "APPEND"),
    (Verb::Check, "CHECK"),
    (Verb::Close, "CLOSE"),
    (Verb::Unselect, "UNSELECT"),
    (Verb::Expunge, "EXPUNGE"),
    (Verb::Search, "SEARCH"),
    (Verb::Fetch, "FETCH"),
    (Verb::Store, "STORE"),
    (Verb::Copy, "COPY"),
    (Verb::Move, "MOVE"),
    (Verb::Idle, "IDLE"),
];

impl Verb {
    pub fn parse(word: &str) -> Option<Self> {
        VERBS.iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(verb, _)| *verb)
    }

    pub fn as_str(self) -> &'static str {
        VERBS.iter().find(|(verb, _)| *verb == self).map_or("", |(_, name)| name)
    }

    /// RFC 3501 §6.4.8, RFC 4315 §2.1, RFC 6851 §3.2.
    pub fn takes_uid(self) -> bool {
        matches!(self, Self::Fetch | Self::Store | Self::Search | Self::Copy | Self::Move | Self::Expunge)
    }

    pub fn takes_arguments(self, kind: NumberKind) -> bool {
        match self {
            Self::Capability
            | Self::Noop
            | Self::Logout
            | Self::StartTls
            | Self::Namespace
            | Self::Check
            | Self::Close
            | Self::Unselect
            | Self::Idle => false,
            Self::Expunge => kind == NumberKind::Uid,
            _ => true,
        }
    }

    /// Whether EXPUNGE responses may be sent before this command's completion (RFC 3501 §7.4.1). The UID forms may have
    /// them: only the client that counts numbers is led astray.
    pub fn permits_expunge(self, kind: NumberKind) -> bool {
        kind == NumberKind::Uid || !matches!(self, Self::Fetch | Self::Store | Self::Search)
    }
}

/// What the answer to a command hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    pub state: State,
    /// The mailbox was opened with EXAMINE.
    pub read_only: bool,
    pub tls: bool,
    /// A certificate is there for STARTTLS.
    pub tls_offered: bool,
    /// A password may be sent: under TLS, or on loopback.
    pub password_allowed: bool,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("log in first")]
    LogInFirst,
    #[error("already logged in")]
    AlreadyLoggedIn,
    #[error("select a mailbox first")]
    SelectFirst,
    #[error("the session is over")]
    LoggedOut,
    #[error("TLS is already on")]
    TlsAlready,
    #[error("TLS is not available")]
    NoTls,
    /// RFC 3501 §6.2.3, §11.2: LOGINDISABLED.
    #[error("use STARTTLS before a password")]
    PrivacyRequired,
    #[error("the mailbox is open for reading only")]
    ReadOnly,
}

impl Refusal {
    /// RFC 3501 §7.1: BAD where the client is wrong about the protocol, NO where the command is well but cannot be done.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::NoTls | Self::PrivacyRequired | Self::ReadOnly)
    }
}

/// The whole table of states and commands, and nothing else.
pub fn check(verb: Verb, situation: Situation) -> Result<(), Refusal> {
    use State::{Authenticated, Logout, NotAuthenticated, Selected};
    match (situation.state, verb) {
        (Logout, _) => Err(Refusal::LoggedOut),

        // RFC 3501 §6.1: valid in any state.
        (_, Verb::Capability | Verb::Noop | Verb::Logout | Verb::Id) => Ok(()),

        // RFC 3501 §6.2: before login only.
        (NotAuthenticated, Verb::StartTls) if situation.tls => Err(Refusal::TlsAlready),
        (NotAuthenticated, Verb::StartTls) if !situation.tls_offered => Err(Refusal::NoTls),
        (NotAuthenticated, Verb::StartTls) => Ok(()),
        (NotAuthenticated, Verb::Login | Verb::Authenticate) if !situation.password_allowed => {
            Err(Refusal::PrivacyRequired)
        }
        (NotAuthenticated, Verb::Login | Verb::Authenticate) => Ok(()),
        (_, Verb::StartTls | Verb::Login | Verb::Authenticate) => Err(Refusal::AlreadyLoggedIn),
        (NotAuthenticated, _) => Err(Refusal::LogInFirst),

        // RFC 3501 §6.4: with a mailbox selected. RFC 6851 §3, RFC 3691 §2 the same.
        (
            Authenticated,
            Verb::Check
            | Verb::Close
            | Verb::Unselect
            | Verb::Expunge
            | Verb::Search
            | Verb::Fetch
            | Verb::Store
            | Verb::Copy
            | Verb::Move,
        ) => Err(Refusal::SelectFirst),
        (Selected, Verb::Expunge | Verb::Store | Verb::Move) if situation.read_only => Err(Refusal::ReadOnly),

        // RFC 3501 §6.3, RFC 2177 §3, RFC 2342 §5, RFC 5161 §3.1.
        (Authenticated | Selected, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Situation = Situation {
        state: State::NotAuthenticated,
        read_only: false,
        tls: false,
        tls_offered: true,
        password_allowed: false,
    };

    #[test]
    fn commands_are_refused_in_the_wrong_state() {
        let tls = Situation { tls: true, password_allowed: true, ..PLAIN };
        let authenticated = Situation { state: State::Authenticated, ..tls };
        let selected = Situation { state: State::Selected, ..tls };
        for (verb, situation, expect) in [
            (Verb::Noop, PLAIN, Ok(())),
            (Verb::StartTls, PLAIN, Ok(())),
            (Verb::StartTls, tls, Err(Refusal::TlsAlready)),
            (Verb::StartTls, Situation { tls_offered: false, ..PLAIN }, Err(Refusal::NoTls)),
            (Verb::Login, PLAIN, Err(Refusal::PrivacyRequired)),
            (Verb::Authenticate, PLAIN, Err(Refusal::PrivacyRequired)),
            (Verb::Login, tls, Ok(())),
            (Verb::Select, tls, Err(Refusal::LogInFirst)),
            (Verb::Fetch, tls, Err(Refusal::LogInFirst)),
            (Verb::Login, authenticated, Err(Refusal::AlreadyLoggedIn)),
            (Verb::StartTls, selected, Err(Refusal::AlreadyLoggedIn)),
            (Verb::Fetch, authenticated, Err(Refusal::SelectFirst)),
            (Verb::Idle, authenticated, Ok(())),
            (Verb::Fetch, selected, Ok(())),
            (Verb::Select, selected, Ok(())),
            (Verb::Store, Situation { read_only: true, ..selected }, Err(Refusal::ReadOnly)),
            (Verb::Copy, Situation { read_only: true, ..selected }, Ok(())),
            (Verb::Noop, Situation { state: State::Logout, ..tls }, Err(Refusal::LoggedOut)),
        ] {
            assert_eq!(check(verb, situation), expect, "{verb:?} in {situation:?}");
        }
    }

    #[test]
    fn every_verb_has_one_name() {
        for (verb, name) in VERBS {
            assert_eq!(Verb::parse(&name.to_ascii_lowercase()), Some(verb));
            assert_eq!(verb.as_str(), name);
        }
    }
}
