//! Reads a server's replies (RFC 5321 §4.2.1), however they are cut and however many come at once.
//!
//! Apart because this is all of a foreign server's text that ever enters: it has the bounds, and it takes out whatever
//! could do harm in a log line or a report.

use memchr::memchr;
use posthouse_mail::{EnhancedStatus, RemoteReply};
use thiserror::Error;

/// What a reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets in a line (RFC 5321 §4.5.3.1.5: at least 512).
    pub line_octets: usize,
    pub lines: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { line_octets: 4096, lines: 200 }
    }
}

/// Why what came is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyFault {
    #[error("a line of the server's reply is too long")]
    LineTooLong,
    #[error("the server's reply has too many lines")]
    TooManyLines,
    #[error("the server's reply has no code")]
    NoCode,
    #[error("the lines of the server's reply have different codes")]
    MixedCodes,
}

/// Collects octets into replies.
#[derive(Debug)]
pub struct ReplyReader {
    limits: ReplyLimits,
    input: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    last_lines: Vec<String>,
}

impl ReplyReader {
    pub fn new(limits: ReplyLimits) -> Self {
        Self { limits, input: Vec::new(), code: None, lines: Vec::new(), last_lines: Vec::new() }
    }

    /// Takes octets from the server; call `next_reply` until it gives `None` before pushing more.
    pub fn push(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    /// Nothing came that was not yet given out.
    pub fn is_empty(&self) -> bool {
        self.input.is_empty() && self.code.is_none()
    }

    /// The lines of the reply given last, without codes.
    pub fn last_lines(&self) -> &[String] {
        &self.last_lines
    }

    /// The next whole reply.
    pub fn next_reply(&mut self) -> Result<Option<RemoteReply>, ReplyFault> {
        let mut taken = 0;
        let result = loop {
            let rest = &self.input[taken..];
            let Some(end) = memchr(b'\n', rest) else {
                break if rest.len() > self.limits.line_octets { Err(ReplyFault::LineTooLong) } else { Ok(None) };
            };
            if end > self.limits.line_octets {
                break Err(ReplyFault::LineTooLong);
            }
            let line = rest[..end].to_vec();
            taken += end + 1;
            match self.take_line(&line) {
                Ok(None) => {}
                done => break done,
            }
        };
        self.input.drain(..taken);
        result
    }

    /// One line, its LF cut off; the reply if it was the last one.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<RemoteReply>, ReplyFault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let code = read_code(line).ok_or(ReplyFault::NoCode)?;
        if self.code.is_some_and(|first| first != code) {
            return Err(ReplyFault::MixedCodes);
        }
        if self.lines.len() >= self.limits.lines {
            return Err(ReplyFault::TooManyLines);
        }
        self.code = Some(code);
        self.lines.push(clean(line.get(4..).unwrap_or_default()));
        // RFC 5321 §4.2.1: a hyphen behind the code means that more lines follow.
        if line.get(3) == Some(&b'-') {
            return Ok(None);
        }
        self.code = None;
        self.last_lines = std::mem::take(&mut self.lines);
        Ok(Some(reply(code, &self.last_lines)))
    }
}

/// Three digits, the first from 2 to 5 (RFC 5321 §4.2.1), then a space, a hyphen or nothing.
fn read_code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let well_formed = matches!(digits[0], b'2'..=b'5') && digits.iter().all(u8::is_ascii_digit);
    if !well_formed || !matches!(line.get(3), None | Some(b' ' | b'-')) {
        return None;
    }
    Some(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')))
}

/// Text without control characters.
fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Joins the lines; an enhanced status at their start (RFC 2034 §4) is taken out.
fn reply(code: u16, lines: &[String]) -> RemoteReply {
    let mut status = None;
    let mut text = String::new();
    for line in lines {
        let (found, rest) = split_status(code, line);
        status = status.or(found);
        if text.len() + rest.len() > TEXT_MAX {
            break;
        }
        if !text.is_empty() && !rest.is_empty() {
            text.push(' ');
        }
        text.push_str(rest);
    }
    RemoteReply { code, status, text }
}

fn split_status(code: u16, line: &str) -> (Option<EnhancedStatus>, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    // RFC 2034 §4: the class must say what the code says.
    match EnhancedStatus::parse(first).filter(|status| u16::from(status.class) == code / 100) {
        Some(status) => (Some(status), rest.trim()),
        None => (None, line.trim()),
    }
}

/// Octets of a reply's text that are kept, for rows and reports.
const TEXT_MAX: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        for size in 1..=input.len().min(40) {
            let mut reader = ReplyReader::new(ReplyLimits { line_octets: 40, lines: 3 });
            let mut shown = Vec::new();
            'chunks: for chunk in input.as_bytes().chunks(size) {
                reader.push(chunk);
                loop {
                    match reader.next_reply() {
                        Ok(Some(reply)) => shown.push(reply.to_string()),
                        Ok(None) => break,
                        Err(fault) => {
                            shown.push(format!("{fault:?}"));
                            break 'chunks;
                        }
                    }
                }
            }
            assert_eq!(shown.join("|"), expect, "{input:?} in chunks of {size}");
        }
    }

    #[test]
    fn rfc5321_4_2_1_multi_line_replies() {
        check("250 ok\r\n", "250 ok");
        check("250\r\n", "250 ");
        check("250-a\r\n250-b\r\n250 c\r\n220 d\r\n", "250 a b c|220 d");
        check("250 bare\n", "250 bare");
        check("550-5.1.1 no\r\n550 5.1.1 user\r\n", "550 5.1.1 no user");
        check("550 4.1.1 odd class\r\n", "550 4.1.1 odd class");
    }

    #[test]
    fn what_is_no_reply_is_a_fault() {
        check("hello\r\n", "NoCode");
        check("150 x\r\n", "NoCode");
        check("250x\r\n", "NoCode");
        check("250-a\r\n220 b\r\n", "MixedCodes");
        check("250-a\r\n250-b\r\n250-c\r\n250 d\r\n", "TooManyLines");
        check(&format!("250 {}\r\n", "x".repeat(50)), "LineTooLong");
        check(&"2".repeat(50), "LineTooLong");
    }

    #[test]
    fn control_characters_never_enter() {
        check("250 a\tb\x1b[0m\r\n", "250 a b [0m");
    }
}
