//! Cuts the bytes of a connection into commands, with bounded memory: lines, literals, and messages streamed in chunks.
//!
//! Apart from the grammar, because a literal's octets must be asked for before the command can be read
//! (RFC 3501 §4.3). The caller lends its input buffer and pulls frames until `NeedInput`. What is too long is skipped without
//! being kept, so that the answer can still be sent and the next command found.

use bytes::{Bytes, BytesMut};

use super::command::append::AppendHead;

/// Bounds from `[imap]` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    pub line_max: usize,
    pub literal_max: u64,
    pub literals_total_max: u64,
    pub append_max: u64,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    NeedInput,
    /// The client waits for `+ ` before it sends a literal.
    Continue,
    /// A whole command without its last CRLF, literals in place.
    Command(Vec<u8>),
    /// APPEND up to its message. The caller answers with `accept_message` or `refuse_message` before it pulls again.
    Append(Vec<u8>, AppendHead),
    /// Octets of the message that was accepted.
    MessageChunk(Bytes),
    /// The command is over; `clean` when nothing but CRLF followed the message.
    MessageEnd {
        clean: bool,
    },
    /// A line asked for with `expect_line`.
    Line(Vec<u8>),
    /// A command that broke a bound, or whose literal need not be sent; its octets are skipped. The text is its beginning,
    /// for the tag.
    Refused(Vec<u8>, FrameError),
    /// Nothing sensible can follow: BYE.
    Broken(FrameError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the line is too long")]
    LineTooLong,
    #[error("the literal is too large")]
    LiteralTooLarge,
}

/// Skipping a line or literal beyond its limit ends at this multiple of the limit.
const SKIP_FACTOR: u64 = 16;
/// Enough of a skipped line's end to see a literal announced there.
const TAIL: usize = 32;
/// Enough of a refused command's beginning to hold its tag.
const HEAD: usize = 256;

#[derive(Debug)]
enum Mode {
    /// Collecting a command's text up to a line end.
    Text,
    /// Collecting a literal that is kept.
    Literal {
        left: u64,
    },
    /// `Frame::Append` was given; the caller has the word.
    AwaitVerdict {
        size: u64,
        sync: bool,
    },
    Message {
        left: u64,
    },
    AfterMessage,
    /// Skipping text up to a line end, then the literals that follow it.
    SkipText {
        skipped: u64,
    },
    SkipLiteral {
        left: u64,
    },
    /// The refused command is over.
    Skipped,
    /// One line for AUTHENTICATE or IDLE.
    Line,
    Broken(FrameError),
}

/// The incremental reader.
#[derive(Debug)]
pub struct FrameReader {
    limits: FrameLimits,
    /// Where the search for a line end goes on; every octet is looked at once.
    searched: usize,
    command: Vec<u8>,
    text_octets: usize,
    literal_octets: u64,
    mode: Mode,
    /// Told when the skipping is over.
    refusal: Option<FrameError>,
}

