//! Message octets to the DATA stream (RFC 5321 §4.5.2): dots doubled at line starts, lines ended with CRLF.
//!
//! Works on chunks of any cut, so that a message is sent while it is read from the store.

use memchr::memchr2;

/// Stuffs one message.
#[derive(Debug)]
pub struct DotStuffer {
    at_line_start: bool,
    /// The last octet was a CR whose LF has not come.
    after_cr: bool,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self { at_line_start: true, after_cr: false }
    }
}

impl DotStuffer {
    /// Encodes the next octets.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            out.extend_from_slice(b"\r\n");
            self.at_line_start = true;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while !rest.is_empty() {
            if self.at_line_start && rest.starts_with(b".") {
                out.push(b'.');
            }
            let Some(end) = memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                self.at_line_start = false;
                return;
            };
            out.extend_from_slice(&rest[..end]);
            self.at_line_start = false;
            let lone_cr_at_end = rest[end] == b'\r' && end + 1 == rest.len();
            if lone_cr_at_end {
                self.after_cr = true;
                return;
            }
            // RFC 5321 §2.3.8: CR and LF are sent together only; what stands alone becomes a line end.
            out.extend_from_slice(b"\r\n");
            self.at_line_start = true;
            rest = &rest[end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 }..];
        }
    }

    /// The end of data, with the line end before it where the message lacks one (RFC 5321 §4.1.1.4).
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.after_cr || !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expect: &str) {
        for size in 1..=message.len().max(1) {
            let mut stuffer = DotStuffer::default();
            let mut out = Vec::new();
            message.as_bytes().chunks(size).for_each(|chunk| stuffer.push(chunk, &mut out));
            stuffer.finish(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect, "{message:?} in chunks of {size}");
        }
    }

    #[test]
    fn rfc5321_4_5_2_dots_at_line_starts_are_doubled() {
        check("a\r\n.b\r\n..\r\n", "a\r\n..b\r\n...\r\n.\r\n");
        check(".", "..\r\n.\r\n");
        check("a.b", "a.b\r\n.\r\n");
        check("", ".\r\n");
    }

    #[test]
    fn rfc5321_2_3_8_lone_line_ends_are_never_sent() {
        check("a\n.b", "a\r\n..b\r\n.\r\n");
        check("a\r.b\r", "a\r\n..b\r\n.\r\n");
        check("a\r\r\nb", "a\r\n\r\nb\r\n.\r\n");
    }
}
