//! Multi-line answers (RFC 1939 §3): a line that begins with a dot gets another, and a line with only a dot ends it.
//!
//! Works on any chunks, since a message is never whole in memory. Lines leave with CRLF even where a stored message has
//! a bare LF, or the client would see lines of its own making.

/// Byte-stuffs one message. Part of the session's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuffer {
    pub at_line_start: bool,
    pub after_cr: bool,
    pub limit: Option<LineLimit>,
}

/// TOP: the header, the empty line, and so many lines of the body (RFC 1939 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineLimit {
    pub lines_left: u64,
    pub in_body: bool,
    pub line_is_empty: bool,
}

impl LineLimit {
    pub fn new(lines: u64) -> Self {
        Self { lines_left: lines, in_body: false, line_is_empty: true }
    }

    /// Whether nothing more is wanted.
    fn is_reached(&self) -> bool {
        self.in_body && self.lines_left == 0
    }

    fn end_line(&mut self) {
        if self.in_body {
            self.lines_left = self.lines_left.saturating_sub(1);
        } else if self.line_is_empty {
            self.in_body = true;
        }
        self.line_is_empty = true;
    }
}

impl Stuffer {
    /// A whole message (RETR), or its beginning (TOP).
    pub fn new(limit: Option<LineLimit>) -> Self {
        Self { at_line_start: true, after_cr: false, limit }
    }

    /// Appends the stuffed form of `chunk`. Returns false when no more chunks are wanted.
    pub fn push(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) -> bool {
        while !chunk.is_empty() && !self.is_limit_reached() {
            let end = memchr::memchr(b'\n', chunk);
            let (text, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
            self.push_text(text, out);
            chunk = rest.strip_prefix(b"\n").unwrap_or(rest);
            if end.is_some() {
                self.end_line(out);
            }
        }
        !self.is_limit_reached()
    }

    fn is_limit_reached(&self) -> bool {
        self.limit.as_ref().is_some_and(LineLimit::is_reached)
    }

    /// A line, or a piece of one, without its LF.
    fn push_text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let (Some(first), Some(last)) = (text.first(), text.last()) else {
            return;
        };
        // RFC 1939 §3: byte-stuffing.
        if self.at_line_start && *first == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        self.at_line_start = false;
        self.after_cr = *last == b'\r';
        if let Some(limit) = &mut self.limit {
            limit.line_is_empty &= text.iter().all(|byte| *byte == b'\r');
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if !self.after_cr {
            out.push(b'\r');
        }
        out.push(b'\n');
        self.at_line_start = true;
        self.after_cr = false;
        if let Some(limit) = &mut self.limit {
            limit.end_line();
        }
    }

    /// Appends the end of the answer; a last line without its CRLF gets one.
    pub fn finish(self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(if self.after_cr { b"\n" } else { b"\r\n" });
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuff(message: &[u8], limit: Option<u64>, chunk: usize) -> String {
        let (mut out, mut stuffer) = (Vec::new(), Stuffer::new(limit.map(LineLimit::new)));
        for part in message.chunks(chunk) {
            if !stuffer.push(part, &mut out) {
                break;
            }
        }
        stuffer.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn check(message: &str, limit: Option<u64>, expect: &str) {
        for chunk in 1..=message.len().max(1) {
            assert_eq!(stuff(message.as_bytes(), limit, chunk), expect, "{message:?} in chunks of {chunk}");
        }
    }

    #[test]
    fn rfc1939_3_a_leading_dot_is_doubled() {
        check("a\r\n.\r\n..b\r\nc.\r\n", None, "a\r\n..\r\n...b\r\nc.\r\n.\r\n");
        check(".", None, "..\r\n.\r\n");
        check("", None, ".\r\n");
    }

    #[test]
    fn every_line_leaves_with_crlf() {
        check("a\nb", None, "a\r\nb\r\n.\r\n");
        check("a\r", None, "a\r\n.\r\n");
        check("a\rb\r\n", None, "a\rb\r\n.\r\n");
    }

    #[test]
    fn rfc1939_7_top_sends_the_header_the_empty_line_and_so_many_lines() {
        let message = "A: 1\r\nB: 2\r\n\r\none\r\n\r\n.three\r\n";
        check(message, Some(0), "A: 1\r\nB: 2\r\n\r\n.\r\n");
        check(message, Some(2), "A: 1\r\nB: 2\r\n\r\none\r\n\r\n.\r\n");
        check(message, Some(99), "A: 1\r\nB: 2\r\n\r\none\r\n\r\n..three\r\n.\r\n");
        check("A: 1\r\n", Some(5), "A: 1\r\n.\r\n");
    }

    proptest::proptest! {
        /// What a client gets back by undoing the stuffing is the message, its line ends made CRLF.
        #[test]
        fn unstuffing_gives_the_message_back(message in "[a.\r\n]{0,40}", chunk in 1usize..10) {
            let wire = stuff(message.as_bytes(), None, chunk);
            let body = wire.strip_suffix(".\r\n").expect("the final dot");
            let lines: String = body.split_inclusive('\n').map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let mut expect = message.replace("\r\n", "\n").replace('\n', "\r\n");
            if !message.is_empty() && !message.ends_with('\n') {
                expect.push_str(if message.ends_with('\r') { "\n" } else { "\r\n" });
            }
            proptest::prop_assert_eq!(lines, expect);
        }
    }
}
