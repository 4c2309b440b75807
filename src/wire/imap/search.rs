//! Judges messages by a SEARCH program (RFC 3501 §6.4.4), as a pure function of what is known about them.
//!
//! Facts differ in price: flags lie in the mailbox, dates in the email row, fields and bodies in blobs. So a verdict is yes,
//! no, or "needs this level"; the caller loads that level and asks again, and dear facts are read only where cheap ones
//! leave the matter open. Strings are looked for by `needle` while a body streams by.

pub mod needle;

use std::ops::RangeInclusive;

use jiff::civil::Date;
use posthouse_mail::{Flag, SeqNum, Uid};

use super::sequence::{RangeSet, SequenceSet};
use needle::{Needle, Scope};

/// A SEARCH as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    All,
    Flag(Flag),
    Recent,
    Sequence(SequenceSet),
    Uid(SequenceSet),
    Larger(u64),
    Smaller(u64),
    Date { field: DateField, test: DateTest, day: Date },
    Header { field: String, text: String },
    Body(String),
    Text(String),
    Not(Box<Key>),
    Or(Box<Key>, Box<Key>),
    And(Vec<Key>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateField {
    /// When the message arrived.
    Internal,
    /// Its Date field.
    Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateTest {
    Before,
    On,
    Since,
}

impl DateTest {
    fn holds(self, date: Date, day: Date) -> bool {
        match self {
            Self::Before => date < day,
            Self::On => date == day,
            Self::Since => date >= day,
        }
    }
}

/// What must be read to know a fact, in the order of its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The mailbox's own row of the message: number, Uid, flags.
    Row,
    /// Dates and size.
    Email,
    /// The header's fields.
    Header,
    /// The whole message.
    Body,
}

/// What is known about one message. `None` where the level has not been read.
pub trait MessageFacts {
    fn seq(&self) -> SeqNum;
    fn uid(&self) -> Uid;
    fn has_flag(&self, flag: &Flag) -> bool;
    fn is_recent(&self) -> bool;
    /// The day of INTERNALDATE.
    fn internal_day(&self) -> Option<Date>;
    /// The day that the Date field names; `Some(None)` where it has none.
    fn sent_day(&self) -> Option<Option<Date>>;
    fn size(&self) -> Option<u64>;
    /// Whether a field of this name contains the text; an empty text asks for the field itself.
    fn header_contains(&self, field: &str, text: &str) -> Option<bool>;
    /// Whether the needle of this number in the program was found.
    fn found(&self, needle: usize) -> Option<bool>;
}

/// Whether a message matches, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    /// Open until at least this level is read.
    Needs(Level),
}

/// A sequence number stands for no message (RFC 3501 §9 seq-number): BAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no message has that sequence number")]
pub struct NoSuchMessage;

/// A SEARCH made ready for one mailbox: sets resolved, cheap keys first, strings numbered.
#[derive(Debug, Clone)]
pub struct Program {
    root: Node,
    needles: Vec<Needle>,
}

#[derive(Debug, Clone)]
enum Node {
    All,
    Flag(Flag),
    Recent,
    Sequence(RangeSet),
    Uid(RangeSet),
    Larger(u64),
    Smaller(u64),
    Date { field: DateField, test: DateTest, day: Date },
    Header { field: String, text: String },
    Needle(usize),
    Not(Box<Node>),
    Any(Vec<Node>),
    Every(Vec<Node>),
}

impl Program {
    /// `exists` and `last_uid` are those of the session's view.
    pub fn new(key: &Key, exists: u32, last_uid: Option<Uid>) -> Result<Self, NoSuchMessage> {
        let mut needles = Vec::new();
        let mailbox = View { exists, last_uid: last_uid.map(Uid::get) };
        let root = mailbox.node(key, &mut needles)?;
        Ok(Self { root, needles })
    }

    pub fn needles(&self) -> &[Needle] {
        &self.needles
    }

    pub fn judge(&self, facts: &impl MessageFacts) -> Truth {
        self.root.judge(facts)
    }

    /// No message outside these Uids matches, so none need be read; `None`: no message matches at all.
    pub fn uids(&self) -> Option<RangeInclusive<u32>> {
        let (first, last) = self.root.uids();
        (first <= last).then_some(first..=last)
    }
}

struct View {
    exists: u32,
    last_uid: Option<u32>,
}

