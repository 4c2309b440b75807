//! Which command is legal in which state, and what follows (RFC 1939 §3–§6).
//!
//! The session feeds lines, does what an `Effect` says, and reports back through `opened`, `refused` and `tls_started`.

use crate::sasl::{Credentials, Exchange, Mechanism, SaslError, Step};

use super::command::{Command, CommandFault, Number, Verb};
use super::listing::Listing;
use super::maildrop::{Entry, Maildrop};
use super::response::Response;
use super::stuffing::LineLimit;
use posthouse_mail::{Secret, Uid};

/// What the connection allows just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// STLS is possible: there is a certificate, and TLS is not active yet.
    pub stls: bool,
    /// A password may be sent: TLS is active, or both ends are on this machine.
    pub login: bool,
}

/// What the session does next.
#[derive(Debug)]
pub enum Effect {
    /// Send these octets and wait for the next line.
    Send(Vec<u8>),
    /// Send the refusal and count it.
    Refuse(Response),
    /// Send the response, run the TLS handshake, call `tls_started`.
    StartTls(Response),
    /// Check these, then call `opened` or `refused`.
    Authenticate(Credentials),
    /// Send the response, then the listing to its end.
    List(Response, Listing),
    /// Send the response, then the message byte-stuffed, whole or its beginning.
    Retrieve { number: Number, entry: Entry, limit: Option<LineLimit> },
    /// Remove these, answer, close (RFC 1939 §6).
    Commit(Vec<Uid>),
    /// Send the response and close.
    Close(Response),
}

/// Part of the session's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    offer: Offer,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// RFC 1939 §4; a name was given by USER.
    Authorization { user: Option<String> },
    /// Within AUTH (RFC 5034 §4).
    Exchange(Exchange),
    /// The session checks credentials.
    Checking,
    /// RFC 1939 §5.
    Transaction(Maildrop),
    /// RFC 1939 §6.
    Update,
}

/// What a server knows between two commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    Authorization { user: Option<String> },
    Transaction(Maildrop),
}

const FRESH: Phase = Phase::Authorization { user: None };

/// The verbs of each state, as a refusal names them.
const IN_AUTHORIZATION: &str = "USER, PASS, AUTH, STLS, UTF8, CAPA or QUIT";
const IN_TRANSACTION: &str = "STAT, LIST, UIDL, RETR, TOP, DELE, RSET, NOOP, CAPA or QUIT";

impl Server {
    pub fn new(offer: Offer) -> Self {
        Self { offer, phase: FRESH }
    }

    /// A server that goes on where another one stopped.
    pub fn restore(offer: Offer, snapshot: Snapshot) -> Self {
        let phase = match snapshot {
            Snapshot::Authorization { user } => Phase::Authorization { user },
            Snapshot::Transaction(maildrop) => Phase::Transaction(maildrop),
        };
        Self { offer, phase }
    }

    /// Whether the server is between two commands, so that a snapshot is all of it.
    pub fn is_between_commands(&self) -> bool {
        matches!(self.phase, Phase::Authorization { .. } | Phase::Transaction(_))
    }

    /// All that it knows; `None` within a command or an exchange.
    pub fn into_snapshot(self) -> Option<Snapshot> {
        match self.phase {
            Phase::Authorization { user } => Some(Snapshot::Authorization { user }),
            Phase::Transaction(maildrop) => Some(Snapshot::Transaction(maildrop)),
            Phase::Exchange(_) | Phase::Checking | Phase::Update => None,
        }
    }

    /// Takes a line without its CRLF. To be called only when no effect is under way.
    pub fn on_line(&mut self, line: &str) -> Effect {
        let phase = std::mem::replace(&mut self.phase, FRESH);
        let (phase, effect) = match phase {
            Phase::Exchange(exchange) => on_step(exchange.on_line(line)),
            phase => match Command::parse(line) {
                Ok(command) => self.on_command(phase, command),
                Err(fault) => (phase, refuse_fault(fault)),
            },
        };
        self.phase = phase;
        effect
    }

