//! APPEND (RFC 3501 §6.3.11): everything before the message, which is streamed and never part of the command's text.

use posthouse_mail::{FlagSet, UnixMillis};

use crate::imap::date::parse_date_time;
use crate::imap::mailbox_name::MailboxName;
use crate::imap::scan::{LIST_MAX, Parsed, Scanner};

use super::Tag;

/// An APPEND whose message is about to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendHead {
    pub tag: Tag,
    pub mailbox: MailboxName,
    pub flags: FlagSet,
    /// INTERNALDATE; the time of arrival where it is absent.
    pub internal_date: Option<UnixMillis>,
    /// Octets of the message.
    pub size: u64,
}

impl AppendHead {
    /// The head of the APPEND that `text` begins, when the literal at its end is the message. `None` for every other
    /// command, and where that literal is the mailbox name.
    pub fn of_unfinished(text: &[u8], size: u64) -> Option<Self> {
        let tag = Tag::of(text)?;
        let mut scanner = Scanner::new(text);
        scanner.tag().ok()?;
        scanner.space().ok()?;
        if !scanner.eat_word("APPEND") {
            return None;
        }
        scanner.space().ok()?;
        let (mailbox, flags, internal_date) = Self::parse_arguments(&mut scanner).ok()?;
        let at_literal = scanner.eat(b'{');
        let digits = scanner.take_while(|b| b.is_ascii_digit());
        scanner.eat(b'+');
        (at_literal && !digits.is_empty() && scanner.rest() == b"}\r\n").then_some(Self {
            tag,
            mailbox,
            flags,
            internal_date,
            size,
        })
    }

    /// From the mailbox name up to the space before the literal.
    pub fn parse_arguments(scanner: &mut Scanner<'_>) -> Parsed<(MailboxName, FlagSet, Option<UnixMillis>)> {
        let mailbox = scanner.mailbox()?;
        scanner.space()?;
        let mut flags = FlagSet::new();
        if scanner.peek() == Some(b'(') {
            flags = scanner.list(LIST_MAX, Scanner::flag)?.into_iter().collect();
            scanner.space()?;
        }
        let mut internal_date = None;
        if scanner.peek() == Some(b'"') {
            internal_date = Some(parse_date_time(scanner)?);
            scanner.space()?;
        }
        Ok((mailbox, flags, internal_date))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_literal_ends_the_head() {
        for (text, expect) in [
            ("a APPEND INBOX {5}\r\n", true),
            ("a append \"Sent Mail\" (\\Seen $X) \" 1-Jan-2026 10:00:00 +0100\" {5+}\r\n", true),
            ("a APPEND {5}\r\nINBOX {5}\r\n", true),
            ("a APPEND INBOX () {5}\r\n", true),
            ("a APPEND {5}\r\n", false),
            ("a APPEND INBOX (\\Recent) {5}\r\n", false),
            ("a APPEND INBOX (\\Seen){5}\r\n", false),
            ("a APPEND INBOX ~{5}\r\n", false),
            ("a LOGIN x {5}\r\n", false),
            ("APPEND INBOX {5}\r\n", false),
        ] {
            assert_eq!(AppendHead::of_unfinished(text.as_bytes(), 5).is_some(), expect, "{text:?}");
        }
        let head = AppendHead::of_unfinished(b"a APPEND inbox (\\Seen) {5}\r\n", 5).expect("a head");
        assert!(head.mailbox.is_inbox());
        assert_eq!(head.flags.len(), 1);
    }
}
