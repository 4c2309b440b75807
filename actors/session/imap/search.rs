//! SEARCH (RFC 3501 §6.4.4): reads what the program asks for, message by message, cheap facts first.
//!
//! Bodies are read in overlapping pieces, so that a message of any size takes the same memory.

use std::ops::Range;

use bytes::Bytes;
use posthouse_mail::structure::BodyPart;
use posthouse_mail::{Flag, SeqNum, Uid};
use posthouse_storage::message::{self, Email, Membership};
use posthouse_wire::imap::NumberKind;
use posthouse_wire::imap::RangeSet;
use posthouse_wire::imap::command::search::Search;
use posthouse_wire::imap::date::{self, Date};
use posthouse_wire::imap::response::status::Status;
use posthouse_wire::imap::search::needle::{NeedleSearch, contains};
use posthouse_wire::imap::search::{Level, MessageFacts, Program, Truth};
use posthouse_wire::mime;

use super::answer::Outcome;
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::select::PAGE;

/// Octets of a part that are decoded at once.
const PIECE: u64 = 256 * 1024;
/// Octets that two pieces share: a string across their border is found if it is shorter.
const OVERLAP: u64 = 8 * 1024;

/// What has been learnt about one message.
struct Facts<'a> {
    number: SeqNum,
    row: &'a Membership,
    email: Option<Email>,
    header: Option<Bytes>,
    found: Option<Vec<bool>>,
}

impl MessageFacts for Facts<'_> {
    fn seq(&self) -> SeqNum {
        self.number
    }

    fn uid(&self) -> Uid {
        self.row.uid
    }

    fn has_flag(&self, flag: &Flag) -> bool {
        self.row.flags.contains(flag)
    }

    fn is_recent(&self) -> bool {
        false
    }

    fn internal_day(&self) -> Option<Date> {
        Some(date::day_of(self.row.received_at))
    }

    fn sent_day(&self) -> Option<Option<Date>> {
        let structure = &self.email.as_ref()?.structure;
        let field = structure.envelope.as_ref().and_then(|envelope| envelope.date.as_deref());
        let day = field.and_then(date::day_of_date_field);
        Some(day.or_else(|| structure.sent_at.map(date::day_of_seconds)))
    }

    fn size(&self) -> Option<u64> {
        Some(self.row.size)
    }

    fn header_contains(&self, field: &str, text: &str) -> Option<bool> {
        let header = self.header.as_ref()?;
        let mut named = mime::fields(header).filter(|candidate| candidate.is(field));
        Some(named.any(|found| text.is_empty() || contains(&mime::decode_words(&found.value()), text)))
    }

    fn found(&self, needle: usize) -> Option<bool> {
        self.found.as_ref().map(|found| found.get(needle).copied().unwrap_or(false))
    }
}

