//! Cuts command lines out of a stream of octets; apart so that the limits and the line-end rule hold for every command.
//!
//! Any LF ends a line, so that a client with wrong line ends gets an answer; but only CRLF ends a valid one. A line that
//! ends in a bare LF, or holds a bare CR, is never looked at: nothing hidden behind a wrong line end is obeyed.

use thiserror::Error;

/// Why a line is no command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineFault {
    #[error("the line is too long")]
    TooLong,
    #[error("lines end in CRLF, and CR and LF stand nowhere else")]
    BareLineEnd,
    #[error("the line has a control character")]
    Control,
    #[error("the line is not UTF-8")]
    NotUtf8,
}

/// Where we are in the current line. Part of the session's value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineCutter {
    /// The current line was too long; its rest is thrown away up to the next LF.
    pub overlong: bool,
}

impl LineCutter {
    /// Looks for the next whole line in `input`; gives how many octets of it to drop, and the line without its CRLF.
    /// Without a line more octets are needed; less than `max` then stay, whatever the client sends.
    pub fn cut(&mut self, input: &[u8], max: usize) -> (usize, Option<Result<String, LineFault>>) {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.overlong |= input.len() >= max;
            return (if self.overlong { input.len() } else { 0 }, None);
        };
        let octets = end + 1;
        let fault = std::mem::take(&mut self.overlong) || octets > max;
        let line = if fault { Err(LineFault::TooLong) } else { read_line(&input[..end]) };
        (octets, Some(line))
    }
}

/// Judges what stood before the LF.
fn read_line(octets: &[u8]) -> Result<String, LineFault> {
    // RFC 5321 §2.3.8: CR and LF only ever stand together, as the end of a line.
    let line = octets.strip_suffix(b"\r").ok_or(LineFault::BareLineEnd)?;
    if line.contains(&b'\r') {
        return Err(LineFault::BareLineEnd);
    }
    // A tab is left for the command's grammar to refuse or, at the end of a line, to tolerate (RFC 5321 §4.1.1).
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(LineFault::Control);
    }
    std::str::from_utf8(line).map(str::to_owned).map_err(|_| LineFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of an input that arrives in pieces of `step` octets.
    fn lines(input: &[u8], step: usize, max: usize) -> Vec<Result<String, LineFault>> {
        let mut cutter = LineCutter::default();
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let (octets, line) = cutter.cut(&buffer, max);
                buffer.drain(..octets);
                match line {
                    Some(line) => out.push(line),
                    None => break,
                }
            }
            assert!(buffer.len() < max.max(1), "the buffer stays below the bound");
        }
        out
    }

    fn check(input: &[u8], expect: &[Result<&str, LineFault>]) {
        let expect: Vec<_> = expect.iter().map(|line| line.map(str::to_owned)).collect();
        for step in 1..=input.len() {
            assert_eq!(lines(input, step, 16), expect, "{:?} in steps of {step}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn rfc5321_2_3_8_only_crlf_ends_a_valid_line() {
        check(b"NOOP\r\nQUIT\r\n", &[Ok("NOOP"), Ok("QUIT")]);
        check(b"NOOP\nQUIT\r\n", &[Err(LineFault::BareLineEnd), Ok("QUIT")]);
        check(b"NO\rOP\r\n", &[Err(LineFault::BareLineEnd)]);
        check(b"NOOP\r\r\n", &[Err(LineFault::BareLineEnd)]);
        check(b"\r\n", &[Ok("")]);
    }

    #[test]
    fn nul_and_broken_utf8_are_refused() {
        check(b"NO\0OP\r\n", &[Err(LineFault::Control)]);
        check(b"NO\xffOP\r\n", &[Err(LineFault::NotUtf8)]);
        check("NÖÖP\r\n".as_bytes(), &[Ok("NÖÖP")]);
    }

    #[test]
    fn an_overlong_line_is_one_fault_and_the_next_line_is_read() {
        check(b"0123456789012345678901234567890123456789\r\nNOOP\r\n", &[Err(LineFault::TooLong), Ok("NOOP")]);
        check(b"01234567890123\r\n", &[Ok("01234567890123")]);
        check(b"012345678901234\r\n", &[Err(LineFault::TooLong)]);
    }

    proptest::proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(input in "[ab\r\n\0é]{0,60}", step in 1usize..20) {
            let whole = lines(input.as_bytes(), input.len().max(1), 1000);
            proptest::prop_assert_eq!(lines(input.as_bytes(), step, 1000), whole);
        }
    }
}
