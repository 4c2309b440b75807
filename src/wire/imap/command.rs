//! The commands of a client: what they say, one file each, and the table from verb to parser.
//!
//! A verb is looked up once, `UID` is read as a prefix that changes what numbers count; everything after it belongs to the
//! command's own file.

pub mod append;
pub mod authenticate;
pub mod copy;
pub mod create;
pub mod delete;
pub mod enable;
pub mod expunge;
pub mod fetch;
pub mod id;
pub mod list;
pub mod login;
pub mod lsub;
pub mod rename;
pub mod search;
pub mod select;
pub mod status;
pub mod store;
pub mod subscribe;

use std::fmt;

use super::mailbox_name::MailboxName;
use super::scan::{ParseError, Parsed, Scanner};
use super::sequence::{NumberKind, SequenceSet};
use super::state::Verb;

/// Octets in a tag; it is repeated in the answer.
pub const TAG_MAX: usize = 64;

/// What the client calls its command (RFC 3501 §2.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// The tag at the beginning of a command, where one can be read.
    pub fn of(text: &[u8]) -> Option<Self> {
        let tag = Scanner::new(text).tag().ok()?;
        (tag.len() <= TAG_MAX).then(|| Self(tag.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command with its tag.
#[derive(Debug, Clone)]
pub struct Tagged {
    pub tag: Tag,
    pub command: Command,
}

/// A command that cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// `None`: the answer is untagged (RFC 3501 §7.1.3).
    pub tag: Option<Tag>,
    pub verb: Option<Verb>,
    pub error: ParseError,
}

#[derive(Debug, Clone)]
pub enum Command {
    Capability,
    Noop,
    Logout,
    Id(id::Id),
    StartTls,
    Authenticate(authenticate::Authenticate),
    Login(login::Login),
    Enable(enable::Enable),
    Select(select::Select),
    Create(create::Create),
    Delete(MailboxName),
    Rename(rename::Rename),
    Subscribe(subscribe::Subscribe),
    List(list::List),
    Lsub(lsub::Lsub),
    Namespace,
    Status(status::Status),
    Check,
    Close,
    Unselect,
    /// EXPUNGE, or UID EXPUNGE with its Uids.
    Expunge(Option<SequenceSet>),
    Search(search::Search),
    Fetch(fetch::Fetch),
    Store(store::Store),
    Copy(copy::Copy),
    Idle,
}

impl Command {
    pub fn verb(&self) -> Verb {
        match self {
            Self::Capability => Verb::Capability,
            Self::Noop => Verb::Noop,
            Self::Logout => Verb::Logout,
            Self::Id(_) => Verb::Id,
            Self::StartTls => Verb::StartTls,
            Self::Authenticate(_) => Verb::Authenticate,
            Self::Login(_) => Verb::Login,
            Self::Enable(_) => Verb::Enable,
            Self::Select(select) if select.read_only => Verb::Examine,
            Self::Select(_) => Verb::Select,
            Self::Create(_) => Verb::Create,
            Self::Delete(_) => Verb::Delete,
            Self::Rename(_) => Verb::Rename,
            Self::Subscribe(subscribe) if subscribe.on => Verb::Subscribe,
            Self::Subscribe(_) => Verb::Unsubscribe,
            Self::List(_) => Verb::List,
            Self::Lsub(_) => Verb::Lsub,
            Self::Namespace => Verb::Namespace,
            Self::Status(_) => Verb::Status,
            Self::Check => Verb::Check,
            Self::Close => Verb::Close,
            Self::Unselect => Verb::Unselect,
            Self::Expunge(_) => Verb::Expunge,
            Self::Search(_) => Verb::Search,
            Self::Fetch(_) => Verb::Fetch,
            Self::Store(_) => Verb::Store,
            Self::Copy(copy) if copy.remove => Verb::Move,
            Self::Copy(_) => Verb::Copy,
            Self::Idle => Verb::Idle,
        }
    }
}

/// Bounds that the grammar itself needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    /// Nesting of a SEARCH command.
    pub search_depth_max: usize,
}

/// Reads one framed command. APPEND does not come here: `frame` hands it out before its message.
pub fn parse(text: &[u8], limits: ParseLimits) -> Result<Tagged, Unreadable> {
    let mut scanner = Scanner::new(text);
    let tag = Tag::of(text);
    let unreadable = |verb, error| Unreadable { tag: tag.clone(), verb, error };
    let (kind, verb) = parse_verb(&mut scanner).map_err(|error| unreadable(None, error))?;
    let command = parse_arguments(&mut scanner, verb, kind, limits)
        .and_then(|command| scanner.end().map(|()| command))
        .map_err(|error| unreadable(Some(verb), error))?;
    match tag {
        Some(tag) => Ok(Tagged { tag, command }),
        None => Err(unreadable(None, ParseError::Expected("a tag of at most 64 characters"))),
    }
}

fn parse_verb(scanner: &mut Scanner<'_>) -> Parsed<(NumberKind, Verb)> {
    scanner.tag()?;
    scanner.space()?;
    let mut kind = NumberKind::Sequence;
    if scanner.eat_word("UID") {
        kind = NumberKind::Uid;
        scanner.space()?;
    }
    let verb = Verb::parse(scanner.atom()?).ok_or(ParseError::UnknownCommand)?;
    if kind == NumberKind::Uid && !verb.takes_uid() {
        return Err(ParseError::UnknownCommand);
    }
    Ok((kind, verb))
}

fn parse_arguments(scanner: &mut Scanner<'_>, verb: Verb, kind: NumberKind, limits: ParseLimits) -> Parsed<Command> {
    if verb.takes_arguments(kind) {
        scanner.space()?;
    }
    Ok(match verb {
        Verb::Capability => Command::Capability,
        Verb::Noop => Command::Noop,
        Verb::Logout => Command::Logout,
        Verb::StartTls => Command::StartTls,
        Verb::Namespace => Command::Namespace,
        Verb::Check => Command::Check,
        Verb::Close => Command::Close,
        Verb::Unselect => Command::Unselect,
        Verb::Idle => Command::Idle,
        Verb::Id => Command::Id(id::parse(scanner)?),
        Verb::Authenticate => Command::Authenticate(authenticate::parse(scanner)?),
        Verb::Login => Command::Login(login::parse(scanner)?),
        Verb::Enable => Command::Enable(enable::parse(scanner)?),
        Verb::Select | Verb::Examine => Command::Select(select::parse(scanner, verb == Verb::Examine)?),
        Verb::Create => Command::Create(create::parse(scanner)?),
        Verb::Delete => Command::Delete(delete::parse(scanner)?),
        Verb::Rename => Command::Rename(rename::parse(scanner)?),
        Verb::Subscribe | Verb::Unsubscribe => Command::Subscribe(subscribe::parse(scanner, verb == Verb::Subscribe)?),
        Verb::List => Command::List(list::parse(scanner)?),
        Verb::Lsub => Command::Lsub(lsub::parse(scanner)?),
        Verb::Status => Command::Status(status::parse(scanner)?),
        Verb::Expunge => Command::Expunge(expunge::parse(scanner, kind)?),
        Verb::Search => Command::Search(search::parse(scanner, kind, limits.search_depth_max)?),
        Verb::Fetch => Command::Fetch(fetch::parse(scanner, kind)?),
        Verb::Store => Command::Store(store::parse(scanner, kind)?),
        Verb::Copy | Verb::Move => Command::Copy(copy::parse(scanner, kind, verb == Verb::Move)?),
        // RFC 3501 §6.3.11: APPEND ends with a literal, and one that does not is no APPEND.
        Verb::Append => {
            append::AppendHead::parse_arguments(scanner)?;
            return Err(ParseError::Expected("the message as a literal"));
        }
    })
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