impl FrameReader {
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            searched: 0,
            command: Vec::new(),
            text_octets: 0,
            literal_octets: 0,
            mode: Mode::Text,
            refusal: None,
        }
    }

    /// Between commands: a safe point for moving the session, with what its input buffer holds.
    pub fn is_between_commands(&self) -> bool {
        self.command.is_empty() && matches!(self.mode, Mode::Text | Mode::Line)
    }

    /// The next frame is one plain line: the client's turn in AUTHENTICATE or IDLE.
    pub fn expect_line(&mut self) {
        self.mode = Mode::Line;
    }

    /// After `Frame::Append`: the message shall come; `true` when the client waits for `+ `.
    pub fn accept_message(&mut self) -> bool {
        let Mode::AwaitVerdict { size, sync } = self.mode else {
            return false;
        };
        self.mode = Mode::Message { left: size };
        sync
    }

    /// After `Frame::Append`: the message is not wanted; one that is sent all the same is skipped.
    pub fn refuse_message(&mut self) {
        if let Mode::AwaitVerdict { size, sync } = self.mode {
            self.refusal = None;
            self.skip_literal(size, sync, self.limits.append_max);
        }
    }

    /// While a message comes in: its rest is not wanted any more.
    pub fn abandon_message(&mut self) {
        if let Mode::Message { left } = self.mode {
            self.refusal = None;
            self.mode = Mode::SkipLiteral { left };
        }
    }

    /// Puts back a command of one line, given just now as a frame, whose text ends with that line: it will be given again, here
    /// or by the reader of another process. False, and nothing done, where a literal stands in it: the client would be asked
    /// for that twice.
    pub fn put_back(&mut self, text: &[u8], input: &mut BytesMut) -> bool {
        let Some((b'\n', line)) = text.split_last() else { return false };
        if memchr::memchr(b'\n', line).is_some() {
            return false;
        }
        self.start_command();
        self.searched = 0;
        let rest = std::mem::replace(input, BytesMut::from(text));
        input.unsplit(rest);
        true
    }

    /// `input` is only ever appended to by the caller, and only ever cut at its front here.
    pub fn next_frame(&mut self, input: &mut BytesMut) -> Frame {
        loop {
            let frame = match self.mode {
                Mode::Text => self.read_text(input),
                Mode::Literal { left } => self.read_literal(input, left),
                Mode::Message { left } => self.read_message(input, left),
                Mode::AfterMessage => self.read_after_message(input),
                Mode::SkipText { skipped } => self.skip_text(input, skipped),
                Mode::SkipLiteral { left } => self.skip_literal_octets(input, left),
                Mode::Skipped => self.skipped(),
                Mode::Line => self.read_line(input),
                Mode::AwaitVerdict { .. } => Some(Frame::NeedInput),
                Mode::Broken(error) => Some(Frame::Broken(error)),
            };
            if let Some(frame) = frame {
                return frame;
            }
        }
    }

    /// The next line without its end, if it is whole. A bare LF ends it too, as hand-typed sessions send it.
    fn take_line(&mut self, input: &mut BytesMut) -> Option<BytesMut> {
        let found = memchr::memchr(b'\n', input.get(self.searched..)?);
        let Some(at) = found.map(|at| at + self.searched) else {
            self.searched = input.len();
            return None;
        };
        self.searched = 0;
        let mut line = input.split_to(at + 1);
        line.truncate(at);
        if line.last() == Some(&b'\r') {
            line.truncate(at - 1);
        }
        Some(line)
    }

    fn read_text(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let Some(line) = self.take_line(input) else {
            // One octet more may be the CR of the line's end.
            if self.text_octets + input.len() > self.limits.line_max + 1 {
                return self.refuse_line(input);
            }
            return Some(Frame::NeedInput);
        };
        self.text_octets += line.len();
        let fits = self.text_octets <= self.limits.line_max;
        let room = if fits { line.len() } else { HEAD.min(line.len()) };
        self.command.extend_from_slice(&line[..room]);
        match announced_literal(&line) {
            Announced::None if fits => {
                let command = std::mem::take(&mut self.command);
                self.start_command();
                // An empty line is no command; clients send one after a literal by mistake.
                (!command.is_empty()).then_some(Frame::Command(command))
            }
            Announced::None => Some(self.refused(FrameError::LineTooLong)),
            Announced::TooLarge => self.break_off(FrameError::LiteralTooLarge),
            Announced::Literal { size, sync } if fits => self.announce(size, sync),
            Announced::Literal { size, sync } => {
                self.refusal = Some(FrameError::LineTooLong);
                self.skip_literal(size, sync, self.limits.literal_max);
                None
            }
        }
    }

    /// The text ends with a literal's announcement: ask for it, hand it to the caller, or refuse it.
    fn announce(&mut self, size: u64, sync: bool) -> Option<Frame> {
        self.command.extend_from_slice(b"\r\n");
        if let Some(head) = AppendHead::of_unfinished(&self.command, size) {
            self.mode = Mode::AwaitVerdict { size, sync };
            return Some(Frame::Append(std::mem::take(&mut self.command), head));
        }
        self.literal_octets = self.literal_octets.saturating_add(size);
        if size > self.limits.literal_max || self.literal_octets > self.limits.literals_total_max {
            self.refusal = Some(FrameError::LiteralTooLarge);
            self.skip_literal(size, sync, self.limits.literal_max);
            return None;
        }
        self.mode = Mode::Literal { left: size };
        sync.then_some(Frame::Continue)
    }

    fn read_literal(&mut self, input: &mut BytesMut, left: u64) -> Option<Frame> {
        let taken = self.take_up_to(input, left);
        self.command.extend_from_slice(&taken);
        self.mode = match left - taken.len() as u64 {
            0 => Mode::Text,
            left => Mode::Literal { left },
        };
        (taken.is_empty() && left > 0).then_some(Frame::NeedInput)
    }

    fn read_message(&mut self, input: &mut BytesMut, left: u64) -> Option<Frame> {
        if left == 0 {
            self.mode = Mode::AfterMessage;
            return None;
        }
        let taken = self.take_up_to(input, left);
        if taken.is_empty() {
            return Some(Frame::NeedInput);
        }
        self.mode = Mode::Message { left: left - taken.len() as u64 };
        Some(Frame::MessageChunk(taken.freeze()))
    }

    fn read_after_message(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let line = match self.take_short_line(input) {
            Ok(line) => line,
            Err(frame) => return Some(frame),
        };
        self.start_command();
        match announced_literal(&line) {
            Announced::None => {}
            Announced::TooLarge => return self.break_off(FrameError::LiteralTooLarge),
            Announced::Literal { size, sync } => self.skip_literal(size, sync, self.limits.append_max),
        }
        Some(Frame::MessageEnd { clean: line.is_empty() })
    }

    fn read_line(&mut self, input: &mut BytesMut) -> Option<Frame> {
        Some(match self.take_short_line(input) {
            Ok(line) => {
                self.mode = Mode::Text;
                Frame::Line(line.to_vec())
            }
            Err(frame) => frame,
        })
    }

    /// A line that ends the connection when it is too long; otherwise the frame to give meanwhile.
    fn take_short_line(&mut self, input: &mut BytesMut) -> Result<BytesMut, Frame> {
        let (line, length) = match self.take_line(input) {
            Some(line) => {
                let length = line.len();
                (Some(line), length)
            }
            None => (None, input.len().saturating_sub(1)),
        };
        if length > self.limits.line_max {
            self.mode = Mode::Broken(FrameError::LineTooLong);
            return Err(Frame::Broken(FrameError::LineTooLong));
        }
        line.ok_or(Frame::NeedInput)
    }

    fn refuse_line(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let room = HEAD.min(input.len());
        self.command.extend_from_slice(&input[..room]);
        self.refusal = Some(FrameError::LineTooLong);
        self.mode = Mode::SkipText { skipped: 0 };
        None
    }

    fn skip_text(&mut self, input: &mut BytesMut, skipped: u64) -> Option<Frame> {
        if let Some(line) = self.take_line(input) {
            match announced_literal(&line) {
                Announced::None => return self.skipped(),
                Announced::TooLarge => return self.break_off(FrameError::LiteralTooLarge),
                Announced::Literal { size, sync } => self.skip_literal(size, sync, self.limits.literal_max),
            }
            return None;
        }
        let keep = (TAIL + 2).min(input.len());
        let cut = input.len() - keep;
        drop(input.split_to(cut));
        self.searched = input.len();
        let skipped = skipped + cut as u64;
        if skipped > self.limits.line_max as u64 * SKIP_FACTOR {
            return self.break_off(FrameError::LineTooLong);
        }
        self.mode = Mode::SkipText { skipped };
        Some(Frame::NeedInput)
    }

    /// A synchronising literal that we don't ask for never comes; another one does and is skipped, within reason.
    fn skip_literal(&mut self, size: u64, sync: bool, max: u64) {
        self.mode = if sync {
            Mode::Skipped
        } else if size > max.saturating_mul(SKIP_FACTOR) {
            Mode::Broken(FrameError::LiteralTooLarge)
        } else {
            Mode::SkipLiteral { left: size }
        };
    }

    fn skip_literal_octets(&mut self, input: &mut BytesMut, left: u64) -> Option<Frame> {
        if left == 0 {
            self.mode = Mode::SkipText { skipped: 0 };
            return None;
        }
        let taken = self.take_up_to(input, left).len() as u64;
        self.mode = Mode::SkipLiteral { left: left - taken };
        (taken == 0).then_some(Frame::NeedInput)
    }

    fn skipped(&mut self) -> Option<Frame> {
        match self.refusal.take() {
            Some(error) => Some(self.refused(error)),
            None => {
                self.start_command();
                None
            }
        }
    }

    fn refused(&mut self, error: FrameError) -> Frame {
        let mut head = std::mem::take(&mut self.command);
        head.truncate(HEAD);
        self.start_command();
        Frame::Refused(head, error)
    }

    fn break_off(&mut self, error: FrameError) -> Option<Frame> {
        self.mode = Mode::Broken(error);
        Some(Frame::Broken(error))
    }

    fn take_up_to(&mut self, input: &mut BytesMut, left: u64) -> BytesMut {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        self.searched = 0;
        input.split_to(count)
    }

    fn start_command(&mut self) {
        self.command = Vec::new();
        self.text_octets = 0;
        self.literal_octets = 0;
        self.refusal = None;
        self.mode = Mode::Text;
    }
}

enum Announced {
    None,
    Literal {
        size: u64,
        sync: bool,
    },
    /// The number does not even fit 64 bits.
    TooLarge,
}

/// `{5}` or `{5+}` (RFC 7888 §4) at the end of a line.
fn announced_literal(line: &[u8]) -> Announced {
    let tail = &line[line.len().saturating_sub(TAIL)..];
    let Some(inner) = tail.strip_suffix(b"}") else {
        return Announced::None;
    };
    let Some(open) = memchr::memrchr(b'{', inner) else {
        return Announced::None;
    };
    let inner = &inner[open + 1..];
    let (digits, sync) = match inner.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (inner, true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Announced::None;
    }
    match std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()) {
        Some(size) => Announced::Literal { size, sync },
        None => Announced::TooLarge,
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
