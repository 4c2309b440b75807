//! Before and around login: CAPABILITY, ID, ENABLE, LOGIN, AUTHENTICATE, LOGOUT (RFC 3501 §6.1, §6.2).

use posthouse_mail::{AccountId, Secret};
use posthouse_wire::imap::command::authenticate::Authenticate;
use posthouse_wire::imap::command::login::Login;
use posthouse_wire::imap::response::status::{Code, Status, put_continuation};
use posthouse_wire::imap::{Frame, capability};
use posthouse_wire::sasl::{Credentials, Exchange, Mechanism, SaslError, Step};

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::state::Phase;

impl<D: Desk> Dialogue<D> {
    pub(super) fn capability(&mut self) -> Status {
        let line = format!("* CAPABILITY {}\r\n", capability::capabilities(self.situation()));
        self.out.extend_from_slice(line.as_bytes());
        Status::ok("capabilities told")
    }

    /// RFC 2971 §3.2. The version is for those who logged in: it helps an attacker more than a client.
    pub(super) fn identify(&mut self) -> Status {
        let version = match self.state.account() {
            Some(_) => format!(" \"version\" \"{}\"", env!("CARGO_PKG_VERSION")),
            None => String::new(),
        };
        self.out.extend_from_slice(format!("* ID (\"name\" \"Posthouse\"{version})\r\n").as_bytes());
        Status::ok("pleased to meet you")
    }

    /// RFC 5161 §3.1: nothing that we know needs enabling, and what is not known is passed over.
    pub(super) fn enable(&mut self) -> Status {
        self.out.extend_from_slice(b"* ENABLED\r\n");
        Status::ok("nothing to enable")
    }

    /// RFC 3501 §6.1.3: BYE comes before the tagged OK.
    pub(super) fn logout(&mut self) -> Status {
        Status::bye("until next time").put(&mut self.out, None);
        self.state.phase = Phase::Logout;
        Status::ok("logged out")
    }

    pub(super) async fn login(&mut self, login: Login) -> Outcome<Status> {
        let credentials = Credentials { authorization: None, authentication: login.user, password: login.password };
        self.log_in(credentials).await
    }

    pub(super) async fn authenticate(&mut self, authenticate: Authenticate) -> Outcome<Status> {
        // PLAIN alone is announced; LOGIN of sasl is for SMTP clients.
        let Some(mechanism) = Mechanism::parse(&authenticate.mechanism).filter(|m| *m == Mechanism::Plain) else {
            return Err(Status::no("that mechanism is not supported").into());
        };
        let initial = authenticate.initial.as_ref().map(|secret| secret.reveal().as_str());
        let mut step = Exchange::begin(mechanism, initial).map_err(sasl_status)?;
        loop {
            match step {
                Step::Credentials(credentials) => return self.log_in(credentials).await,
                Step::Challenge { exchange, challenge } => {
                    put_continuation(&mut self.out, &challenge);
                    let line = self.next_line().await?;
                    step = exchange.on_line(line.reveal()).map_err(sasl_status)?;
                }
            }
        }
    }

    async fn next_line(&mut self) -> Outcome<Secret<String>> {
        self.reader.expect_line();
        match self.next_frame().await? {
            Frame::Line(line) => match String::from_utf8(line) {
                Ok(line) => Ok(Secret::new(line)),
                Err(_) => Err(sasl_status(SaslError::Base64).into()),
            },
            Frame::Broken(error) => Err(Stop::Flooded(error)),
            _ => Err(sasl_status(SaslError::Malformed).into()),
        }
    }

    async fn log_in(&mut self, credentials: Credentials) -> Outcome<Status> {
        let client = self.stream.transport().peer_ip();
        // RFC 4616 §2: acting as somebody else needs a right that nobody has here.
        let asks_for_other = credentials
            .authorization
            .as_ref()
            .is_some_and(|name| !name.eq_ignore_ascii_case(&credentials.authentication));
        if asks_for_other {
            return Err(Status::no("you cannot act as somebody else").code(Code::AuthorizationFailed).into());
        }
        let account: AccountId = self.desk.log_in(credentials, client).await?;
        self.state.phase = Phase::Authenticated { account };
        Ok(Status::ok("logged in").code(self.capability_code()))
    }
}

/// RFC 3501 §6.2.2: a cancelled or malformed exchange is BAD.
fn sasl_status(error: SaslError) -> Status {
    Status::bad(error.to_string())
}