    /// The whole state × verb table.
    fn on_command(&self, phase: Phase, command: Command) -> (Phase, Effect) {
        match (phase, command) {
            (phase, Command::Capa) => {
                let list = self.capabilities(&phase);
                (phase, Effect::Send(list))
            }
            (Phase::Authorization { .. }, Command::User(name)) => self.user(name),
            (Phase::Authorization { user: Some(user) }, Command::Pass(password)) => pass(user, password),
            (Phase::Authorization { user: None }, Command::Pass(_)) => (FRESH, refuse("USER comes first")),
            (Phase::Authorization { .. }, Command::Auth(argument)) => self.auth(argument),
            (phase @ Phase::Authorization { .. }, Command::Stls) => self.stls(phase),
            // todo RFC 6856 §4: without this command, a message in UTF-8 should reach the client in a surrogate form.
            (phase @ Phase::Authorization { .. }, Command::Utf8) => (phase, ok("UTF-8 it is")),
            (Phase::Authorization { .. }, Command::Quit) => (FRESH, Effect::Close(Response::ok("goodbye"))),
            (phase @ Phase::Authorization { .. }, command) => (phase, out_of_place(command.verb(), IN_AUTHORIZATION)),
            (Phase::Transaction(maildrop), command) => in_transaction(maildrop, command),
            (phase @ (Phase::Exchange(_) | Phase::Checking | Phase::Update), _) => (phase, refuse("not now")),
        }
    }

    /// Credentials were right and the maildrop is locked: TRANSACTION begins.
    pub fn opened(&mut self, maildrop: Maildrop) -> Response {
        let (count, octets) = maildrop.stat();
        self.phase = Phase::Transaction(maildrop);
        Response::ok(format!("maildrop has {count} messages ({octets} octets)"))
    }

    /// The login failed, for whatever reason; the client may try again.
    pub fn refused(&mut self) {
        self.phase = FRESH;
    }

    /// RFC 2595 §4: after the handshake the server forgets what it was told before.
    pub fn tls_started(&mut self) {
        *self = Self::new(Offer { stls: false, login: true });
    }

    /// The open maildrop, in TRANSACTION.
    pub fn maildrop(&self) -> Option<&Maildrop> {
        match &self.phase {
            Phase::Transaction(maildrop) => Some(maildrop),
            _ => None,
        }
    }

    /// Whether the client has logged in.
    pub fn is_open(&self) -> bool {
        self.maildrop().is_some()
    }

    fn user(&self, name: String) -> (Phase, Effect) {
        if !self.offer.login {
            return (FRESH, no_login());
        }
        // RFC 1939 §13: the answer must not tell whether there is such a mailbox.
        (Phase::Authorization { user: Some(name) }, ok("now the password"))
    }

    fn auth(&self, argument: Option<(String, Option<Secret<String>>)>) -> (Phase, Effect) {
        let Some((mechanism, initial)) = argument else {
            return (FRESH, Effect::Send(mechanism_list(self.offer.login)));
        };
        if !self.offer.login {
            return (FRESH, no_login());
        }
        match Mechanism::parse(&mechanism) {
            Some(mechanism) => on_step(Exchange::begin(mechanism, initial.as_ref().map(|text| text.reveal().as_str()))),
            None => (FRESH, refuse("no such mechanism here")),
        }
    }

    fn stls(&self, phase: Phase) -> (Phase, Effect) {
        if self.offer.stls {
            return (FRESH, Effect::StartTls(Response::ok("begin TLS")));
        }
        // RFC 2595 §4: -ERR when TLS is active already.
        (phase, refuse("TLS is active already, or not possible here"))
    }

    /// RFC 2449 §5; the list differs by state, and passwords are offered only where they may be sent.
    fn capabilities(&self, phase: &Phase) -> Vec<u8> {
        let mut list = String::from("+OK capabilities follow\r\n");
        for line in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8 USER", "EXPIRE NEVER"] {
            list.push_str(line);
            list.push_str("\r\n");
        }
        if self.offer.login {
            list.push_str("USER\r\nSASL PLAIN LOGIN\r\n");
        }
        if self.offer.stls && matches!(phase, Phase::Authorization { .. }) {
            list.push_str("STLS\r\n");
        }
        // RFC 2449 §6.9: to an unknown client a version is only a hint for attacks.
        list.push_str("IMPLEMENTATION Posthouse\r\n.\r\n");
        list.into_bytes()
    }
}

fn pass(user: String, password: Secret<String>) -> (Phase, Effect) {
    let credentials = Credentials { authorization: None, authentication: user, password };
    (Phase::Checking, Effect::Authenticate(credentials))
}

fn on_step(step: Result<Step, SaslError>) -> (Phase, Effect) {
    match step {
        // RFC 5034 §4: a challenge is a line that begins with "+ ".
        Ok(Step::Challenge { exchange, challenge }) => {
            (Phase::Exchange(exchange), Effect::Send(format!("+ {challenge}\r\n").into_bytes()))
        }
        Ok(Step::Credentials(credentials)) => (Phase::Checking, Effect::Authenticate(credentials)),
        Err(error) => (FRESH, refuse(&error.to_string())),
    }
}

