//! FETCH (RFC 3501 §6.4.5): rows are read by the page, octets are streamed.
//!
//! A message never stands in memory: an answer is text and promised ranges, and each range leaves in pieces of
//! `imap.io_buffer`. Between two pieces the answer is a value, `Answering`, so that a session can be told to go, or move to
//! another process, in the middle of any message.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use posthouse_mail::structure::BodyPart;
use posthouse_mail::{Flag, FlagSet, Uid};
use posthouse_storage::message::{self, Email, FlagChange, Membership, Octets, SetFlags};
use posthouse_wire::imap::command::fetch::{Content, Fetch, FetchItem};
use posthouse_wire::imap::response::body_structure::Extension;
use posthouse_wire::imap::response::fetch::{FetchResponse, Segment};
use posthouse_wire::imap::response::status::{Code, Status};
use posthouse_wire::imap::seq_view::Permit;
use posthouse_wire::imap::state::Verb;
use posthouse_wire::imap::{NumberKind, SequenceSet, Tag};
use posthouse_wire::mime::{filter_fields, section_span};

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::rows::rows;
use super::state::Activity;
use crate::clock;
use crate::session::Call;

/// Messages whose rows are read at once.
const ROWS_PAGE: usize = 200;
/// Messages that are marked seen in one change before their octets are sent.
const OCTETS_PAGE: usize = 20;

/// A FETCH under way.
#[derive(Debug, Clone)]
pub struct Answering {
    /// The command as the client sent it, from which it can be read again.
    pub text: Vec<u8>,
    pub tag: Tag,
    pub fetch: Fetch,
    /// Messages that are not yet looked up, ascending.
    pub todo: VecDeque<Uid>,
    /// Messages that were meant and are gone.
    pub missing: usize,
    /// Messages that are looked up.
    page: VecDeque<Found>,
    /// Messages to be looked up whose `\Seen` this command has set already.
    pub seen: BTreeSet<Uid>,
    pub under_way: Option<UnderWay>,
}

/// One message of a page.
#[derive(Debug, Clone)]
struct Found {
    row: Membership,
    email: Option<Email>,
    /// `\Seen` was set by this command.
    newly_seen: bool,
}

/// The answer for one message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    pub segments: VecDeque<Segment>,
    /// Where the ranges are read.
    pub octets: Option<Octets>,
}

impl Answering {
    /// Puts the messages that are looked up and not begun back among those to do: the rest of it can stand in a state.
    pub fn rest(mut self) -> Self {
        for found in std::mem::take(&mut self.page).into_iter().rev() {
            if found.newly_seen {
                self.seen.insert(found.row.uid);
            }
            self.todo.push_front(found.row.uid);
        }
        self
    }

    pub fn new(text: Vec<u8>, tag: Tag, fetch: Fetch, uids: Vec<Uid>) -> Self {
        Self {
            text,
            tag,
            fetch,
            todo: uids.into(),
            missing: 0,
            page: VecDeque::new(),
            seen: BTreeSet::new(),
            under_way: None,
        }
    }
}

impl UnderWay {
    /// The next piece: a text, or at most `max` octets of a range.
    fn next_piece(&mut self, max: u64) -> Option<Segment> {
        match self.segments.pop_front()? {
            Segment::Text(text) => Some(Segment::Text(text)),
            Segment::Octets(range) => {
                let end = range.end.min(range.start.saturating_add(max.max(1)));
                if end < range.end {
                    self.segments.push_front(Segment::Octets(end..range.end));
                }
                Some(Segment::Octets(range.start..end))
            }
        }
    }
}

impl<D: Desk> Dialogue<D> {
    /// The command is legal: what it means is settled here, the rest is done step by step.
    pub(super) fn begin_fetch(&mut self, text: Vec<u8>, tag: Tag, fetch: Fetch) -> Outcome<()> {
        let uids = self.resolve(fetch.kind, &fetch.set)?;
        self.state.activity = Activity::Answering(Box::new(Answering::new(text, tag, fetch, uids)));
        Ok(())
    }

    /// Answers on, until enough is rendered to be sent, or the command is done.
    pub(super) async fn answer_on(&mut self) -> Outcome<()> {
        let Activity::Answering(mut answering) = std::mem::take(&mut self.state.activity) else { return Ok(()) };
        let status = loop {
            match self.answer_step(&mut answering).await {
                Ok(true) if self.out.len() < self.settings.imap.io_buffer.len() && self.calls.now() != Call::Move => {}
                Ok(true) => {
                    self.state.activity = Activity::Answering(answering);
                    return Ok(());
                }
                Ok(false) => break with_missing(Status::ok("fetched"), answering.missing),
                Err(Stop::Answer(status)) => break status,
                Err(stop) => return Err(stop),
            }
        };
        let permits_expunge = Verb::Fetch.permits_expunge(answering.fetch.kind);
        let permit = if permits_expunge { Permit::All } else { Permit::Arrivals };
        self.finish(&answering.tag, permit, status).await
    }

