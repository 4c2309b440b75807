//! Receives the data of one message: finds its end, takes out the stuffed dots, counts against the limits.
//!
//! Apart from the command machine because it works on blocks, not lines, and must keep up with the disk. The end of data
//! is CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4); a CR or LF that stands alone refuses the message, so no two servers
//! can be made to see two different ends (message smuggling). A refused message is still read to its end, with nothing
//! kept, so that the dialogue stays in step.

mod header;

use memchr::memchr2;
use posthouse_mail::Reply;
use thiserror::Error;

use header::HeaderCounter;

/// What a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLimits {
    /// Octets of the message, stuffed dots not counted.
    pub message_max: u64,
    /// Octets of a line, its CRLF included.
    pub text_line_max: usize,
    pub header_max: usize,
    pub header_fields_max: usize,
    /// Received fields after which the message is in a loop.
    pub received_max: usize,
}

/// Why the data is refused; of several reasons the client hears the first of this list, however its data was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum DataFault {
    #[error("CR and LF stand only together, as the end of a line")]
    BareLineEnd,
    #[error("the message is too large")]
    TooLarge,
    #[error("a line is too long")]
    LineTooLong,
    #[error("the header is too large")]
    HeaderTooLarge,
    #[error("the header has too many fields")]
    TooManyFields,
    #[error("too many Received fields: the message is in a loop")]
    Loop,
}

impl DataFault {
    /// The reply to the end of data.
    pub fn reply(self) -> Reply {
        let text = self.to_string();
        match self {
            Self::BareLineEnd => Reply::new(550, (5, 6, 11), text),
            // RFC 1870 §6.3.
            Self::TooLarge | Self::HeaderTooLarge => Reply::new(552, (5, 3, 4), text),
            Self::LineTooLong | Self::TooManyFields => Reply::new(554, (5, 6, 0), text),
            // RFC 5321 §6.3, RFC 3463 §3.5 X.4.6.
            Self::Loop => Reply::new(554, (5, 4, 6), text),
        }
    }
}

/// How far a block of input went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Octets of the input that belong to this message; the rest are the next commands.
    pub consumed: usize,
    /// The end of data was among them.
    pub ended: bool,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind a CRLF, or at the very start.
    LineStart,
    /// Behind a dot that began a line.
    Dot,
    /// Behind such a dot and a CR.
    DotCr,
    /// Somewhere in a line.
    Text,
    /// Behind a CR in a line.
    Cr,
    Ended,
}

/// The receiver of one message.
#[derive(Debug, Clone)]
pub struct DataReceiver {
    limits: DataLimits,
    place: Place,
    /// Octets of the message so far.
    size: u64,
    /// Octets of the current line so far.
    line: usize,
    header: HeaderCounter,
    fault: Option<DataFault>,
}

impl DataReceiver {
    pub fn new(limits: DataLimits) -> Self {
        // RFC 5321 §4.1.1.4: the CRLF of the DATA command also begins the first line.
        Self { limits, place: Place::LineStart, size: 0, line: 0, header: HeaderCounter::default(), fault: None }
    }

    /// Takes a block as it came from the wire and appends what belongs to the message to `out`, never more than the block
    /// and two octets.
    pub fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut rest = input;
        while let Some(&first) = rest.first() {
            match self.place {
                Place::Ended => break,
                Place::LineStart if first == b'.' => {
                    self.place = Place::Dot;
                    rest = &rest[1..];
                }
                Place::LineStart => self.place = Place::Text,
                Place::Dot if first == b'\r' => {
                    self.place = Place::DotCr;
                    rest = &rest[1..];
                }
                // RFC 5321 §4.5.2: a dot before anything else was put there by the sender of the line.
                Place::Dot => self.place = Place::Text,
                Place::DotCr if first == b'\n' => {
                    self.place = Place::Ended;
                    rest = &rest[1..];
                }
                Place::DotCr => self.bare(),
                Place::Cr if first == b'\n' => {
                    self.end_line(out);
                    rest = &rest[1..];
                }
                Place::Cr => self.bare(),
                Place::Text => rest = self.text(rest, out),
            }
        }
        Progress { consumed: input.len() - rest.len(), ended: self.place == Place::Ended }
    }

    /// The message is whole: its size, or why it is refused. Call it when `receive` reported the end.
    pub fn finish(&self) -> Result<u64, DataFault> {
        debug_assert_eq!(self.place, Place::Ended, "the end of data was seen");
        self.fault.map_or(Ok(self.size), Err)
    }

    /// The fault so far; from then on nothing more is appended.
    pub fn fault(&self) -> Option<DataFault> {
        self.fault
    }

    /// Goes through text up to the CR of its line end, and through whole lines for as long as nothing needs a decision.
    fn text<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let mut kept = 0;
        let mut at = 0;
        loop {
            let Some(found) = memchr2(b'\r', b'\n', &input[at..]) else {
                self.line_part(&input[at..]);
                self.keep(&input[kept..], out);
                return &input[input.len()..];
            };
            let end = at + found;
            if input[end] == b'\n' {
                // RFC 5321 §2.3.8: an LF without its CR.
                self.bare();
                return &input[end + 1..];
            }
            self.line_part(&input[at..end]);
            if input.get(end + 1) != Some(&b'\n') {
                // The LF may be the first octet of the next block.
                self.keep(&input[kept..end], out);
                self.place = Place::Cr;
                return &input[end + 1..];
            }
            self.line_end();
            at = end + 2;
            if input.get(at).is_none_or(|next| *next == b'.') || self.fault.is_some() {
                self.keep(&input[kept..at], out);
                self.place = Place::LineStart;
                return &input[at..];
            }
            // With a header still to count, lines are kept one by one, so that its limits hold exactly.
            if self.header.is_open() {
                self.keep(&input[kept..at], out);
                kept = at;
            }
        }
    }

    /// The LF of a line whose CR came in the block before.
    fn end_line(&mut self, out: &mut Vec<u8>) {
        self.line_end();
        self.keep(b"\r\n", out);
        self.place = Place::LineStart;
    }

    /// Octets of a line, without its CRLF.
    fn line_part(&mut self, part: &[u8]) {
        self.line = self.line.saturating_add(part.len());
        if self.line.saturating_add(2) > self.limits.text_line_max {
            self.refuse(DataFault::LineTooLong);
        }
        if let Err(fault) = self.header.line_part(part, &self.limits) {
            self.refuse(fault);
        }
    }

    fn line_end(&mut self) {
        self.line = 0;
        if let Err(fault) = self.header.line_end(&self.limits) {
            self.refuse(fault);
        }
    }

    /// Appends to the message.
    fn keep(&mut self, part: &[u8], out: &mut Vec<u8>) {
        self.size = self.size.saturating_add(part.len() as u64);
        if self.size > self.limits.message_max {
            self.refuse(DataFault::TooLarge);
        }
        if self.fault.is_none() {
            out.extend_from_slice(part);
        }
    }

    fn bare(&mut self) {
        self.refuse(DataFault::BareLineEnd);
        self.place = Place::Text;
    }

    fn refuse(&mut self, fault: DataFault) {
        self.fault = Some(self.fault.map_or(fault, |known| known.min(fault)));
    }
}

#[cfg(test)]
mod tests;
