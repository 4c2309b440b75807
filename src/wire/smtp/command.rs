//! One command line of SMTP, read strictly (RFC 5321 §4.1).
//!
//! Apart from the machine so that grammar and sequence are judged in two places that can each be read in full. Reading
//! says what is wrong and with what; `reply` chooses the words.

mod parameter;
mod path;

use posthouse_mail::{BodyType, DsnNotify, DsnReturn, ForwardPath, OriginalRecipient, ReversePath};
use thiserror::Error;

use crate::smtp::line::LineFault;

/// Octets that we keep of the name in EHLO or HELO (RFC 5321 §4.5.3.1.2).
const HELLO_MAX: usize = 255;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The name as sent; RFC 5321 §4.1.4 forbids to refuse mail because it can't be verified.
    Ehlo(String),
    Helo(String),
    StartTls,
    Auth {
        mechanism: String,
        initial: Option<String>,
    },
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    Rset,
    Noop,
    Vrfy(String),
    Expn,
    Help,
    Quit,
}

/// MAIL with its parameters (RFC 5321 §4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub reverse_path: ReversePath,
    pub body: BodyType,
    pub smtputf8: bool,
    pub declared_size: Option<u64>,
    pub envelope_id: Option<String>,
    pub dsn_return: Option<DsnReturn>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            reverse_path: ReversePath::Null,
            body: BodyType::default(),
            smtputf8: false,
            declared_size: None,
            envelope_id: None,
            dsn_return: None,
        }
    }
}

impl Mail {
    /// Whether a parameter of RFC 3461 is there.
    pub fn uses_dsn(&self) -> bool {
        self.envelope_id.is_some() || self.dsn_return.is_some()
    }
}

/// RCPT with its parameters (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    pub path: ForwardPath,
    /// The path was written with characters that only SMTPUTF8 allows.
    pub needs_smtputf8: bool,
    pub notify: Option<DsnNotify>,
    pub original: Option<OriginalRecipient>,
}

impl Rcpt {
    /// A recipient without parameters.
    pub fn to(path: ForwardPath) -> Self {
        Self { path, needs_smtputf8: false, notify: None, original: None }
    }

    /// Whether a parameter of RFC 3461 is there.
    pub fn uses_dsn(&self) -> bool {
        self.notify.is_some() || self.original.is_some()
    }
}

/// A command's verb, as refusals and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
}

impl Verb {
    /// RFC 5321 §2.4: verbs are read without case.
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "EHLO" => Self::Ehlo,
            "HELO" => Self::Helo,
            "STARTTLS" => Self::StartTls,
            "AUTH" => Self::Auth,
            "MAIL" => Self::Mail,
            "RCPT" => Self::Rcpt,
            "DATA" => Self::Data,
            "RSET" => Self::Rset,
            "NOOP" => Self::Noop,
            "VRFY" => Self::Vrfy,
            "EXPN" => Self::Expn,
            "HELP" => Self::Help,
            "QUIT" => Self::Quit,
            _ => return None,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
        }
    }
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandFault {
    #[error(transparent)]
    Line(#[from] LineFault),
    #[error("unknown command")]
    UnknownVerb,
    #[error("{} needs an argument", .0.as_str())]
    MissingArgument(Verb),
    #[error("{} takes no argument", .0.as_str())]
    UnexpectedArgument(Verb),
    #[error("the name of the client is not a domain or address literal")]
    Hello,
    #[error("the argument of MAIL is FROM:<reverse-path>, without spaces around the colon")]
    ReversePath,
    #[error("the argument of RCPT is TO:<forward-path>, without spaces around the colon")]
    ForwardPath,
    #[error("an address beyond ASCII needs SMTPUTF8")]
    NeedsSmtpUtf8,
    #[error("wrong parameter {0}")]
    Parameter(String),
    #[error("unknown parameter {0}")]
    UnknownParameter(String),
}

impl Command {
    /// Reads one line without its CRLF.
    pub fn parse(line: &str) -> Result<Self, CommandFault> {
        // RFC 5321 §4.1.1: tolerate white space before the CRLF.
        let line = line.trim_end_matches([' ', '\t']);
        let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
        let verb = Verb::parse(word).ok_or(CommandFault::UnknownVerb)?;
        match verb {
            Verb::Ehlo => hello(verb, argument).map(Self::Ehlo),
            Verb::Helo => hello(verb, argument).map(Self::Helo),
            Verb::Auth => auth(argument),
            Verb::Mail => mail(argument),
            Verb::Rcpt => rcpt(argument),
            Verb::StartTls => no_argument(verb, argument, Self::StartTls),
            Verb::Data => no_argument(verb, argument, Self::Data),
            Verb::Rset => no_argument(verb, argument, Self::Rset),
            Verb::Quit => no_argument(verb, argument, Self::Quit),
            // RFC 5321 §4.1.1.8, §4.1.1.9: HELP and NOOP may have an argument, which changes nothing here.
            Verb::Help => Ok(Self::Help),
            Verb::Noop => Ok(Self::Noop),
            Verb::Vrfy => some_argument(verb, argument).map(|name| Self::Vrfy(name.to_owned())),
            Verb::Expn => some_argument(verb, argument).map(|_| Self::Expn),
        }
    }

    pub const fn verb(&self) -> Verb {
        match self {
            Self::Ehlo(_) => Verb::Ehlo,
            Self::Helo(_) => Verb::Helo,
            Self::StartTls => Verb::StartTls,
            Self::Auth { .. } => Verb::Auth,
            Self::Mail(_) => Verb::Mail,
            Self::Rcpt(_) => Verb::Rcpt,
            Self::Data => Verb::Data,
            Self::Rset => Verb::Rset,
            Self::Noop => Verb::Noop,
            Self::Vrfy(_) => Verb::Vrfy,
            Self::Expn => Verb::Expn,
            Self::Help => Verb::Help,
            Self::Quit => Verb::Quit,
        }
    }
}

fn some_argument(verb: Verb, argument: &str) -> Result<&str, CommandFault> {
    let argument = argument.trim_start_matches(' ');
    if argument.is_empty() { Err(CommandFault::MissingArgument(verb)) } else { Ok(argument) }
}

fn no_argument(verb: Verb, argument: &str, command: Command) -> Result<Command, CommandFault> {
    if argument.is_empty() { Ok(command) } else { Err(CommandFault::UnexpectedArgument(verb)) }
}

/// RFC 5321 §4.1.1.1 asks for a domain or an address literal. What stands there is kept as it came, as long as it is one
/// word of printable ASCII: the name is only ever shown (RFC 5321 §4.1.4), and real clients send odd host names.
fn hello(verb: Verb, argument: &str) -> Result<String, CommandFault> {
    let name = some_argument(verb, argument)?;
    // Brackets and parentheses would let a name pose as another part of the Received field.
    let printable = name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>\"\\;,@".contains(&b));
    if printable && name.len() <= HELLO_MAX { Ok(name.to_owned()) } else { Err(CommandFault::Hello) }
}

