//! SASL without a protocol around it (RFC 4422): SMTP, IMAP and POP3 differ only in the prefix of a challenge.
//!
//! An exchange is a plain value, so that it can be part of a session's state.

mod login;
mod plain;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthouse_mail::Secret;
use thiserror::Error;

pub use plain::encode_plain;

/// Octets in a decoded response; PLAIN needs three times 255 (RFC 4616 §2) and two NULs.
const RESPONSE_MAX: usize = 1024;

/// The mechanisms that we offer, in the order of our preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised, still the only one of some clients.
    Login,
}

impl Mechanism {
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// Reads a mechanism's name, without case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name))
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// What a client claims to be, and its proof.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// As whom to act (RFC 4616 `authzid`); `None` means as the one who logs in.
    pub authorization: Option<String>,
    /// Who logs in (RFC 4616 `authcid`).
    pub authentication: String,
    pub password: Secret<String>,
}

/// Why an exchange ended without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SaslError {
    #[error("authentication cancelled")]
    Cancelled,
    #[error("the response is not base64")]
    Base64,
    #[error("the response is not what the mechanism asks for")]
    Malformed,
    #[error("the response is too long")]
    TooLong,
}

/// An exchange that waits for the client's next response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    Plain,
    LoginName,
    LoginPassword { name: String },
}

/// What a response led to.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send `challenge` (base64, maybe empty) and wait for a line.
    Challenge { exchange: Exchange, challenge: String },
    /// All is said; now somebody must check it.
    Credentials(Credentials),
}

impl Exchange {
    /// Starts an exchange; `initial` is the initial response as it stood in the command, still encoded.
    pub fn begin(mechanism: Mechanism, initial: Option<&str>) -> Result<Step, SaslError> {
        let exchange = match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        };
        match initial {
            // RFC 4954 §4: a single "=" is an initial response of no octets.
            Some("=") => exchange.respond(b""),
            Some(response) => exchange.respond(decode(response)?.reveal()),
            None => Ok(exchange.challenge()),
        }
    }

    /// Goes on with a line from the client, without its CRLF.
    pub fn on_line(self, line: &str) -> Result<Step, SaslError> {
        // RFC 4954 §4, RFC 9051 §6.2.2: a single "*" cancels.
        if line == "*" {
            return Err(SaslError::Cancelled);
        }
        self.respond(decode(line)?.reveal())
    }

    fn respond(self, response: &[u8]) -> Result<Step, SaslError> {
        match self {
            Self::Plain => plain::read(response).map(Step::Credentials),
            Self::LoginName => login::name(response).map(|name| Self::LoginPassword { name }.challenge()),
            Self::LoginPassword { name } => login::password(name, response).map(Step::Credentials),
        }
    }

    fn challenge(self) -> Step {
        let challenge = match self {
            Self::Plain => "",
            Self::LoginName => login::NAME_PROMPT,
            Self::LoginPassword { .. } => login::PASSWORD_PROMPT,
        };
        Step::Challenge { exchange: self, challenge: STANDARD.encode(challenge) }
    }
}

fn decode(text: &str) -> Result<Secret<Vec<u8>>, SaslError> {
    if text.len() > RESPONSE_MAX.div_ceil(3) * 4 {
        return Err(SaslError::TooLong);
    }
    STANDARD.decode(text).map(Secret::new).map_err(|_| SaslError::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a whole exchange; shows the challenges and what came out.
    fn play(mechanism: Mechanism, initial: Option<&str>, lines: &[&str]) -> Vec<String> {
        let mut shown = Vec::new();
        let mut step = Exchange::begin(mechanism, initial);
        let mut lines = lines.iter();
        loop {
            match step {
                Err(error) => {
                    shown.push(format!("{error:?}"));
                    return shown;
                }
                Ok(Step::Credentials(c)) => {
                    let authorization = c.authorization.unwrap_or_default();
                    shown.push(format!("{authorization}|{}|{}", c.authentication, c.password.reveal()));
                    return shown;
                }
                Ok(Step::Challenge { exchange, challenge }) => {
                    shown.push(challenge);
                    match lines.next() {
                        Some(line) => step = exchange.on_line(line),
                        None => return shown,
                    }
                }
            }
        }
    }

    #[test]
    fn plain_takes_its_response_at_once_or_after_an_empty_challenge() {
        assert_eq!(play(Mechanism::Plain, Some("AHRpbQB0YW5zdGFhZg=="), &[]), ["|tim|tanstaaf"]);
        assert_eq!(play(Mechanism::Plain, None, &["AHRpbQB0YW5zdGFhZg=="]), ["", "|tim|tanstaaf"]);
        assert_eq!(play(Mechanism::Plain, Some("="), &[]), ["Malformed"]);
        assert_eq!(play(Mechanism::Plain, Some(""), &[]), ["Malformed"]);
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let both = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6", "|tim|tanstaaf"];
        assert_eq!(play(Mechanism::Login, None, &["dGlt", "dGFuc3RhYWY="]), both);
        assert_eq!(play(Mechanism::Login, Some("dGlt"), &["dGFuc3RhYWY="]), both[1..]);
        assert_eq!(play(Mechanism::Login, None, &[""]), ["VXNlcm5hbWU6", "Malformed"]);
    }

    #[test]
    fn a_star_cancels_and_rubbish_is_refused() {
        assert_eq!(play(Mechanism::Plain, None, &["*"]), ["", "Cancelled"]);
        assert_eq!(play(Mechanism::Login, None, &["dGlt", "*"]), ["VXNlcm5hbWU6", "UGFzc3dvcmQ6", "Cancelled"]);
        assert_eq!(play(Mechanism::Plain, None, &["!!"]), ["", "Base64"]);
        assert_eq!(play(Mechanism::Plain, None, &["AHRpbQB0YW5zdGFhZg"]), ["", "Base64"]);
        assert_eq!(play(Mechanism::Plain, None, &[&"A".repeat(4000)]), ["", "TooLong"]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_responses_never_panic(line in "\\PC{0,100}", raw in proptest::collection::vec(0u8.., 0..100)) {
            for exchange in [Exchange::Plain, Exchange::LoginName, Exchange::LoginPassword { name: "tim".into() }] {
                let _ = exchange.clone().on_line(&line);
                let _ = exchange.on_line(&STANDARD.encode(&raw));
            }
        }
    }
}
