//! Hashes of a message body in canonical form (RFC 6376 §3.4.3, §3.4.4), fed chunk by chunk.
//!
//! Our own because bodies stream: memory stays constant whatever the message's size. It also keeps the relaxed form right
//! where mail-auth 0.13 is not: lines of white space alone at the end of the body reduce to empty lines and are ignored.

use aws_lc_rs::digest;

/// How a body is normalised before it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonicalization {
    Simple,
    Relaxed,
}

/// The hash functions of `a=`; SHA-1 is not among them (RFC 8301 §3.1).
const ALGORITHM: &digest::Algorithm = &digest::SHA256;

/// Canonical octets gathered before they go to the hash.
const GATHER: usize = 8 * 1024;

/// A body hash under way.
pub struct BodyHash {
    form: Canonicalization,
    sink: Sink,
    /// Line ends seen and not yet written: at the end of the body they are dropped.
    line_ends: u64,
    /// White space seen and not yet written (relaxed): before a line end it is dropped.
    white_space: bool,
    /// A CR whose LF has not come yet.
    carriage_return: bool,
}

/// A finished body hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyDigest {
    pub digest: Vec<u8>,
    /// Octets of the whole canonical body, also those beyond the limit.
    pub length: u64,
}

struct Sink {
    hash: digest::Context,
    gathered: Vec<u8>,
    length: u64,
    limit: u64,
}

impl BodyHash {
    /// `limit` is the `l=` of a signature: only so many canonical octets are hashed.
    pub fn new(form: Canonicalization, limit: Option<u64>) -> Self {
        let sink = Sink {
            hash: digest::Context::new(ALGORITHM),
            gathered: Vec::with_capacity(GATHER),
            length: 0,
            limit: limit.unwrap_or(u64::MAX),
        };
        Self { form, sink, line_ends: 0, white_space: false, carriage_return: false }
    }

    /// Takes the next octets of the body.
    pub fn update(&mut self, mut chunk: &[u8]) {
        if self.carriage_return && !chunk.is_empty() {
            self.carriage_return = false;
            match chunk.strip_prefix(b"\n") {
                Some(rest) => {
                    self.end_line();
                    chunk = rest;
                }
                // A CR alone is content (the receiver refuses it, but a signature must still be judged as it stands).
                None => self.text(b"\r"),
            }
        }
        while let Some(special) = chunk.iter().position(|b| self.is_special(*b)) {
            let (run, rest) = chunk.split_at(special);
            self.text(run);
            chunk = match rest {
                [b'\r', b'\n', after @ ..] => {
                    self.end_line();
                    after
                }
                [b'\r'] => {
                    self.carriage_return = true;
                    &[]
                }
                [b'\r', after @ ..] => {
                    self.text(b"\r");
                    after
                }
                [_white_space, after @ ..] => {
                    self.white_space = true;
                    after
                }
                [] => &[],
            };
        }
        self.text(chunk);
    }

    /// Ends the body.
    pub fn finish(mut self) -> BodyDigest {
        if self.carriage_return {
            self.text(b"\r");
        }
        // RFC 6376 §3.4.3: simple ends in exactly one CRLF, the empty body too. §3.4.4: relaxed adds a CRLF only to a body
        // that is not empty.
        if self.form == Canonicalization::Simple || self.sink.length > 0 {
            self.sink.write(b"\r\n");
        }
        self.sink.flush();
        BodyDigest { digest: self.sink.hash.finish().as_ref().to_vec(), length: self.sink.length }
    }

    fn is_special(&self, octet: u8) -> bool {
        octet == b'\r' || (self.form == Canonicalization::Relaxed && (octet == b' ' || octet == b'\t'))
    }

    /// Content that stays as it is; what was held back before it counts now.
    fn text(&mut self, run: &[u8]) {
        if run.is_empty() {
            return;
        }
        while self.line_ends > 0 {
            self.sink.write(b"\r\n");
            self.line_ends -= 1;
        }
        if self.white_space {
            self.white_space = false;
            self.sink.write(b" ");
        }
        self.sink.write(run);
    }

