//! Sections of a message as FETCH names them (RFC 9051 §6.4.5.1): from `BODY[1.2.MIME]` to a range of octets.
//!
//! Works on a stored `MessageStructure` alone, so that no message is parsed again to fetch a part of it.

use posthouse_mail::structure::{BodyPart, MessageStructure};

use super::fields::FieldFilter;

/// What stands between the brackets of `BODY[...]`; empty for the whole message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Part numbers, from 1.
    pub path: Vec<u32>,
    pub text: Option<SectionText>,
}

/// RFC 9051 §9 `section-text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionText {
    Header,
    HeaderFields(FieldFilter),
    Text,
    Mime,
}

/// Octets of the message; a filter is to be run over them (`filter_fields`) where only some header fields are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionSpan {
    pub start: u64,
    pub end: u64,
    pub filter: Option<FieldFilter>,
}

impl SectionSpan {
    fn of(start: u64, end: u64) -> Self {
        Self { start, end, filter: None }
    }

    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The octets of a section; `None` where the message has no such part (RFC 9051 §6.4.5: NIL is the answer).
pub fn section_span(structure: &MessageStructure, section: &Section) -> Option<SectionSpan> {
    let root = structure.root.as_ref()?;
    let Some((part, in_message)) = find_part(root, &section.path)? else {
        return match &section.text {
            None => Some(SectionSpan::of(root.header_start, root.body_end)),
            Some(text) => message_text(root, text),
        };
    };
    match &section.text {
        None => Some(SectionSpan::of(part.body_start, part.body_end)),
        // The lone part of a message that is no multipart shares the message's header.
        Some(SectionText::Mime) if in_message.is_none() => Some(SectionSpan::of(part.header_start, part.body_start)),
        Some(SectionText::Mime) => in_message.map(|root| SectionSpan::of(root.header_start, root.body_start)),
        // RFC 9051 §6.4.5.1: HEADER and TEXT of a part need a message/rfc822.
        Some(text) => message_text(part.children.first().filter(|_| part.is_message())?, text),
    }
}

/// A part, and the root of the message whose lone part it is.
type Found<'a> = (&'a BodyPart, Option<&'a BodyPart>);

/// Follows part numbers. The outer `None`: no such part; the inner one: the path is empty, the message itself.
fn find_part<'a>(root: &'a BodyPart, path: &[u32]) -> Option<Option<Found<'a>>> {
    let mut found: Option<Found<'a>> = None;
    for number in path {
        let holder = match found {
            None => root,
            // RFC 9051 §6.4.5.1: parts of a message/rfc822 are numbered through its inner message.
            Some((part, _)) if part.is_message() => part.children.first()?,
            Some((part, _)) if part.is_multipart() => part,
            Some(_) => return None,
        };
        let at = usize::try_from(*number).ok()?.checked_sub(1)?;
        found = Some(if holder.is_multipart() {
            (holder.children.get(at)?, None)
        } else if at == 0 {
            // "Every message has at least one part number": a message that is no multipart is its own part 1.
            (holder, Some(holder))
        } else {
            return None;
        });
    }
    Some(found)
}

fn message_text(root: &BodyPart, text: &SectionText) -> Option<SectionSpan> {
    let header = SectionSpan::of(root.header_start, root.body_start);
    match text {
        SectionText::Header => Some(header),
        SectionText::HeaderFields(filter) => Some(SectionSpan { filter: Some(filter.clone()), ..header }),
        SectionText::Text => Some(SectionSpan::of(root.body_start, root.body_end)),
        // RFC 9051 §6.4.5.1: MIME needs a part number before it.
        SectionText::Mime => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, parse_structure};
    use super::*;

    /// The structure of RFC 9051 §6.4.5.1's example, shortened.
    const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a\nContent-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/mixed; boundary=b\n\n--b\nX: 1\n\ninner one\n--b\n\ninner two\n--b--\n--a\nContent-Type: message/rfc822\n\nSubject: flat\n\nflat body\n--a--\n";

    fn check(message: &str, path: &[u32], text: Option<SectionText>, expect: Option<&str>) {
        let structure = parse_structure(message.as_bytes(), message.len() as u64, Limits::default());
        let section = Section { path: path.to_vec(), text };
        let span = section_span(&structure, &section);
        let found = span.map(|s| &message[usize::try_from(s.start).unwrap_or(0)..usize::try_from(s.end).unwrap_or(0)]);
        assert_eq!(found, expect, "{section:?}");
    }

    #[test]
    fn rfc9051_6_4_5_1_parts_are_numbered_through_messages() {
        check(MESSAGE, &[1], None, Some("one"));
        check(MESSAGE, &[2, 1], None, Some("inner one"));
        check(MESSAGE, &[2, 2], None, Some("inner two"));
        check(MESSAGE, &[3, 1], None, Some("flat body"));
        check(MESSAGE, &[4], None, None);
        check(MESSAGE, &[0], None, None);
        check(MESSAGE, &[1, 1], None, None);
        check(MESSAGE, &[3, 2], None, None);
        check(MESSAGE, &[], None, Some(MESSAGE));
    }

    #[test]
    fn rfc9051_6_4_5_1_header_text_and_mime() {
        use SectionText::{Header, Mime, Text};
        check(MESSAGE, &[], Some(Header), Some("Content-Type: multipart/mixed; boundary=a\n\n"));
        check(MESSAGE, &[2], Some(Mime), Some("Content-Type: message/rfc822\n\n"));
        check(MESSAGE, &[2], Some(Header), Some("Subject: in\nContent-Type: multipart/mixed; boundary=b\n\n"));
        check(MESSAGE, &[3], Some(Text), Some("flat body"));
        check(MESSAGE, &[2, 1], Some(Mime), Some("X: 1\n\n"));
        check(MESSAGE, &[3, 1], Some(Mime), Some("Subject: flat\n\n"));
        check(MESSAGE, &[1], Some(Header), None);
        check(MESSAGE, &[], Some(Mime), None);
    }

    #[test]
    fn a_message_without_parts_is_its_own_part_1() {
        check("A: b\n\nbody", &[1], None, Some("body"));
        check("A: b\n\nbody", &[1], Some(SectionText::Mime), Some("A: b\n\n"));
        check("A: b\n\nbody", &[], Some(SectionText::Text), Some("body"));
        check("A: b\n\nbody", &[2], None, None);
        check("A: b\n\nbody", &[1, 1], None, None);
    }
}
