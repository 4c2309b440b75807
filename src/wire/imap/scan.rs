//! Reads the terminal symbols of the grammar from one framed command.
//!
//! Apart from the commands so that each of them reads like its line in RFC 3501 §9. A framed command holds its literals in
//! place, `{5}` CRLF and five octets, so one slice is the whole input and nothing is copied until a value needs it.

use std::borrow::Cow;

use posthouse_mail::Flag;

use super::mailbox_name::MailboxName;

/// Why a command cannot be read. All but `Charset` and `MailboxName` are answered BAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("unknown command")]
    UnknownCommand,
    #[error("nested too deep")]
    TooDeep,
    #[error("too many {0}")]
    TooMany(&'static str),
    /// RFC 3501 §6.4.4: an unsupported charset is answered NO.
    #[error("charset is not supported")]
    Charset,
    /// RFC 3501 §5.1.3: a name that is no modified UTF-7 names no mailbox; answered NO.
    #[error("not a valid mailbox name")]
    MailboxName,
}

pub type Parsed<T> = Result<T, ParseError>;

/// What is left of one command.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The command must be over.
    pub fn end(&self) -> Parsed<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(ParseError::Expected("the end of the command")) }
    }

    /// Takes the octet if it is next.
    pub fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub fn byte(&mut self, byte: u8, expected: &'static str) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { Err(ParseError::Expected(expected)) }
    }

    /// Exactly one space: RFC 3501 §9 note (1) knows no other white space.
    pub fn space(&mut self) -> Parsed<()> {
        self.byte(b' ', "a space")
    }

    pub fn take_while(&mut self, accepts: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !accepts(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn ascii_while(&mut self, expected: &'static str, accepts: impl Fn(u8) -> bool) -> Parsed<&'a str> {
        let taken = self.take_while(|b| b.is_ascii() && accepts(b));
        match std::str::from_utf8(taken) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => Err(ParseError::Expected(expected)),
        }
    }

    pub fn atom(&mut self) -> Parsed<&'a str> {
        self.ascii_while("an atom", is_atom_char)
    }

    /// A word of letters, digits, dots and hyphens: the names of commands, items and keys.
    pub fn word(&mut self) -> Parsed<&'a str> {
        self.ascii_while("a word", |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
    }

    /// The word if it is next, in any case, and ends there.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = self.clone();
        match ahead.word() {
            Ok(found) if found.eq_ignore_ascii_case(word) => {
                *self = ahead;
                true
            }
            _ => false,
        }
    }

    /// RFC 3501 §9 `tag`.
    pub fn tag(&mut self) -> Parsed<&'a str> {
        self.ascii_while("a tag", |b| is_astring_char(b) && b != b'+')
    }

    pub fn astring(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => self.ascii_while("a string or an atom", is_astring_char).map(|t| Cow::Borrowed(t.as_bytes())),
        }
    }

    pub fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => Err(ParseError::Expected("a string")),
        }
    }

    pub fn nstring(&mut self) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.eat_word("NIL") { Ok(None) } else { self.string().map(Some) }
    }

    /// A string that must be UTF-8: user names, search keys.
    pub fn astring_utf8(&mut self) -> Parsed<String> {
        let bytes = self.astring()?.into_owned();
        String::from_utf8(bytes).map_err(|_| ParseError::Expected("UTF-8"))
    }

    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.byte(b'"', "a quoted string")?;
        let mut owned: Vec<u8> = Vec::new();
        loop {
            let plain = self.take_while(|b| !matches!(b, b'"' | b'\\' | b'\r' | b'\n' | 0));
            if self.eat(b'"') {
                return Ok(if owned.is_empty() {
                    Cow::Borrowed(plain)
                } else {
                    Cow::Owned([&owned[..], plain].concat())
                });
            }
            owned.extend_from_slice(plain);
            self.byte(b'\\', "the end of a quoted string")?;
            match self.peek() {
                Some(special @ (b'"' | b'\\')) => owned.push(special),
                _ => return Err(ParseError::Expected("a quoted special")),
            }
            self.rest = &self.rest[1..];
        }
    }

    fn literal(&mut self) -> Parsed<&'a [u8]> {
        self.byte(b'{', "a literal")?;
        let size = usize::try_from(self.number64()?).map_err(|_| ParseError::Expected("a shorter literal"))?;
        self.eat(b'+');
        self.byte(b'}', "the end of a literal's size")?;
        self.byte(b'\r', "CRLF")?;
        self.byte(b'\n', "CRLF")?;
        let (text, rest) = self.rest.split_at_checked(size).ok_or(ParseError::Expected("a whole literal"))?;
        self.rest = rest;
        // RFC 3501 §9 CHAR8: a literal holds no NUL.
        if text.contains(&0) { Err(ParseError::Expected("a literal without NUL")) } else { Ok(text) }
    }

    /// RFC 3501 §9 `number`: 32 bits.
    pub fn number(&mut self) -> Parsed<u32> {
        u32::try_from(self.number64()?).map_err(|_| ParseError::Expected("a number below 4294967296"))
    }

    pub fn number64(&mut self) -> Parsed<u64> {
        let digits = self.ascii_while("a number", |b| b.is_ascii_digit())?;
        digits.parse().map_err(|_| ParseError::Expected("a smaller number"))
    }

    pub fn mailbox(&mut self) -> Parsed<MailboxName> {
        MailboxName::from_wire(&self.astring()?)
    }

    /// RFC 3501 §9 `flag`, but only those that a client may set.
    pub fn flag(&mut self) -> Parsed<Flag> {
        let start = self.rest;
        self.eat(b'\\');
        let atom = self.atom()?;
        let whole = &start[..start.len() - self.rest.len()];
        let text = std::str::from_utf8(whole).unwrap_or(atom);
        Flag::parse(text).ok_or(ParseError::Expected("a flag that can be set"))
    }

    /// `(a b c)`, maybe empty, at most `max` items.
    pub fn list<T>(&mut self, max: usize, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.byte(b'(', "a parenthesised list")?;
        let mut items = Vec::new();
        if self.eat(b')') {
            return Ok(items);
        }
        loop {
            if items.len() >= max {
                return Err(ParseError::TooMany("items in a list"));
            }
            items.push(item(self)?);
            if self.eat(b')') {
                return Ok(items);
            }
            self.space()?;
        }
    }
}