impl<D: Desk> Dialogue<D> {
    pub(super) async fn search(&mut self, search: Search) -> Outcome<Status> {
        let view = &self.selected()?.view;
        let program = Program::new(&search.key, view.exists(), view.last_uid())
            .map_err(|error| Status::bad(error.to_string()))?;
        let matches = self.find(&program, search.kind).await?;
        self.out.extend_from_slice(b"* SEARCH");
        for number in matches.iter() {
            self.out.extend_from_slice(format!(" {number}").as_bytes());
            self.flush_if_full().await?;
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(Status::ok("searched"))
    }

    async fn find(&self, program: &Program, kind: NumberKind) -> Outcome<RangeSet> {
        let account = self.account()?;
        let selected = self.selected()?;
        let mut matches = Vec::new();
        let Some(uids) = program.uids() else {
            return Ok(RangeSet::default());
        };
        let mut next = Some(Uid::new(*uids.start()).unwrap_or(Uid::FIRST));
        while let Some(from) = next.filter(|uid| uids.contains(&uid.get())) {
            let page = message::memberships(self.desk.store(), account, selected.mailbox, from, PAGE).await?;
            for row in &page.messages {
                let Some(number) = selected.view.seq_of(row.uid) else { continue };
                if self.is_match(program, Facts { number, row, email: None, header: None, found: None }).await? {
                    let shown = if kind == NumberKind::Uid { row.uid.get() } else { number.get() };
                    matches.push(shown..=shown);
                    // Neighbours become one range, so that a large answer is small in memory.
                    if matches.len() >= PAGE {
                        matches = RangeSet::from_ranges(matches).ranges().to_vec();
                    }
                }
            }
            next = page.next;
        }
        Ok(RangeSet::from_ranges(matches))
    }

    async fn is_match(&self, program: &Program, mut facts: Facts<'_>) -> Outcome<bool> {
        loop {
            let level = match program.judge(&facts) {
                Truth::Yes => return Ok(true),
                Truth::No => return Ok(false),
                Truth::Needs(level) => level,
            };
            if facts.email.is_none() {
                facts.email = message::email(self.desk.store(), self.account()?, facts.row.email).await?;
            }
            let Some(email) = &facts.email else {
                // It went while we looked.
                return Ok(false);
            };
            match level {
                Level::Row | Level::Email => {}
                Level::Header => facts.header = Some(self.read_header(email).await?),
                Level::Body => facts.found = Some(self.look_through(program, email).await?),
            }
        }
    }

    async fn read_header(&self, email: &Email) -> Outcome<Bytes> {
        let range = email.structure.root.as_ref().map_or(0..0, |root| root.header_start..root.body_start);
        Ok(message::raw(self.desk.store(), email, self.header_range(range)).await?)
    }

    /// Reads a message once for all strings of the program.
    async fn look_through(&self, program: &Program, email: &Email) -> Outcome<Vec<bool>> {
        let mut search = NeedleSearch::new(program.needles());
        feed_header(&mut search, true, &self.read_header(email).await?);
        let mut waiting: Vec<&BodyPart> = email.structure.root.iter().collect();
        while let Some(part) = waiting.pop() {
            if search.is_settled() {
                break;
            }
            if part.is_message() {
                for inner in &part.children {
                    let range = self.header_range(inner.header_start..inner.body_start);
                    feed_header(&mut search, false, &message::raw(self.desk.store(), email, range).await?);
                }
            } else if mime::is_text(part) {
                self.look_through_part(&mut search, email, part).await?;
            }
            waiting.extend(part.children.iter().rev());
        }
        Ok(search.found())
    }

    async fn look_through_part(&self, search: &mut NeedleSearch<'_>, email: &Email, part: &BodyPart) -> Outcome<()> {
        let mut start = part.body_start;
        while start < part.body_end && !search.is_settled() {
            let piece = start..part.body_end.min(start.saturating_add(PIECE));
            let octets = message::raw(self.desk.store(), email, piece.clone()).await?;
            let text = mime::part_text(part, &octets, octets.len());
            search.feed(false, &text);
            search.end_part();
            start = next_start(&octets, &piece, part.body_end);
        }
        Ok(())
    }
}

/// Where the next piece begins: at the start of a line, some way before the end of this one, because lines are what
/// transfer encodings may be cut between.
fn next_start(octets: &[u8], piece: &Range<u64>, part_end: u64) -> u64 {
    if piece.end >= part_end {
        return part_end;
    }
    let shared = usize::try_from(OVERLAP).unwrap_or(usize::MAX).min(octets.len() / 2);
    let tail = &octets[octets.len() - shared..];
    let line_start = tail.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    piece.end - (tail.len() - line_start) as u64
}

fn feed_header(search: &mut NeedleSearch<'_>, in_header: bool, header: &[u8]) {
    for field in mime::fields(header) {
        let name = String::from_utf8_lossy(field.name).into_owned();
        search.feed(in_header, &format!("{name}: {}", mime::decode_words(&field.value())));
        search.end_part();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_overlap_and_begin_at_a_line() {
        let octets = b"0123456789\r\n".repeat(3000);
        let piece = 100..100 + octets.len() as u64;
        let next = next_start(&octets, &piece, 1_000_000);
        assert!(next < piece.end && next > piece.end - OVERLAP - 1);
        assert_eq!((next - 100) % 12, 0);
        assert_eq!(next_start(&octets, &piece, piece.end), piece.end);
        let unbroken = vec![b'x'; 100];
        assert_eq!(next_start(&unbroken, &(0..100), 1000), 50);
        assert!(next_start(b"x", &(0..1), 1000) > 0);
    }
}
