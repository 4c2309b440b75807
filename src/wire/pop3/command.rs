//! Command lines (RFC 1939 §3): a keyword of three or four letters and its arguments.

use posthouse_mail::Secret;
use thiserror::Error;

/// Octets in a command line, CRLF included: RFC 2449 §4 says 255, a PLAIN response of RFC 5034 §4 needs more.
pub const LINE_MAX: usize = 2048;

/// Every keyword that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Capa,
    User,
    Pass,
    Auth,
    Stls,
    Utf8,
    Stat,
    List,
    Uidl,
    Retr,
    Top,
    Dele,
    Rset,
    Noop,
    Quit,
}

impl Verb {
    pub const ALL: [Self; 15] = [
        Self::Capa,
        Self::User,
        Self::Pass,
        Self::Auth,
        Self::Stls,
        Self::Utf8,
        Self::Stat,
        Self::List,
        Self::Uidl,
        Self::Retr,
        Self::Top,
        Self::Dele,
        Self::Rset,
        Self::Noop,
        Self::Quit,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capa => "CAPA",
            Self::User => "USER",
            Self::Pass => "PASS",
            Self::Auth => "AUTH",
            Self::Stls => "STLS",
            Self::Utf8 => "UTF8",
            Self::Stat => "STAT",
            Self::List => "LIST",
            Self::Uidl => "UIDL",
            Self::Retr => "RETR",
            Self::Top => "TOP",
            Self::Dele => "DELE",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Quit => "QUIT",
        }
    }

    /// RFC 1939 §3: keywords are case-insensitive.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str().eq_ignore_ascii_case(text))
    }
}

/// A message's number in this session, from 1 (RFC 1939 §4).
pub type Number = usize;

#[derive(Debug, Clone)]
pub enum Command {
    Capa,
    User(String),
    Pass(Secret<String>),
    /// RFC 5034 §4; without a mechanism it asks for the list, as older clients do.
    Auth(Option<(String, Option<Secret<String>>)>),
    Stls,
    Utf8,
    Stat,
    List(Option<Number>),
    Uidl(Option<Number>),
    Retr(Number),
    Top(Number, u64),
    Dele(Number),
    Rset,
    Noop,
    Quit,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommandFault {
    #[error("unknown command")]
    Unknown,
    #[error("wrong arguments for {}", .0.as_str())]
    Arguments(Verb),
}

impl Command {
    /// Reads a line without its CRLF.
    pub fn parse(line: &str) -> Result<Self, CommandFault> {
        let (keyword, rest) = line.split_once(' ').map_or((line, None), |(keyword, rest)| (keyword, Some(rest)));
        let verb = Verb::parse(keyword).ok_or(CommandFault::Unknown)?;
        // RFC 1939 §7: a password may hold spaces, so all that follows the first one is the argument.
        if verb == Verb::Pass {
            let password = rest.ok_or(CommandFault::Arguments(verb))?;
            return Ok(Self::Pass(Secret::new(password.to_owned())));
        }
        let arguments: Vec<&str> = rest.unwrap_or("").split(' ').filter(|word| !word.is_empty()).collect();
        Self::read(verb, &arguments).ok_or(CommandFault::Arguments(verb))
    }

    fn read(verb: Verb, arguments: &[&str]) -> Option<Self> {
        let command = match (verb, arguments) {
            (Verb::Capa, []) => Self::Capa,
            (Verb::User, [name]) => Self::User((*name).to_owned()),
            (Verb::Auth, []) => Self::Auth(None),
            (Verb::Auth, [mechanism]) => Self::Auth(Some(((*mechanism).to_owned(), None))),
            (Verb::Auth, [mechanism, initial]) => {
                Self::Auth(Some(((*mechanism).to_owned(), Some(Secret::new((*initial).to_owned())))))
            }
            (Verb::Stls, []) => Self::Stls,
            (Verb::Utf8, []) => Self::Utf8,
            (Verb::Stat, []) => Self::Stat,
            (Verb::List, []) => Self::List(None),
            (Verb::List, [n]) => Self::List(Some(number(n)?)),
            (Verb::Uidl, []) => Self::Uidl(None),
            (Verb::Uidl, [n]) => Self::Uidl(Some(number(n)?)),
            (Verb::Retr, [n]) => Self::Retr(number(n)?),
            (Verb::Top, [n, lines]) => Self::Top(number(n)?, digits(lines)?),
            (Verb::Dele, [n]) => Self::Dele(number(n)?),
            (Verb::Rset, []) => Self::Rset,
            (Verb::Noop, []) => Self::Noop,
            (Verb::Quit, []) => Self::Quit,
            _ => return None,
        };
        Some(command)
    }

    pub const fn verb(&self) -> Verb {
        match self {
            Self::Capa => Verb::Capa,
            Self::User(_) => Verb::User,
            Self::Pass(_) => Verb::Pass,
            Self::Auth(_) => Verb::Auth,
            Self::Stls => Verb::Stls,
            Self::Utf8 => Verb::Utf8,
            Self::Stat => Verb::Stat,
            Self::List(_) => Verb::List,
            Self::Uidl(_) => Verb::Uidl,
            Self::Retr(_) => Verb::Retr,
            Self::Top(..) => Verb::Top,
            Self::Dele(_) => Verb::Dele,
            Self::Rset => Verb::Rset,
            Self::Noop => Verb::Noop,
            Self::Quit => Verb::Quit,
        }
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn number(text: &str) -> Option<Number> {
    digits(text).and_then(|value| Number::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &str) {
        let shown = match Command::parse(line) {
            Ok(Command::Pass(secret)) => format!("Pass({})", secret.reveal()),
            Ok(command) => format!("{command:?}"),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(shown, expect, "{line:?}");
    }

    #[test]
    fn rfc1939_3_keywords_have_no_case_and_arguments_are_split_by_spaces() {
        check("noop", "Noop");
        check("USER alice@demo.test", "User(\"alice@demo.test\")");
        check("LIST", "List(None)");
        check("LIST 2 ", "List(Some(2))");
        check("TOP 1 0", "Top(1, 0)");
        check("AUTH", "Auth(None)");
        check("AUTH PLAIN", "Auth(Some((\"PLAIN\", None)))");
        check("auth plain =", "Auth(Some((\"plain\", Some((secret)))))");
        check("XTND", "unknown command");
        check("", "unknown command");
        check("USER", "wrong arguments for USER");
        check("RETR one", "wrong arguments for RETR");
        check("RETR +1", "wrong arguments for RETR");
        check("RETR 99999999999999999999", "wrong arguments for RETR");
        check("TOP 1", "wrong arguments for TOP");
        check("STAT 1", "wrong arguments for STAT");
    }

    #[test]
    fn rfc1939_7_a_password_keeps_its_spaces() {
        check("PASS a  b ", "Pass(a  b )");
        check("PASS ", "Pass()");
        check("PASS", "wrong arguments for PASS");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in "\\PC{0,100}") {
            let _ = Command::parse(&line);
        }
    }
}
