//! FETCH responses (RFC 3501 §7.4.2), laid out as text and ranges of the message.
//!
//! A range is a promise of octets: the session streams them from the blob store, so a message never stands in memory. The
//! length of each literal is known before its first octet is read.

use std::ops::Range;

use posthouse_mail::structure::{BodyPart, EnvelopeStructure};
use posthouse_mail::{Flag, SeqNum, Uid, UnixMillis};

use crate::imap::command::fetch::{Content, Partial};
use crate::imap::date::format_date_time;
use crate::imap::flags::put_flags;
use crate::imap::section::put_section;

use super::body_structure::{Extension, put_body};
use super::envelope::put_envelope;
use super::text::{put_display, put_literal_head};

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Text(Vec<u8>),
    /// These octets of the message as the client sees it.
    Octets(Range<u64>),
}

/// One FETCH response in the making.
#[derive(Debug)]
pub struct FetchResponse {
    segments: Vec<Segment>,
    text: Vec<u8>,
    empty: bool,
}

impl FetchResponse {
    pub fn new(number: SeqNum) -> Self {
        Self { segments: Vec::new(), text: format!("* {number} FETCH (").into_bytes(), empty: true }
    }

    fn item(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.text.push(b' ');
        }
        self.text.extend_from_slice(name.as_bytes());
        &mut self.text
    }

    pub fn flags<'a>(&mut self, flags: impl IntoIterator<Item = &'a Flag>, recent: bool) {
        put_flags(self.item("FLAGS "), flags, recent);
    }

    pub fn uid(&mut self, uid: Uid) {
        put_display(self.item("UID "), uid);
    }

    pub fn internal_date(&mut self, time: UnixMillis) {
        put_display(self.item("INTERNALDATE "), format_date_time(time));
    }

    pub fn size(&mut self, size: u64) {
        put_display(self.item("RFC822.SIZE "), size);
    }

    pub fn envelope(&mut self, envelope: &EnvelopeStructure) {
        put_envelope(self.item("ENVELOPE "), envelope);
    }

    pub fn body(&mut self, root: &BodyPart, extension: Extension) {
        let name = if extension == Extension::With { "BODYSTRUCTURE " } else { "BODY " };
        put_body(self.item(name), root, extension);
    }

    /// A part that the message has not.
    pub fn content_nil(&mut self, content: &Content) {
        self.content_name(content);
        self.text.extend_from_slice(b" NIL");
    }

    /// Octets that are not one range of the message: filtered header fields.
    pub fn content_text(&mut self, content: &Content, octets: &[u8]) {
        self.content_name(content);
        let all = 0..octets.len() as u64;
        let cut = cut(all, content.partial);
        self.text.push(b' ');
        put_literal_head(&mut self.text, cut.end - cut.start);
        // The range lies within the slice, so its ends are no larger than a usize.
        self.text.extend_from_slice(&octets[cut.start as usize..cut.end as usize]);
    }

    /// A range of the message.
    pub fn content_octets(&mut self, content: &Content, range: Range<u64>) {
        self.content_name(content);
        let cut = cut(range, content.partial);
        self.text.push(b' ');
        put_literal_head(&mut self.text, cut.end - cut.start);
        if !cut.is_empty() {
            self.segments.push(Segment::Text(std::mem::take(&mut self.text)));
            self.segments.push(Segment::Octets(cut));
        }
    }

    fn content_name(&mut self, content: &Content) {
        match content.alias {
            Some(alias) => {
                self.item(alias);
            }
            None => put_section(self.item("BODY"), &content.section),
        }
        if let Some(partial) = content.partial {
            // RFC 3501 §7.4.2: the answer tells the first octet only.
            put_display(&mut self.text, format_args!("<{}>", partial.first));
        }
    }

    /// `None` where nothing was said.
    pub fn finish(mut self) -> Option<Vec<Segment>> {
        if self.empty {
            return None;
        }
        self.text.extend_from_slice(b")\r\n");
        self.segments.push(Segment::Text(self.text));
        Some(self.segments)
    }
}

/// RFC 3501 §6.4.5: a partial beyond the end gives what there is, an empty string if nothing.
fn cut(range: Range<u64>, partial: Option<Partial>) -> Range<u64> {
    let range = range.start..range.end.max(range.start);
    match partial {
        None => range,
        Some(Partial { first, count }) => {
            let start = range.start.saturating_add(first).min(range.end);
            start..start.saturating_add(count).min(range.end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::Section;

    fn content(partial: Option<Partial>) -> Content {
        Content { section: Section::default(), peek: false, partial, alias: None }
    }

    fn printed(response: FetchResponse) -> String {
        let segments = response.finish().unwrap_or_default();
        let print = |segment: &Segment| match segment {
            Segment::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Segment::Octets(range) => format!("<<{range:?}>>"),
        };
        segments.iter().map(print).collect()
    }

    #[test]
    fn a_message_is_promised_as_a_range() {
        let mut response = FetchResponse::new(SeqNum::FIRST);
        response.uid(Uid::new(7).expect("not zero"));
        response.content_octets(&content(None), 10..30);
        response.flags([&Flag::Seen], true);
        assert_eq!(printed(response), "* 1 FETCH (UID 7 BODY[] {20}\r\n<<10..30>> FLAGS (\\Seen \\Recent))\r\n");
    }

    #[test]
    fn a_partial_is_cut_at_the_end() {
        for (first, count, expect) in [
            (0, 5, "BODY[]<0> {5}\r\n<<10..15>>"),
            (15, 50, "BODY[]<15> {5}\r\n<<25..30>>"),
            (20, 5, "BODY[]<20> {0}\r\n"),
            (u64::MAX, u64::MAX, "BODY[]<18446744073709551615> {0}\r\n"),
        ] {
            let mut response = FetchResponse::new(SeqNum::FIRST);
            response.content_octets(&content(Some(Partial { first, count })), 10..30);
            assert_eq!(printed(response), format!("* 1 FETCH ({expect})\r\n"));
        }
        let mut response = FetchResponse::new(SeqNum::FIRST);
        response.content_text(&content(Some(Partial { first: 1, count: 2 })), b"abcd");
        assert_eq!(printed(response), "* 1 FETCH (BODY[]<1> {2}\r\nbc)\r\n");
    }

    #[test]
    fn a_missing_part_is_nil_and_nothing_is_no_response() {
        let mut response = FetchResponse::new(SeqNum::FIRST);
        response.content_nil(&content(None));
        assert_eq!(printed(response), "* 1 FETCH (BODY[] NIL)\r\n");
        assert_eq!(FetchResponse::new(SeqNum::FIRST).finish(), None);
    }
}
