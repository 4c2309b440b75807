//! FETCH (RFC 3501 §6.4.5): rows are read by the page, octets are streamed.
//!
//! A message never stands in memory: an answer is text and promised ranges, and each range leaves in pieces of
//! `imap.io_buffer`, kept as `Sending` between two of them.

use std::collections::HashMap;
use std::ops::Range;

use posthouse_mail::structure::BodyPart;
use posthouse_mail::{Flag, FlagSet, SeqNum, Uid};
use posthouse_storage::message::{self, Email, FlagChange, Membership, SetFlags};
use posthouse_wire::imap::NumberKind;
use posthouse_wire::imap::SequenceSet;
use posthouse_wire::imap::command::fetch::{Content, Fetch, FetchItem};
use posthouse_wire::imap::response::body_structure::Extension;
use posthouse_wire::imap::response::fetch::{FetchResponse, Segment};
use posthouse_wire::imap::response::status::{Code, Status};
use posthouse_wire::mime::{filter_fields, section_span};

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::rows::rows;
use crate::clock;

/// Messages whose rows are read at once.
const ROWS_PAGE: usize = 200;
/// Messages that are marked seen in one change before their octets are sent.
const OCTETS_PAGE: usize = 20;

/// A promised range on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub position: u64,
    pub end: u64,
}

impl Sending {
    fn new(range: Range<u64>) -> Self {
        Self { position: range.start, end: range.end }
    }

    /// The next piece, at most `max` octets.
    fn piece(&self, max: u64) -> Option<Range<u64>> {
        (self.position < self.end).then(|| self.position..self.end.min(self.position.saturating_add(max.max(1))))
    }
}

/// One message of a page.
struct Found<'a> {
    number: SeqNum,
    row: &'a Membership,
    email: Option<&'a Email>,
    /// `\Seen` was set by this command.
    newly_seen: bool,
}

impl<D: Desk> Dialogue<D> {
    pub(super) async fn fetch(&mut self, fetch: Fetch) -> Outcome<Status> {
        let uids = self.resolve(fetch.kind, &fetch.set)?;
        let has_octets = fetch.items.iter().any(|item| matches!(item, FetchItem::Content(_)));
        let page_size = if has_octets { OCTETS_PAGE } else { ROWS_PAGE };
        let mut missing = 0;
        for page in uids.chunks(page_size) {
            missing += page.len() - self.fetch_page(&fetch, page).await?;
        }
        Ok(with_missing(Status::ok("fetched"), missing))
    }

    /// Answers for some messages; how many of them are still there.
    async fn fetch_page(&mut self, fetch: &Fetch, uids: &[Uid]) -> Outcome<usize> {
        let (account, mailbox) = (self.account()?, self.selected()?.mailbox);
        let mut rows = rows(self.desk.store(), account, mailbox, uids).await?;
        let seen = if fetch.marks_seen() { self.mark_seen(&mut rows).await? } else { Vec::new() };
        let emails = if fetch.items.iter().any(needs_email) {
            let ids: Vec<_> = rows.iter().map(|row| row.email).collect();
            message::emails(self.desk.store(), account, &ids).await?
        } else {
            Vec::new()
        };
        let emails: HashMap<_, _> = emails.into_iter().flatten().map(|email| (email.id, email)).collect();
        for row in &rows {
            let Some(number) = self.selected()?.view.seq_of(row.uid) else { continue };
            self.tell_keywords(&row.flags)?;
            let email = emails.get(&row.email);
            let found = Found { number, row, email, newly_seen: seen.contains(&row.uid) };
            self.fetch_one(fetch, found).await?;
        }
        Ok(rows.len())
    }

    /// Sets `\Seen` on those that lack it, in store and rows. A mailbox that cannot be written can still be read.
    async fn mark_seen(&mut self, rows: &mut [Membership]) -> Outcome<Vec<Uid>> {
        let selected = self.selected()?;
        let unseen: Vec<Uid> = rows.iter().filter(|row| !row.flags.contains(&Flag::Seen)).map(|row| row.uid).collect();
        if selected.read_only || unseen.is_empty() {
            return Ok(Vec::new());
        }
        let change = SetFlags {
            request: clock::ingest_id(clock::now()),
            mailbox: selected.mailbox,
            uids: unseen,
            change: FlagChange::Add,
            flags: FlagSet::from([Flag::Seen]),
            unchanged_since: None,
        };
        let Ok(set) = self.desk.set_flags(self.account()?, change).await else {
            return Ok(Vec::new());
        };
        let selected = self.selected_mut()?;
        let mut seen = Vec::with_capacity(set.messages.len());
        for message in set.messages {
            selected.own.push(message.modseq);
            seen.push(message.uid);
            if let Some(row) = rows.iter_mut().find(|row| row.uid == message.uid) {
                row.flags = message.flags;
            }
        }
        selected.own.dedup();
        Ok(seen)
    }