    /// Renders a piece of a message, a message, or looks some up; false when nothing is left to do.
    async fn answer_step(&mut self, answering: &mut Answering) -> Outcome<bool> {
        if let Some(under_way) = &mut answering.under_way {
            match under_way.next_piece(self.settings.imap.io_buffer.get()) {
                Some(Segment::Text(text)) => self.out.extend_from_slice(&text),
                Some(Segment::Octets(range)) => self.put_octets(under_way.octets.as_ref(), range).await?,
                None => answering.under_way = None,
            }
            return Ok(true);
        }
        if let Some(found) = answering.page.pop_front() {
            answering.under_way = self.render(&answering.fetch, found).await?;
            return Ok(true);
        }
        let is_over = answering.todo.is_empty();
        if !is_over {
            self.look_up(answering).await?;
        }
        Ok(!is_over)
    }

    /// Reads the rows of the next messages, and marks them seen where the command does that.
    async fn look_up(&mut self, answering: &mut Answering) -> Outcome<()> {
        let fetch = &answering.fetch;
        let has_octets = fetch.items.iter().any(|item| matches!(item, FetchItem::Content(_)));
        let page_size = if has_octets { OCTETS_PAGE } else { ROWS_PAGE };
        let uids: Vec<Uid> = answering.todo.drain(..page_size.min(answering.todo.len())).collect();
        let (account, mailbox) = (self.account()?, self.selected()?.mailbox);
        let mut rows = rows(self.desk.store(), account, mailbox, &uids).await?;
        answering.missing += uids.len() - rows.len();
        if fetch.marks_seen() {
            answering.seen.extend(self.mark_seen(&mut rows).await?);
        }
        let emails = if fetch.items.iter().any(needs_email) {
            let ids: Vec<_> = rows.iter().map(|row| row.email).collect();
            message::emails(self.desk.store(), account, &ids).await?
        } else {
            Vec::new()
        };
        let emails = emails.into_iter().chain(std::iter::repeat_with(|| None));
        let found = rows.into_iter().zip(emails).map(|(row, email)| {
            let newly_seen = answering.seen.remove(&row.uid);
            Found { row, email, newly_seen }
        });
        answering.page = found.collect();
        Ok(())
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
            keywords_max: self.settings.mailbox.keywords_max,
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

    /// The answer for one message; `None` where the client knows no such message, or nothing is to be said of it.
    async fn render(&mut self, fetch: &Fetch, found: Found) -> Outcome<Option<UnderWay>> {
        let Found { row, email, newly_seen } = found;
        let Some(number) = self.selected()?.view.seq_of(row.uid) else { return Ok(None) };
        self.tell_keywords(&row.flags)?;
        let mut response = FetchResponse::new(number);
        for item in &fetch.items {
            match (item, &email) {
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
        if newly_seen && !fetch.items.contains(&FetchItem::Flags) {
            response.flags(&row.flags, false);
        }
        let octets = email.as_ref().map(Email::octets);
        Ok(response.finish().map(|segments| UnderWay { segments: segments.into(), octets }))
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

    /// Octets are promised only for a message that was read.
    async fn put_octets(&mut self, octets: Option<&Octets>, range: Range<u64>) -> Outcome<()> {
        let Some(octets) = octets else { return Ok(()) };
        // The literal's length is out already: what cannot be read now ends the session, not the command.
        let piece = message::octets(self.desk.store(), octets, range.clone()).await.map_err(Stop::Unreadable)?;
        if piece.len() as u64 != range.end - range.start {
            let reason = format!("{} of {} octets", piece.len(), range.end - range.start);
            return Err(Stop::Unreadable(posthouse_storage::Error::Corrupt(reason)));
        }
        self.out.extend_from_slice(&piece);
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
        let pieces = |range: Range<u64>, max: u64| {
            let text = Segment::Text(b"text".to_vec());
            let mut under_way =
                UnderWay { segments: [text.clone(), Segment::Octets(range), text.clone()].into(), octets: None };
            let mut pieces: Vec<Segment> = std::iter::from_fn(|| under_way.next_piece(max)).collect();
            assert_eq!((pieces.pop(), pieces.remove(0)), (Some(text.clone()), text));
            pieces
        };
        assert_eq!(pieces(5..25, 8), [5..13, 13..21, 21..25].map(Segment::Octets));
        assert_eq!(pieces(0..2, 0), [0..1, 1..2].map(Segment::Octets));
    }
}
