//! From the octets of a message to its `MessageStructure`, chunk by chunk (RFC 2045, RFC 2046 §5).
//!
//! A line scanner of our own, because IMAP needs the exact place and the lines of every part, also where a message is
//! malformed, and because a message is never held whole: what is kept is the line under the scan, the header of the one
//! part whose header is being read, and the result, each with a bound. LF ends a line; a CR before it belongs to the end.
//! Two things always hold for readers: a multipart has at least one child and a message exactly one, and the range of a
//! child lies within its parent's body. A multipart without parts gets a child that spans its body, so that it can be read.

use memchr::memchr;
use posthouse_mail::structure::{BodyPart, EnvelopeStructure, MessageStructure};

mod header;

use header::PartHeader;

/// What a message may make us hold. What lies beyond is scanned over, and the structure says `truncated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Parts within parts; deeper ones are shown as one opaque part. Stored rows need it under 90 (prost's recursion limit).
    pub depth: usize,
    pub parts: usize,
    /// Octets of one part's header that are read.
    pub header_octets: usize,
    /// Octets of names, parameters and envelopes kept in the result.
    pub retained_octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64, parts: 10_000, header_octets: 1024 * 1024, retained_octets: 256 * 1024 }
    }
}

/// The structure of a message that is at hand, whole or as a prefix of `total` octets.
pub fn parse_structure(octets: &[u8], total: u64, limits: Limits) -> MessageStructure {
    let mut builder = StructureBuilder::new(limits);
    builder.push(octets);
    builder.finish(total)
}

/// Scans a message as it streams by.
#[derive(Debug)]
pub struct StructureBuilder {
    limits: Limits,
    /// The open parts, the root first; only the last one can be in its header.
    open: Vec<OpenPart>,
    /// Header octets of the last open part, while it is in its header.
    header: Vec<u8>,
    header_at_line_start: usize,
    line: Line,
    previous: Previous,
    position: u64,
    /// Line feeds before `position`.
    line_feeds: u64,
    parts: usize,
    retained: usize,
    truncated: bool,
    summary: MessageStructure,
}

#[derive(Debug)]
struct OpenPart {
    part: BodyPart,
    phase: Phase,
    boundary: Option<Vec<u8>>,
    /// The root of a message: its header is asked for an ENVELOPE.
    is_message_root: bool,
    /// RFC 2046 §5.1.5: parts of a digest are messages by default.
    in_digest: bool,
    envelope: Option<EnvelopeStructure>,
    /// Line feeds before the body.
    line_feeds_before: u64,
    /// A limit was met here: what is inside stays unseen.
    opaque: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Header,
    Body,
}

/// The line under the scan.
#[derive(Debug, Default)]
struct Line {
    start: u64,
    length: u64,
    /// Its first octets: a boundary line is known by them.
    prefix: Vec<u8>,
    /// The last octet but for the line feed.
    last: u8,
    /// Octets of its line break: 2, 1, or 0 while none came.
    line_break: u64,
}

/// What must be known of the line before a boundary.
#[derive(Debug, Default, Clone, Copy)]
struct Previous {
    /// Octets of its line break.
    line_break: u64,
    has_content: bool,
}

/// A boundary line: which multipart it is of, and whether it ends that.
struct Delimiter {
    index: usize,
    closing: bool,
}

impl StructureBuilder {
    pub fn new(limits: Limits) -> Self {
        let root = OpenPart::new(0, true, false);
        Self {
            limits,
            open: vec![root],
            header: Vec::new(),
            header_at_line_start: 0,
            line: Line::default(),
            previous: Previous::default(),
            position: 0,
            line_feeds: 0,
            parts: 1,
            retained: 0,
            truncated: false,
            summary: MessageStructure::default(),
        }
    }

    /// Takes the next octets; how they are cut makes no difference.
    pub fn push(&mut self, mut chunk: &[u8]) {
        while let Some(at) = memchr(b'\n', chunk) {
            self.take(&chunk[..=at]);
            self.end_line();
            chunk = &chunk[at + 1..];
        }
        self.take(chunk);
    }

    /// Ends the scan. `total` is the message's size where more follows than was pushed: open parts end there, their lines
    /// are counted as far as they were seen, and the structure says `truncated`.
    pub fn finish(mut self, total: u64) -> MessageStructure {
        if self.line.length > 0 {
            // A last line without a line break may still be a boundary (RFC 2046 §5.1.1 `close-delimiter`).
            self.end_line();
        }
        let end = total.max(self.position);
        self.truncated |= end > self.position;
        let ended = Ended { end, line_feeds: self.line_feeds, last_line_open: self.previous_is_open() };
        let ended = self.close_down_to(0, ended);
        let root = self.open.pop().map(|open| self.closed(open, ended));
        self.summary.root = root.map(|(part, _)| part);
        self.summary.truncated = self.truncated;
        self.summary
    }

