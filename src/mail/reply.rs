//! SMTP replies (RFC 5321 §4.2): every one that we send is made here, so that no two places word one refusal in two ways.

use std::io::Write as _;

use crate::status::EnhancedStatus;

/// A reply code, an enhanced status where the reply has one, and at least one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub status: Option<EnhancedStatus>,
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line with an enhanced status (RFC 2034 §4: all but greeting and EHLO).
    pub fn new(code: u16, status: (u8, u16, u16), text: impl Into<String>) -> Self {
        let (class, subject, detail) = status;
        Self { code, status: Some(EnhancedStatus::new(class, subject, detail)), lines: vec![text.into()] }
    }

    /// A reply without an enhanced status: the greeting, EHLO, 334 and 354.
    pub fn bare(code: u16, lines: Vec<String>) -> Self {
        debug_assert!(!lines.is_empty(), "a reply has at least one line");
        Self { code, status: None, lines }
    }

    /// RFC 5321 §4.2.1: the first digit is 2 or 3.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// RFC 5321 §4.2.1: the first digit is 4.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// The bytes on the wire, the last line with a space after the code (RFC 5321 §4.2.1).
    pub fn to_wire(&self) -> String {
        let mut out = Vec::new();
        self.put_on_wire(&mut out);
        String::from_utf8(out).expect("text, of which only whole characters were replaced")
    }

    /// Puts these bytes behind others.
    pub fn put_on_wire(&self, out: &mut Vec<u8>) {
        for (i, line) in self.lines.iter().enumerate() {
            let separator = if i + 1 == self.lines.len() { ' ' } else { '-' };
            let _ = write!(out, "{}{separator}", self.code);
            if let Some(status) = self.status {
                let _ = write!(out, "{status} ");
            }
            // A reply line is text: whatever came from elsewhere must not end it early.
            let start = out.len();
            out.extend_from_slice(line.as_bytes());
            out[start..].iter_mut().filter(|octet| matches!(octet, b'\r' | b'\n' | 0)).for_each(|octet| *octet = b' ');
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_4_2_1_only_the_last_line_has_a_space_after_the_code() {
        let reply = Reply::bare(250, vec!["mx.test".into(), "PIPELINING".into()]);
        assert_eq!(reply.to_wire(), "250-mx.test\r\n250 PIPELINING\r\n");
        let reply = Reply::new(550, (5, 7, 1), "relaying denied");
        assert_eq!(reply.to_wire(), "550 5.7.1 relaying denied\r\n");
    }

    #[test]
    fn foreign_text_cannot_start_a_line_of_its_own() {
        assert_eq!(Reply::new(451, (4, 3, 0), "a\r\n250 ok").to_wire(), "451 4.3.0 a  250 ok\r\n");
    }
}
