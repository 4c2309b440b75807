//! SEARCH (RFC 3501 §6.4.4): reads the keys into a program; `imap/search` judges messages by it.

use jiff::civil::Date;
use posthouse_mail::{Flag, flag::Keyword};

use crate::imap::date::parse_date;
use crate::imap::scan::{ParseError, Parsed, Scanner};
use crate::imap::search::{DateField, DateTest, Key};
use crate::imap::sequence::{NumberKind, SequenceSet};

/// Keys of one command; each costs work per message.
const KEYS_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// What the answer counts.
    pub kind: NumberKind,
    pub key: Key,
}

pub fn parse(scanner: &mut Scanner<'_>, kind: NumberKind, depth_max: usize) -> Parsed<Search> {
    let charset = parse_charset(scanner)?;
    let mut reader = Reader { scanner, keys_left: KEYS_MAX, depth_max };
    let key = reader.keys(0, false)?;
    // Judged after the syntax, so that a wrong command is BAD whatever its charset (RFC 3501 §6.4.4).
    if charset
        .is_some_and(|name| !["UTF-8", "US-ASCII"].iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
    {
        return Err(ParseError::Charset);
    }
    Ok(Search { kind, key })
}

fn parse_charset<'a>(scanner: &mut Scanner<'a>) -> Parsed<Option<std::borrow::Cow<'a, [u8]>>> {
    if !scanner.eat_word("CHARSET") {
        return Ok(None);
    }
    scanner.space()?;
    let name = scanner.astring()?;
    scanner.space()?;
    Ok(Some(name))
}

struct Reader<'s, 'a> {
    scanner: &'s mut Scanner<'a>,
    keys_left: usize,
    depth_max: usize,
}

impl Reader<'_, '_> {
    /// Keys with spaces between, all of which must hold; up to `)` when parenthesised.
    fn keys(&mut self, depth: usize, parenthesised: bool) -> Parsed<Key> {
        let mut keys = vec![self.key(depth)?];
        while !(parenthesised && self.scanner.eat(b')')) {
            if !parenthesised && self.scanner.rest().is_empty() {
                break;
            }
            self.scanner.space()?;
            keys.push(self.key(depth)?);
        }
        Ok(if keys.len() == 1 { keys.remove(0) } else { Key::And(keys) })
    }

    fn key(&mut self, depth: usize) -> Parsed<Key> {
        if depth > self.depth_max {
            return Err(ParseError::TooDeep);
        }
        self.keys_left = self.keys_left.checked_sub(1).ok_or(ParseError::TooMany("search keys"))?;
        if self.scanner.eat(b'(') {
            return self.keys(depth + 1, true);
        }
        if self.scanner.peek().is_some_and(|b| b.is_ascii_digit() || b == b'*') {
            return SequenceSet::parse(self.scanner).map(Key::Sequence);
        }
        let word = self.scanner.word()?.to_ascii_uppercase();
        match simple_key(&word) {
            Some(key) => Ok(key),
            None => self.key_with_argument(&word, depth),
        }
    }

    fn key_with_argument(&mut self, word: &str, depth: usize) -> Parsed<Key> {
        if let Some((field, test)) = date_key(word) {
            return Ok(Key::Date { field, test, day: self.day()? });
        }
        if !NAMES_WITH_ARGUMENTS.contains(&word) {
            return Err(ParseError::Expected("a search key"));
        }
        self.scanner.space()?;
        Ok(match word {
            "NOT" => Key::Not(Box::new(self.key(depth + 1)?)),
            "OR" => {
                let first = self.key(depth + 1)?;
                self.scanner.space()?;
                Key::Or(Box::new(first), Box::new(self.key(depth + 1)?))
            }
            "UID" => Key::Uid(SequenceSet::parse(self.scanner)?),
            "LARGER" => Key::Larger(self.scanner.number64()?),
            "SMALLER" => Key::Smaller(self.scanner.number64()?),
            "KEYWORD" => Key::Flag(self.keyword()?),
            "UNKEYWORD" => Key::Not(Box::new(Key::Flag(self.keyword()?))),
            "HEADER" => {
                let field = self.scanner.astring_utf8()?;
                self.scanner.space()?;
                Key::Header { field, text: self.scanner.astring_utf8()? }
            }
            "BODY" => Key::Body(self.scanner.astring_utf8()?),
            "TEXT" => Key::Text(self.scanner.astring_utf8()?),
            _ => Key::Header { field: word.to_owned(), text: self.scanner.astring_utf8()? },
        })
    }

    fn day(&mut self) -> Parsed<Date> {
        self.scanner.space()?;
        parse_date(self.scanner)
    }

    fn keyword(&mut self) -> Parsed<Flag> {
        let keyword = Keyword::new(self.scanner.atom()?).ok_or(ParseError::Expected("a keyword"))?;
        Ok(Flag::Keyword(keyword))
    }
}

const NAMES_WITH_ARGUMENTS: [&str; 15] = [
    "NOT",
    "OR",
    "UID",
    "LARGER",
    "SMALLER",
    "KEYWORD",
    "UNKEYWORD",
    "HEADER",
    "BODY",
    "TEXT",
    "FROM",
    "TO",
    "CC",
    "BCC",
    "SUBJECT",
];

fn simple_key(word: &str) -> Option<Key> {
    let not = |key| Key::Not(Box::new(key));
    Some(match word {
        "ALL" => Key::All,
        "ANSWERED" => Key::Flag(Flag::Answered),
        "DELETED" => Key::Flag(Flag::Deleted),
        "DRAFT" => Key::Flag(Flag::Draft),
        "FLAGGED" => Key::Flag(Flag::Flagged),
        "SEEN" => Key::Flag(Flag::Seen),
        "UNANSWERED" => not(Key::Flag(Flag::Answered)),
        "UNDELETED" => not(Key::Flag(Flag::Deleted)),
        "UNDRAFT" => not(Key::Flag(Flag::Draft)),
        "UNFLAGGED" => not(Key::Flag(Flag::Flagged)),
        "UNSEEN" => not(Key::Flag(Flag::Seen)),
        "RECENT" => Key::Recent,
        "OLD" => not(Key::Recent),
        "NEW" => Key::And(vec![Key::Recent, not(Key::Flag(Flag::Seen))]),
        _ => return None,
    })
}

fn date_key(word: &str) -> Option<(DateField, DateTest)> {
    let (field, test) = match word.strip_prefix("SENT") {
        Some(test) => (DateField::Sent, test),
        None => (DateField::Internal, word),
    };
    let test = match test {
        "BEFORE" => DateTest::Before,
        "ON" => DateTest::On,
        "SINCE" => DateTest::Since,
        _ => return None,
    };
    Some((field, test))
}