    /// A part of one line, its line feed included if it is here.
    fn take(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        let in_header = self.phase() == Phase::Header;
        if in_header {
            let room = self.limits.header_octets.saturating_sub(self.header.len());
            self.truncated |= piece.len() > room;
            self.header.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let room = PREFIX_MAX.saturating_sub(self.line.prefix.len());
        let first = self.line.prefix.first().or(piece.first());
        // Only a line that begins with a hyphen can be a boundary; of others the first octet is enough.
        let wanted = if first == Some(&b'-') { room } else { room.min(1) };
        self.line.prefix.extend_from_slice(&piece[..piece.len().min(wanted)]);
        let ends = *last == b'\n';
        if let Some(last) = if ends { piece.iter().nth_back(1) } else { Some(last) } {
            self.line.last = *last;
        }
        if ends {
            self.line.line_break = if self.line.last == b'\r' { 2 } else { 1 };
        }
        self.line.length += piece.len() as u64;
        self.position += piece.len() as u64;
        self.line_feeds += u64::from(ends);
    }

    fn phase(&self) -> Phase {
        self.open.last().map_or(Phase::Body, |open| open.phase)
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line_break = line.line_break;
        let has_content = line.length > line_break;
        if let Some(delimiter) = self.delimiter(&line) {
            self.header.truncate(self.header_at_line_start);
            self.on_delimiter(&line, delimiter);
        } else if self.phase() == Phase::Header && !has_content && line_break > 0 {
            self.end_header();
        }
        self.previous = Previous { line_break, has_content };
        self.header_at_line_start = self.header.len();
        self.line = Line { start: self.position, prefix: reuse(line.prefix), ..Line::default() };
    }

    /// RFC 2046 §5.1.1: a line is a boundary if it begins with two hyphens and the boundary. Where several fit, one that
    /// is the whole line wins, then the longest, then the innermost.
    fn delimiter(&self, line: &Line) -> Option<Delimiter> {
        let text = line.prefix.strip_prefix(b"--")?.trim_ascii_end();
        let mut best: Option<(bool, usize, Delimiter)> = None;
        for (index, open) in self.open.iter().enumerate().rev() {
            let Some(tail) = open.boundary.as_ref().and_then(|boundary| text.strip_prefix(boundary.as_slice())) else {
                continue;
            };
            let exact = tail.is_empty() || tail == b"--";
            let length = text.len() - tail.len();
            if best.as_ref().is_none_or(|(e, l, _)| (exact, length) > (*e, *l)) {
                best = Some((exact, length, Delimiter { index, closing: tail.starts_with(b"--") }));
            }
        }
        best.map(|(_, _, delimiter)| delimiter)
    }

    fn on_delimiter(&mut self, line: &Line, delimiter: Delimiter) {
        // RFC 2046 §5.1.1: the line break before a boundary belongs to the boundary.
        let broken = u64::from(self.previous.line_break > 0);
        let own = u64::from(line.line_break > 0);
        let ended = Ended {
            end: line.start - self.previous.line_break,
            line_feeds: self.line_feeds - own - broken,
            last_line_open: self.previous.has_content,
        };
        self.close_down_to(delimiter.index, ended);
        let Some(multipart) = self.open.last_mut() else { return };
        if delimiter.closing {
            // What follows is the epilogue; it has no boundary.
            multipart.boundary = None;
        } else if self.parts >= self.limits.parts {
            self.truncated = true;
        } else {
            let in_digest = multipart.part.media_subtype == "digest";
            self.parts += 1;
            self.open.push(OpenPart::new(self.position, false, in_digest));
        }
    }

    /// The blank line came: reads the header and decides what the body is.
    fn end_header(&mut self) {
        let boundary = self.read_header();
        let position = self.position;
        let line_feeds = self.line_feeds;
        let depth = self.open.len();
        let Some(open) = self.open.last_mut() else { return };
        open.phase = Phase::Body;
        open.part.body_start = position;
        open.line_feeds_before = line_feeds;
        let nests = open.part.is_message() || boundary.is_some();
        if !nests {
            return;
        }
        if depth >= self.limits.depth || (open.part.is_message() && self.parts >= self.limits.parts) {
            open.opaque = true;
            self.truncated = true;
        } else if open.part.is_message() {
            self.parts += 1;
            self.open.push(OpenPart::new(position, true, false));
        } else {
            open.boundary = boundary;
        }
    }

    /// Fills the last open part from its header; gives the boundary if it is a multipart that has one.
    fn read_header(&mut self) -> Option<Vec<u8>> {
        let header = std::mem::take(&mut self.header);
        let open = self.open.last_mut()?;
        let read = PartHeader::read(&header, open.in_digest);
        let boundary = read.boundary.clone();
        let left = self.limits.retained_octets.saturating_sub(self.retained);
        self.truncated |= read.fill(&mut open.part, left);
        if open.is_message_root {
            let left = left.saturating_sub(header::cost(&open.part));
            let (envelope, cut) = super::envelope(&header, left);
            self.truncated |= cut;
            self.retained += header::envelope_cost(&envelope);
            open.envelope = Some(envelope);
        }
        self.retained += header::cost(&open.part);
        if self.open.len() == 1 {
            self.summary.sent_at = super::sent_at(&header);
            self.summary.thread_ids = super::thread_ids(&header);
            let subject = super::find(&header, "Subject").map(|field| field.value()).unwrap_or_default();
            self.summary.base_subject = super::base_subject(&subject);
        }
        self.header = reuse(header);
        boundary
    }

    /// Closes the parts inside the one at `index`, the innermost first; gives where those around them end.
    fn close_down_to(&mut self, index: usize, mut ended: Ended) -> Ended {
        while self.open.len() > index + 1 {
            let Some(open) = self.open.pop() else { break };
            let (part, envelope) = self.closed(open, ended);
            if part.body_end > ended.end {
                // The line break before the boundary was the blank line of this part's header: it stays in all around it.
                ended = Ended { end: part.body_end, line_feeds: ended.line_feeds + 1, last_line_open: false };
            }
            let Some(parent) = self.open.last_mut() else { break };
            if parent.part.is_message() {
                parent.part.inner_envelope = envelope;
            }
            parent.part.children.push(part);
        }
        ended
    }

    /// A part whose last octet is known. The root's envelope goes into the summary on its way.
    fn closed(&mut self, mut open: OpenPart, ended: Ended) -> (BodyPart, Option<EnvelopeStructure>) {
        if open.phase == Phase::Header {
            // RFC 2046 §5.1: the header may end with the part, without a blank line.
            self.open.push(open);
            let _ = self.read_header();
            let Some(back) = self.open.pop() else { return (BodyPart::default(), None) };
            open = back;
            open.part.body_start = ended.end.max(open.part.header_start);
            open.line_feeds_before = ended.line_feeds;
        }
        if self.open.is_empty() {
            self.summary.envelope = open.envelope.take();
        }
        let part = &mut open.part;
        part.body_end = ended.end.max(part.body_start);
        let lines = match part.body_size() {
            0 => 0,
            _ => ended.line_feeds.saturating_sub(open.line_feeds_before) + u64::from(ended.last_line_open),
        };
        if part.media_type == "text" || part.is_message() {
            part.line_count = lines;
        }
        if part.children.is_empty() && (part.is_multipart() || part.is_message()) {
            part.children.push(only_child(part, open.opaque, lines));
            if part.is_message() {
                part.inner_envelope = Some(EnvelopeStructure::default());
            }
        }
        (open.part, open.envelope)
    }

    fn previous_is_open(&self) -> bool {
        self.previous.line_break == 0 && self.previous.has_content
    }
}

/// Where and after how many lines a part ends.
#[derive(Debug, Clone, Copy)]
struct Ended {
    end: u64,
    /// Line feeds before `end`.
    line_feeds: u64,
    /// The last line has content and no line break within the part; it counts as a line.
    last_line_open: bool,
}

impl OpenPart {
    fn new(start: u64, is_message_root: bool, in_digest: bool) -> Self {
        Self {
            part: BodyPart { header_start: start, ..BodyPart::default() },
            phase: Phase::Header,
            boundary: None,
            is_message_root,
            in_digest,
            envelope: None,
            line_feeds_before: 0,
            opaque: false,
        }
    }
}

/// The child of a multipart or message in which none was found: its whole body, as text or, past a limit, as octets.
fn only_child(part: &BodyPart, opaque: bool, lines: u64) -> BodyPart {
    let (media_type, media_subtype) = if opaque { ("application", "octet-stream") } else { ("text", "plain") };
    BodyPart {
        media_type: media_type.to_owned(),
        media_subtype: media_subtype.to_owned(),
        transfer_encoding: "7bit".to_owned(),
        header_start: part.body_start,
        body_start: part.body_start,
        body_end: part.body_end,
        line_count: if opaque { 0 } else { lines },
        ..BodyPart::default()
    }
}

/// An empty buffer out of a used one, unless that grew large.
fn reuse(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.shrink_to(KEEP_MAX);
    buffer
}

/// Octets of a line that are kept to know a boundary by. RFC 2046 §5.1.1 allows 70 in a boundary.
const PREFIX_MAX: usize = 300;
/// Capacity kept between parts.
const KEEP_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