/// RFC 4954 §4.
fn auth(argument: &str) -> Result<Command, CommandFault> {
    let argument = some_argument(Verb::Auth, argument)?;
    let (mechanism, initial) = match argument.split_once(' ') {
        Some((mechanism, initial)) => (mechanism, Some(initial.to_owned())),
        None => (argument, None),
    };
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial })
}

fn mail(argument: &str) -> Result<Command, CommandFault> {
    let cut = after_keyword(argument, "FROM:").and_then(path::cut).ok_or(CommandFault::ReversePath)?;
    let reverse_path = ReversePath::parse(cut.mailbox).map_err(|_| CommandFault::ReversePath)?;
    let mut mail = Mail { reverse_path, ..Mail::default() };
    parameter::mail(cut.rest, &mut mail)?;
    // RFC 6531 §3.3: without the parameter, the path is ASCII.
    if !cut.mailbox.is_ascii() && !mail.smtputf8 {
        return Err(CommandFault::NeedsSmtpUtf8);
    }
    Ok(Command::Mail(mail))
}

fn rcpt(argument: &str) -> Result<Command, CommandFault> {
    let cut = after_keyword(argument, "TO:").and_then(path::cut).ok_or(CommandFault::ForwardPath)?;
    let path = ForwardPath::parse(cut.mailbox).map_err(|_| CommandFault::ForwardPath)?;
    let mut rcpt = Rcpt { needs_smtputf8: !cut.mailbox.is_ascii(), ..Rcpt::to(path) };
    parameter::rcpt(cut.rest, &mut rcpt)?;
    Ok(Command::Rcpt(rcpt))
}