impl View {
    fn node(&self, key: &Key, needles: &mut Vec<Needle>) -> Result<Node, NoSuchMessage> {
        Ok(match key {
            Key::All => Node::All,
            Key::Flag(flag) => Node::Flag(flag.clone()),
            Key::Recent => Node::Recent,
            Key::Sequence(set) if !set.fits(self.exists) => return Err(NoSuchMessage),
            Key::Sequence(set) => Node::Sequence(set.resolve((self.exists > 0).then_some(self.exists))),
            Key::Uid(set) => Node::Uid(set.resolve(self.last_uid)),
            Key::Larger(size) => Node::Larger(*size),
            Key::Smaller(size) => Node::Smaller(*size),
            Key::Date { field, test, day } => Node::Date { field: *field, test: *test, day: *day },
            Key::Header { field, text } => Node::Header { field: field.clone(), text: text.clone() },
            Key::Body(text) => number_needle(needles, Scope::Body, text),
            Key::Text(text) => number_needle(needles, Scope::Everything, text),
            Key::Not(key) => Node::Not(Box::new(self.node(key, needles)?)),
            Key::Or(a, b) => Node::Any(by_price(vec![self.node(a, needles)?, self.node(b, needles)?])),
            Key::And(keys) => {
                Node::Every(by_price(keys.iter().map(|key| self.node(key, needles)).collect::<Result<_, _>>()?))
            }
        })
    }
}

fn number_needle(needles: &mut Vec<Needle>, scope: Scope, text: &str) -> Node {
    let needle = Needle::new(scope, text);
    let number = needles.iter().position(|known| *known == needle).unwrap_or_else(|| {
        needles.push(needle);
        needles.len() - 1
    });
    Node::Needle(number)
}

fn by_price(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.sort_by_key(Node::level);
    nodes
}

impl Node {
    /// What this node needs at least once it matters.
    fn level(&self) -> Level {
        match self {
            Self::All | Self::Flag(_) | Self::Recent | Self::Sequence(_) | Self::Uid(_) => Level::Row,
            Self::Larger(_) | Self::Smaller(_) | Self::Date { .. } => Level::Email,
            Self::Header { .. } => Level::Header,
            Self::Needle(_) => Level::Body,
            Self::Not(node) => node.level(),
            Self::Any(nodes) | Self::Every(nodes) => nodes.iter().map(Self::level).max().unwrap_or(Level::Row),
        }
    }

    /// The least and the greatest Uid that can match; in the wrong order where none can.
    fn uids(&self) -> (u32, u32) {
        match self {
            Self::Uid(set) => match (set.ranges().first(), set.ranges().last()) {
                (Some(first), Some(last)) => (*first.start(), *last.end()),
                _ => (u32::MAX, 0),
            },
            Self::Every(nodes) => nodes.iter().map(Self::uids).fold((0, u32::MAX), |a, b| (a.0.max(b.0), a.1.min(b.1))),
            _ => (0, u32::MAX),
        }
    }

    fn judge(&self, facts: &impl MessageFacts) -> Truth {
        let known = match self {
            Self::All => Some(true),
            Self::Flag(flag) => Some(facts.has_flag(flag)),
            Self::Recent => Some(facts.is_recent()),
            Self::Sequence(set) => Some(set.contains(facts.seq().get())),
            Self::Uid(set) => Some(set.contains(facts.uid().get())),
            Self::Larger(size) => facts.size().map(|is| is > *size),
            Self::Smaller(size) => facts.size().map(|is| is < *size),
            Self::Date { field: DateField::Internal, test, day } => facts.internal_day().map(|is| test.holds(is, *day)),
            Self::Date { field: DateField::Sent, test, day } => {
                facts.sent_day().map(|is| is.is_some_and(|is| test.holds(is, *day)))
            }
            Self::Header { field, text } => facts.header_contains(field, text),
            Self::Needle(number) => facts.found(*number),
            Self::Not(node) => return node.judge(facts).negated(),
            Self::Every(nodes) => return combine(nodes, facts, Truth::No),
            Self::Any(nodes) => return combine(nodes, facts, Truth::Yes),
        };
        match known {
            Some(true) => Truth::Yes,
            Some(false) => Truth::No,
            None => Truth::Needs(self.level()),
        }
    }
}

/// The first `decisive` verdict wins; otherwise the cheapest open question; otherwise the opposite.
fn combine(nodes: &[Node], facts: &impl MessageFacts, decisive: Truth) -> Truth {
    let mut open: Option<Level> = None;
    for node in nodes {
        match node.judge(facts) {
            truth if truth == decisive => return decisive,
            Truth::Needs(level) => open = Some(open.map_or(level, |least| least.min(level))),
            _ => {}
        }
    }
    open.map_or(decisive.negated(), Truth::Needs)
}

impl Truth {
    fn negated(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            needs => needs,
        }
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