    fn end_line(&mut self) {
        self.white_space = false;
        self.line_ends += 1;
    }
}

impl Sink {
    fn write(&mut self, octets: &[u8]) {
        let before = self.length;
        self.length += octets.len() as u64;
        let room = usize::try_from(self.limit.saturating_sub(before)).unwrap_or(usize::MAX);
        let octets = &octets[..room.min(octets.len())];
        if self.gathered.len() + octets.len() > GATHER {
            self.flush();
        }
        if octets.len() >= GATHER {
            self.hash.update(octets);
        } else {
            self.gathered.extend_from_slice(octets);
        }
    }

    fn flush(&mut self) {
        self.hash.update(&self.gathered);
        self.gathered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(form: Canonicalization, chunks: &[&[u8]]) -> BodyDigest {
        let mut hash = BodyHash::new(form, None);
        chunks.iter().for_each(|chunk| hash.update(chunk));
        hash.finish()
    }

    fn check(form: Canonicalization, body: &str, canonical: &str) {
        let expect = BodyDigest {
            digest: digest::digest(ALGORITHM, canonical.as_bytes()).as_ref().to_vec(),
            length: canonical.len() as u64,
        };
        assert_eq!(hash(form, &[body.as_bytes()]), expect, "{form:?} {body:?}");
        let octets: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(hash(form, &octets), expect, "{form:?} {body:?} octet by octet");
    }

    #[test]
    fn rfc6376_3_4_4_relaxed_bodies() {
        let check = |body, canonical| check(Canonicalization::Relaxed, body, canonical);
        check(" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"); // the example of §3.4.5
        check("", "");
        check("\r\n", "");
        check("\r\n\r\n", "");
        check("a", "a\r\n");
        check("a\r\n", "a\r\n");
        check("a \t", "a\r\n");
        check("a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n");
        check("  leading\r\n", " leading\r\n");
        check("a\rb\r\n", "a\rb\r\n");
        check("a\r", "a\r\r\n");
    }

    #[test]
    fn rfc6376_3_4_4_lines_of_white_space_at_the_end_are_ignored() {
        let check = |body, canonical| check(Canonicalization::Relaxed, body, canonical);
        check("a\r\n \t \r\n", "a\r\n");
        check("a\r\n\r\n  \r\n\r\n", "a\r\n");
        check("a\r\n  ", "a\r\n");
        check("  \r\n\t\r\n", "");
        check("   ", "");
        check("a\r\n  \r\nb", "a\r\n\r\nb\r\n");
    }

    #[test]
    fn rfc6376_3_4_3_simple_bodies() {
        let check = |body, canonical| check(Canonicalization::Simple, body, canonical);
        check(" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n"); // the example of §3.4.5
        check("", "\r\n");
        check("\r\n\r\n", "\r\n");
        check("a", "a\r\n");
        check("a\r\n  \r\n", "a\r\n  \r\n");
    }

    #[test]
    fn rfc6376_3_5_a_length_limit_counts_canonical_octets() {
        let mut limited = BodyHash::new(Canonicalization::Relaxed, Some(5));
        limited.update(b"a  b\r\nmore\r\n");
        let expect = digest::digest(ALGORITHM, b"a b\r\n").as_ref().to_vec();
        assert_eq!(limited.finish(), BodyDigest { digest: expect, length: 11 });
    }

    proptest::proptest! {
        #[test]
        fn chunks_do_not_change_the_hash(body in proptest::collection::vec(proptest::sample::select(b"ab \t\r\n".to_vec()), 0..80), at in 0usize..80) {
            for form in [Canonicalization::Simple, Canonicalization::Relaxed] {
                let (head, tail) = body.split_at(at.min(body.len()));
                proptest::prop_assert_eq!(hash(form, &[&body]), hash(form, &[head, tail]));
            }
        }
    }
}