/// RFC 5321 §3.3: no space on either side of the colon.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let head = argument.get(..keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| &argument[keyword.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Result<Command, CommandFault>) {
        assert_eq!(Command::parse(line), expect, "{line:?}");
    }

    fn from(path: &str) -> Mail {
        Mail { reverse_path: ReversePath::parse(path).expect("a path"), ..Mail::default() }
    }

    fn to(path: &str) -> Rcpt {
        Rcpt::to(ForwardPath::parse(path).expect("a path"))
    }

    #[test]
    fn verbs_are_read_without_case_and_trailing_space() {
        check("quit", Ok(Command::Quit));
        check("RsEt \t ", Ok(Command::Rset));
        check("NOOP what ever", Ok(Command::Noop));
        check("HELP MAIL", Ok(Command::Help));
        check("DATA", Ok(Command::Data));
        check("STARTTLS", Ok(Command::StartTls));
        check("", Err(CommandFault::UnknownVerb));
        check("BDAT 3", Err(CommandFault::UnknownVerb));
        check(" NOOP", Err(CommandFault::UnknownVerb));
        check("MAILFROM:<a@x.org>", Err(CommandFault::UnknownVerb));
    }

    #[test]
    fn arguments_are_there_exactly_where_they_must() {
        check("DATA now", Err(CommandFault::UnexpectedArgument(Verb::Data)));
        check("QUIT x", Err(CommandFault::UnexpectedArgument(Verb::Quit)));
        check("RSET x", Err(CommandFault::UnexpectedArgument(Verb::Rset)));
        check("STARTTLS x", Err(CommandFault::UnexpectedArgument(Verb::StartTls)));
        check("EHLO", Err(CommandFault::MissingArgument(Verb::Ehlo)));
        check("HELO  ", Err(CommandFault::MissingArgument(Verb::Helo)));
        check("VRFY", Err(CommandFault::MissingArgument(Verb::Vrfy)));
        check("EXPN", Err(CommandFault::MissingArgument(Verb::Expn)));
        check("AUTH", Err(CommandFault::MissingArgument(Verb::Auth)));
    }

    #[test]
    fn a_hello_name_is_one_printable_word() {
        check("EHLO mx.example.org", Ok(Command::Ehlo("mx.example.org".into())));
        check("HELO [IPv6:2001:db8::1]", Ok(Command::Helo("[IPv6:2001:db8::1]".into())));
        check("EHLO odd_name", Ok(Command::Ehlo("odd_name".into())));
        check("EHLO a b", Err(CommandFault::Hello));
        check("EHLO bücher.example", Err(CommandFault::Hello));
        check("EHLO x)(y", Err(CommandFault::Hello));
        check(&format!("EHLO {}", "a".repeat(256)), Err(CommandFault::Hello));
    }

    #[test]
    fn rfc5321_3_3_paths_stand_in_brackets_without_space() {
        check("MAIL FROM:<a@x.org>", Ok(Command::Mail(from("a@x.org"))));
        check("mail from:<>", Ok(Command::Mail(Mail::default())));
        check("RCPT TO:<Postmaster>", Ok(Command::Rcpt(to("postmaster"))));
        check("RCPT TO:<\"a b\"@x.org>", Ok(Command::Rcpt(to("\"a b\"@x.org"))));
        check("RCPT TO:<@h.org:a@x.org>", Ok(Command::Rcpt(to("a@x.org"))));
        check("MAIL FROM: <a@x.org>", Err(CommandFault::ReversePath));
        check("MAIL FROM :<a@x.org>", Err(CommandFault::ReversePath));
        check("MAIL FROM:a@x.org", Err(CommandFault::ReversePath));
        check("MAIL TO:<a@x.org>", Err(CommandFault::ReversePath));
        check("MAIL", Err(CommandFault::ReversePath));
        check("MAIL FRÖM:<a@x.org>", Err(CommandFault::ReversePath));
        check("RCPT TO:<>", Err(CommandFault::ForwardPath));
        check("RCPT TO:<alice>", Err(CommandFault::ForwardPath));
        check("RCPT TO:<a@x.org> <b@x.org>", Err(CommandFault::Parameter("<B@X.ORG>".into())));
        check("RCPT TO:<a@@x.org>", Err(CommandFault::ForwardPath));
    }

    #[test]
    fn rfc6531_3_3_utf8_needs_the_parameter() {
        check("MAIL FROM:<ö@x.org>", Err(CommandFault::NeedsSmtpUtf8));
        check("MAIL FROM:<ö@x.org> SMTPUTF8", Ok(Command::Mail(Mail { smtputf8: true, ..from("ö@x.org") })));
        check("RCPT TO:<ö@x.org>", Ok(Command::Rcpt(Rcpt { needs_smtputf8: true, ..to("ö@x.org") })));
        check("RCPT TO:<a@bü.org>", Ok(Command::Rcpt(Rcpt { needs_smtputf8: true, ..to("a@bü.org") })));
    }

    #[test]
    fn rfc4954_4_auth_may_bring_an_initial_response() {
        let auth =
            |initial: Option<&str>| Command::Auth { mechanism: "PLAIN".into(), initial: initial.map(str::to_owned) };
        check("AUTH plain", Ok(auth(None)));
        check("AUTH PLAIN =", Ok(auth(Some("="))));
        check("AUTH PLAIN AGEAYg==", Ok(auth(Some("AGEAYg=="))));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in "\\PC{0,200}") {
            let _ = Command::parse(&line);
        }

        #[test]
        fn arbitrary_arguments_never_panic(verb in "(MAIL FROM:<|RCPT TO:<|EHLO |AUTH |VRFY )", rest in "[\\PC<>\"\\\\@:=+; ]{0,80}") {
            let _ = Command::parse(&format!("{verb}{rest}"));
        }
    }
}