fn in_transaction(mut maildrop: Maildrop, command: Command) -> (Phase, Effect) {
    let effect = match command {
        Command::Stat => {
            let (count, octets) = maildrop.stat();
            ok(format!("{count} {octets}"))
        }
        Command::List(None) => Effect::List(Response::ok("messages follow"), Listing::Sizes { next: 1 }),
        Command::Uidl(None) => Effect::List(Response::ok("unique ids follow"), Listing::UniqueIds { next: 1 }),
        Command::List(Some(number)) => with(&maildrop, number, |entry| ok(format!("{number} {}", entry.size))),
        Command::Uidl(Some(number)) => {
            with(&maildrop, number, |entry| ok(format!("{number} {}", maildrop.unique_id(&entry))))
        }
        Command::Retr(number) => with(&maildrop, number, |entry| Effect::Retrieve { number, entry, limit: None }),
        Command::Top(number, lines) => {
            let limit = Some(LineLimit::new(lines));
            with(&maildrop, number, |entry| Effect::Retrieve { number, entry, limit })
        }
        Command::Dele(number) if maildrop.mark(number) => ok("marked as deleted"),
        Command::Dele(_) => no_such_message(),
        Command::Rset => {
            maildrop.unmark_all();
            ok("no message is marked")
        }
        Command::Noop => ok("nothing done"),
        Command::Quit => return (Phase::Update, Effect::Commit(maildrop.marked())),
        command => out_of_place(command.verb(), IN_TRANSACTION),
    };
    (Phase::Transaction(maildrop), effect)
}

fn with(maildrop: &Maildrop, number: Number, effect: impl FnOnce(Entry) -> Effect) -> Effect {
    maildrop.get(number).map_or_else(no_such_message, effect)
}

fn ok(text: impl Into<String>) -> Effect {
    Effect::Send(Response::ok(text).to_wire())
}

fn refuse(text: &str) -> Effect {
    Effect::Refuse(Response::err(text))
}

fn refuse_fault(fault: CommandFault) -> Effect {
    refuse(&fault.to_string())
}

fn out_of_place(verb: Verb, expected: &str) -> Effect {
    refuse(&format!("{} is not valid in this state; expected {expected}", verb.as_str()))
}

fn no_such_message() -> Effect {
    refuse("no such message")
}

fn no_login() -> Effect {
    refuse("logging in needs TLS here: STLS comes first")
}