    async fn fetch_one(&mut self, fetch: &Fetch, found: Found<'_>) -> Outcome<()> {
        let row = found.row;
        let mut response = FetchResponse::new(found.number);
        for item in &fetch.items {
            match (item, found.email) {
                (FetchItem::Flags, _) => response.flags(&row.flags, false),
                (FetchItem::InternalDate, _) => response.internal_date(row.received_at),
                (FetchItem::Rfc822Size, _) => response.size(row.size),
                (FetchItem::Uid, _) => response.uid(row.uid),
                // The email went between two reads: the client learns so with the next EXPUNGE.
                (_, None) => {}
                (FetchItem::Envelope, Some(email)) => {
                    response.envelope(email.structure.envelope.as_ref().unwrap_or(&Default::default()));
                }
                (FetchItem::Body, Some(email)) => response.body(&root_of(email), Extension::Without),
                (FetchItem::BodyStructure, Some(email)) => response.body(&root_of(email), Extension::With),
                (FetchItem::Content(content), Some(email)) => {
                    self.put_content(&mut response, content, email).await?;
                }
            }
        }
        // RFC 3501 §7.4.2: flags that the command changed are part of its answer.
        if found.newly_seen && !fetch.items.contains(&FetchItem::Flags) {
            response.flags(&row.flags, false);
        }
        for segment in response.finish().into_iter().flatten() {
            match (segment, found.email) {
                (Segment::Text(text), _) => self.out.extend_from_slice(&text),
                (Segment::Octets(range), Some(email)) => self.send_octets(email, range).await?,
                // Octets are promised only for an email that was read.
                (Segment::Octets(_), None) => {}
            }
        }
        self.flush_if_full().await
    }

    async fn put_content(&self, response: &mut FetchResponse, content: &Content, email: &Email) -> Outcome<()> {
        let Some(span) = section_span(&email.structure, &content.section) else {
            response.content_nil(content);
            return Ok(());
        };
        let range = span.start..span.end.min(email.size());
        match &span.filter {
            None => response.content_octets(content, range),
            Some(filter) => {
                let header = message::raw(self.desk.store(), email, self.header_range(range)).await?;
                response.content_text(content, &filter_fields(&header, filter));
            }
        }
        Ok(())
    }

    /// As much of a header as we look at.
    pub(super) fn header_range(&self, range: Range<u64>) -> Range<u64> {
        range.start..range.end.min(range.start.saturating_add(self.settings.smtp.header_max.get()))
    }

    async fn send_octets(&mut self, email: &Email, range: Range<u64>) -> Outcome<()> {
        let piece_max = self.settings.imap.io_buffer.get();
        let mut sending = Sending::new(range);
        while let Some(piece) = sending.piece(piece_max) {
            // The literal's length is out already: what cannot be read now ends the session, not the command.
            let octets = message::raw(self.desk.store(), email, piece.clone()).await.map_err(Stop::Unreadable)?;
            if octets.len() as u64 != piece.end - piece.start {
                let reason = format!("{} of {} octets", octets.len(), piece.end - piece.start);
                return Err(Stop::Unreadable(posthouse_storage::Error::Corrupt(reason)));
            }
            sending.position = piece.end;
            self.out.extend_from_slice(&octets);
            self.flush_if_full().await?;
        }
        Ok(())
    }

    /// The Uids that a set means in this session's view, ascending.
    pub(super) fn resolve(&self, kind: NumberKind, set: &SequenceSet) -> Outcome<Vec<Uid>> {
        let view = &self.selected()?.view;
        let exists = view.exists();
        match kind {
            NumberKind::Sequence if !set.fits(exists) => Err(Status::bad("no message has that sequence number").into()),
            NumberKind::Sequence => {
                let set = set.resolve((exists > 0).then_some(exists));
                Ok(view.by_seq(&set).map(|(_, uid)| uid).collect())
            }
            NumberKind::Uid => {
                let set = set.resolve(view.last_uid().map(Uid::get));
                Ok(view.by_uid(&set).map(|(_, uid)| uid).collect())
            }
        }
    }
}

/// RFC 5530 §3 EXPUNGEISSUED: some messages are gone, and the client has not heard of it yet.
pub fn with_missing(status: Status, missing: usize) -> Status {
    if missing == 0 { status } else { status.code(Code::ExpungeIssued) }
}

fn needs_email(item: &FetchItem) -> bool {
    matches!(item, FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure | FetchItem::Content(_))
}

/// The structure's root; plain text where none was made.
fn root_of(email: &Email) -> std::borrow::Cow<'_, BodyPart> {
    match &email.structure.root {
        Some(root) => std::borrow::Cow::Borrowed(root),
        None => std::borrow::Cow::Owned(BodyPart {
            media_type: "text".to_owned(),
            media_subtype: "plain".to_owned(),
            transfer_encoding: "7bit".to_owned(),
            body_end: email.size(),
            ..BodyPart::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leaves_in_pieces() {
        let mut sending = Sending::new(5..25);
        let mut pieces = Vec::new();
        while let Some(piece) = sending.piece(8) {
            sending.position = piece.end;
            pieces.push(piece);
        }
        assert_eq!(pieces, [5..13, 13..21, 21..25]);
        assert_eq!(Sending::new(5..5).piece(8), None);
        assert_eq!(Sending::new(0..9).piece(0), Some(0..1));
    }
}