/// RFC 3501 §9 `ATOM-CHAR`.
pub fn is_atom_char(b: u8) -> bool {
    b > 0x20 && b < 0x7f && !matches!(b, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// RFC 3501 §9 `ASTRING-CHAR`.
pub fn is_astring_char(b: u8) -> bool {
    is_atom_char(b) || b == b']'
}

/// Items in any parenthesised list of ours; the line limit would allow more.
pub const LIST_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn astring(text: &str) -> Option<String> {
        let mut scanner = Scanner::new(text.as_bytes());
        let value = scanner.astring_utf8().ok()?;
        scanner.end().ok().map(|()| value)
    }

    #[test]
    fn an_astring_is_an_atom_a_quoted_string_or_a_literal() {
        for (input, expect) in [
            ("abc", Some("abc")),
            ("a]c", Some("a]c")),
            ("\"a b\"", Some("a b")),
            ("\"a\\\"b\\\\c\"", Some("a\"b\\c")),
            ("\"\"", Some("")),
            ("{3}\r\na b", Some("a b")),
            ("{3+}\r\na b", Some("a b")),
            ("{0}\r\n", Some("")),
            ("", None),
            ("a(b", None),
            ("\"a", None),
            ("\"a\\n\"", None),
            ("{4}\r\nabc", None),
            ("{3}\r\na\0b", None),
            ("{99999999999999999999}\r\na", None),
        ] {
            assert_eq!(astring(input).as_deref(), expect, "{input:?}");
        }
    }

    #[test]
    fn a_list_has_single_spaces_and_a_bound() {
        let read = |text: &str, max| {
            Scanner::new(text.as_bytes()).list(max, |s| s.atom().map(str::to_owned)).map(|items| items.join("|"))
        };
        assert_eq!(read("(a b)", 2).as_deref(), Ok("a|b"));
        assert_eq!(read("()", 2).as_deref(), Ok(""));
        assert!(read("(a  b)", 2).is_err());
        assert!(read("(a b", 2).is_err());
        assert_eq!(read("(a b c)", 2), Err(ParseError::TooMany("items in a list")));
    }

    #[test]
    fn recent_is_no_flag_that_can_be_set() {
        assert_eq!(Scanner::new(b"\\seen").flag(), Ok(Flag::Seen));
        assert!(Scanner::new(b"\\Recent").flag().is_err());
        assert!(Scanner::new(b"\\").flag().is_err());
    }
}