/// AUTH without a mechanism: older clients ask so what there is.
fn mechanism_list(login: bool) -> Vec<u8> {
    let mut list = String::from("+OK mechanisms follow\r\n");
    if login {
        Mechanism::ALL.iter().for_each(|mechanism| list.push_str(&format!("{}\r\n", mechanism.as_str())));
    }
    list.push_str(".\r\n");
    list.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_mail::UidValidity;

    const LOCAL: Offer = Offer { stls: true, login: true };

    fn server(offer: Offer) -> Server {
        Server::new(offer)
    }

    fn opened() -> Server {
        let entry = |n: u32| Entry { uid: Uid::new(n).expect("not zero"), size: u64::from(n) * 100 };
        let mut server = server(LOCAL);
        let greeting = server.opened(Maildrop::new(UidValidity::FIRST, vec![entry(1), entry(2), entry(5)]));
        assert_eq!(greeting, Response::ok("maildrop has 3 messages (800 octets)"));
        server
    }

    fn show(effect: Effect) -> String {
        match effect {
            Effect::Send(octets) => String::from_utf8(octets).expect("text").trim_end().to_owned(),
            Effect::Refuse(response) => String::from_utf8(response.to_wire()).expect("text").trim_end().to_owned(),
            Effect::StartTls(_) => "TLS".to_owned(),
            Effect::Authenticate(c) => format!("login {} {}", c.authentication, c.password.reveal()),
            Effect::List(_, listing) => format!("{listing:?}"),
            Effect::Retrieve { number, entry, limit } => format!("send {number} {} {}", entry.uid, limit.is_some()),
            Effect::Commit(uids) => format!("remove {uids:?}"),
            Effect::Close(response) => format!("close {}", response.is_positive()),
        }
    }

    fn check(mut server: Server, dialogue: &[(&str, &str)]) {
        for (line, expect) in dialogue {
            let shown = show(server.on_line(line));
            assert!(shown.starts_with(expect), "{line:?}: {shown:?}, expected {expect:?}");
        }
    }

    #[test]
    fn rfc1939_4_user_and_pass_come_in_that_order() {
        check(server(LOCAL), &[("PASS x", "-ERR USER comes first"), ("USER a", "+OK"), ("PASS b c", "login a b c")]);
    }

    #[test]
    fn rfc5034_4_auth_takes_an_initial_response_or_asks_for_one() {
        check(server(LOCAL), &[("AUTH PLAIN AGEAYg==", "login a b")]);
        check(server(LOCAL), &[("AUTH PLAIN", "+"), ("AGEAYg==", "login a b")]);
        check(server(LOCAL), &[("AUTH PLAIN", "+"), ("*", "-ERR authentication cancelled"), ("USER a", "+OK")]);
        check(
            server(LOCAL),
            &[("AUTH CRAM-MD5", "-ERR no such mechanism"), ("AUTH", "+OK mechanisms follow\r\nPLAIN")],
        );
    }

    #[test]
    fn no_password_is_taken_in_plain_text() {
        let offer = Offer { stls: true, login: false };
        let refusal = "-ERR logging in needs TLS";
        check(server(offer), &[("USER a", refusal), ("PASS b", "-ERR USER"), ("AUTH PLAIN AGEAYg==", refusal)]);
        check(server(offer), &[("CAPA", "+OK capabilities follow\r\nTOP"), ("STLS", "TLS")]);
        let mut server = server(offer);
        assert!(!show(server.on_line("CAPA")).contains("USER\r\nSASL"));
        server.tls_started();
        assert!(show(server.on_line("CAPA")).contains("USER\r\nSASL PLAIN LOGIN"));
        check(server, &[("STLS", "-ERR TLS is active already"), ("USER a", "+OK")]);
    }

    #[test]
    fn rfc1939_5_transaction_commands_want_a_login_and_login_commands_none() {
        for line in ["STAT", "LIST", "UIDL", "RETR 1", "TOP 1 1", "DELE 1", "RSET", "NOOP"] {
            check(server(LOCAL), &[(line, "-ERR")]);
            assert!(!show(opened().on_line(line)).starts_with("-ERR"), "{line}");
        }
        for line in ["USER a", "PASS b", "AUTH PLAIN", "STLS", "UTF8"] {
            check(opened(), &[(line, "-ERR")]);
        }
        check(server(LOCAL), &[("QUIT", "close true")]);
    }

    #[test]
    fn a_marked_message_is_gone_until_rset() {
        check(
            opened(),
            &[
                ("STAT", "+OK 3 800"),
                ("DELE 2", "+OK"),
                ("STAT", "+OK 2 600"),
                ("RETR 2", "-ERR no such message"),
                ("LIST 2", "-ERR no such message"),
                ("UIDL 2", "-ERR no such message"),
                ("DELE 2", "-ERR no such message"),
                ("UIDL 3", "+OK 3 1.5"),
                ("RSET", "+OK"),
                ("LIST 2", "+OK 2 200"),
                ("RETR 2", "send 2 2 false"),
                ("TOP 3 0", "send 3 5 true"),
                ("RETR 0", "-ERR no such message"),
                ("RETR 4", "-ERR no such message"),
            ],
        );
    }

    #[test]
    fn rfc1939_6_only_quit_removes() {
        check(opened(), &[("DELE 1", "+OK"), ("DELE 3", "+OK"), ("QUIT", "remove [1, 5]"), ("NOOP", "-ERR not now")]);
        check(opened(), &[("DELE 1", "+OK"), ("RSET", "+OK"), ("QUIT", "remove []")]);
    }

    #[test]
    fn a_failed_login_starts_anew() {
        let mut server = server(LOCAL);
        check(server.clone(), &[("USER a", "+OK"), ("PASS b", "login a b"), ("USER a", "-ERR not now")]);
        server.on_line("USER a");
        server.on_line("PASS b");
        server.refused();
        check(server, &[("PASS b", "-ERR USER comes first")]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_lines_never_panic(lines in proptest::collection::vec("(RETR|TOP|DELE|LIST|AUTH PLAIN|USER|PASS|QUIT|\\PC)?( \\PC{0,8}){0,3}", 0..8)) {
            let (mut open, mut closed) = (opened(), server(LOCAL));
            for line in &lines {
                let _ = open.on_line(line);
                let _ = closed.on_line(line);
            }
        }
    }
}
