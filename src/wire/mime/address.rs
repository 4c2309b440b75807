//! Address lists of header fields (RFC 5322 §3.4, obsolete forms of §4.4) as IMAP shows them (RFC 9051 §7.5.2).
//!
//! Apart from `posthouse_mail::Address`: a header may hold anything, and ENVELOPE has to show it all the same.

use posthouse_mail::structure::HeaderAddress;

/// Reads an unfolded value. At most `max` entries, the start and end of groups counted.
pub fn parse_addresses(value: &[u8], max: usize) -> Vec<HeaderAddress> {
    let mut list = List { out: Vec::new(), phrase: Phrase::default(), in_group: false };
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        if list.out.len() >= max {
            break;
        }
        rest = list.step(byte, rest);
    }
    list.end_mailbox();
    list.end_group();
    list.out.truncate(max);
    list.out
}

/// The words read since the last mailbox ended.
#[derive(Default)]
struct Phrase {
    text: Vec<u8>,
    /// White space or a comment came after the last word.
    gap: bool,
    /// The last comment: the name of a mailbox without a display name.
    comment: Option<Vec<u8>>,
    /// Where the @ stands, once it came: what precedes is the local part.
    at: Option<usize>,
    /// An angle address that was complete, its own name before it.
    angle: Option<HeaderAddress>,
}

struct List {
    out: Vec<HeaderAddress>,
    phrase: Phrase,
    in_group: bool,
}

impl List {
    /// Takes what begins with `byte`; gives what follows it.
    fn step<'a>(&mut self, byte: u8, rest: &'a [u8]) -> &'a [u8] {
        let tail = &rest[1..];
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                self.phrase.gap = true;
                tail
            }
            b'(' => {
                let (comment, tail) = comment(rest);
                self.phrase.gap = true;
                self.phrase.comment = Some(comment);
                tail
            }
            b'"' => {
                let (text, tail) = quoted(rest);
                self.phrase.word(&text);
                tail
            }
            b'<' => {
                let close = memchr::memchr(b'>', tail).unwrap_or(tail.len());
                self.phrase.take_angle(&tail[..close]);
                tail.get(close + 1..).unwrap_or_default()
            }
            b',' => {
                self.end_mailbox();
                tail
            }
            b';' => {
                self.end_mailbox();
                self.end_group();
                tail
            }
            b':' if !self.in_group && self.phrase.at.is_none() => {
                self.start_group();
                tail
            }
            b'@' if self.phrase.at.is_none() => {
                self.phrase.at = Some(self.phrase.text.len());
                self.phrase.gap = false;
                tail
            }
            b'[' if self.phrase.at.is_some() => {
                // RFC 5322 §3.4.1 domain-literal
                let close = memchr::memchr(b']', rest).map_or(rest.len(), |at| at + 1);
                self.phrase.word(&rest[..close]);
                &rest[close..]
            }
            _ => {
                let length = rest.iter().position(|b| is_delimiter(*b)).unwrap_or(rest.len()).max(1);
                self.phrase.word(&rest[..length]);
                &rest[length..]
            }
        }
    }

    fn start_group(&mut self) {
        let phrase = std::mem::take(&mut self.phrase);
        self.out.push(HeaderAddress { name: None, mailbox: Some(phrase.text), host: None });
        self.in_group = true;
    }

    fn end_group(&mut self) {
        if std::mem::take(&mut self.in_group) {
            self.out.push(HeaderAddress::default());
        }
    }

    fn end_mailbox(&mut self) {
        self.out.extend(std::mem::take(&mut self.phrase).into_address());
    }
}

impl Phrase {
    fn word(&mut self, text: &[u8]) {
        // In an addr-spec white space means nothing (RFC 5322 §4.4); between words of a name it is one space.
        if self.gap && self.at.is_none() && !self.text.is_empty() {
            self.text.push(b' ');
        }
        self.gap = false;
        self.text.extend_from_slice(text);
    }

    /// What stands in angle brackets. A second pair for one mailbox is an error that the first one survives.
    fn take_angle(&mut self, inner: &[u8]) {
        if self.angle.is_some() {
            return;
        }
        // RFC 5322 §4.4: a route before the address, `@a,@b:c@d`, is to be ignored.
        let inner = inner.trim_ascii_start();
        let routed = inner.starts_with(b"@").then(|| memchr::memchr(b':', inner)).flatten();
        let spec = routed.map_or(inner, |colon| &inner[colon + 1..]);
        let mut phrase = Phrase::default();
        let mut list = List { out: Vec::new(), phrase: Phrase::default(), in_group: true };
        let mut rest = spec;
        while let Some(&byte) = rest.first() {
            // Commas and the like have no meaning here; `in_group` keeps a colon from starting a group.
            rest = match byte {
                b',' | b';' | b'<' => &rest[1..],
                _ => list.step(byte, rest),
            };
        }
        std::mem::swap(&mut phrase, &mut list.phrase);
        let name = (!self.text.is_empty()).then(|| std::mem::take(&mut self.text));
        let mut address = phrase.into_address().unwrap_or_default();
        // `<>` and the like: an empty mailbox, since nothing at all would read as the end of a group.
        address.mailbox.get_or_insert_default();
        address.host.get_or_insert_default();
        address.name = name;
        self.at = None;
        self.angle = Some(address);
    }

    fn into_address(self) -> Option<HeaderAddress> {
        if let Some(mut address) = self.angle {
            if address.name.is_none() {
                address.name = self.comment.filter(|comment| !comment.is_empty());
            }
            return Some(address);
        }
        if self.text.is_empty() && self.at.is_none() {
            return None;
        }
        // A mailbox without a domain gets an empty host: NIL would make it a group (RFC 9051 §7.5.2).
        let at = self.at.unwrap_or(self.text.len());
        let (mailbox, host) = self.text.split_at(at);
        let name = self.comment.filter(|comment| !comment.is_empty());
        // White space in an addr-spec was collected as the one space of a name before the @ was seen.
        let mailbox = if self.at.is_some() { squeeze(mailbox) } else { mailbox.to_vec() };
        Some(HeaderAddress { name, mailbox: Some(mailbox), host: Some(host.to_vec()) })
    }
}

/// `a . b` to `a.b`: RFC 5322 §4.4 allows white space around the dots of a local part.
fn squeeze(local: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(local.len());
    for (i, byte) in local.iter().enumerate() {
        let beside_dot = out.last() == Some(&b'.') || local.get(i + 1) == Some(&b'.');
        if *byte != b' ' || !beside_dot {
            out.push(*byte);
        }
    }
    out
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b'"' | b'<' | b',' | b';' | b':' | b'@' | b'[')
}

/// The text of a comment without its own brackets, and what follows it (RFC 5322 §3.2.2: comments nest).
fn comment(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut depth = 0_usize;
    let mut bytes = rest.iter().enumerate();
    while let Some((i, &byte)) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next().map(|(_, b)| *b)),
            b'(' => {
                if depth > 0 {
                    out.push(byte);
                }
                depth += 1;
            }
            b')' if depth == 1 => return (out.trim_ascii().to_vec(), &rest[i + 1..]),
            b')' => {
                depth -= 1;
                out.push(byte);
            }
            _ => out.push(byte),
        }
    }
    (out, &[])
}

/// The content of a quoted string and what follows it (RFC 5322 §3.2.4).
fn quoted(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut bytes = rest.iter().enumerate().skip(1);
    while let Some((i, &byte)) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next().map(|(_, b)| *b)),
            b'"' => return (out, &rest[i + 1..]),
            _ => out.push(byte),
        }
    }
    (out, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(part: Option<&Vec<u8>>) -> String {
        part.map_or("-".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
    }

    fn check(value: &str, expect: &[&str]) {
        let found: Vec<_> = parse_addresses(value.as_bytes(), 1000)
            .iter()
            .map(|a| format!("{}|{}|{}", show(a.name.as_ref()), show(a.mailbox.as_ref()), show(a.host.as_ref())))
            .collect();
        assert_eq!(found, expect, "{value:?}");
    }

    #[test]
    fn rfc5322_3_4_mailboxes() {
        check("a@b.org", &["-|a|b.org"]);
        check("Joe Q. Public <john.q.public@example.com>", &["Joe Q. Public|john.q.public|example.com"]);
        check("\"Joe, Q.\" <a@b>, c@d", &["Joe, Q.|a|b", "-|c|d"]);
        check("<boss@nil.test>", &["-|boss|nil.test"]);
        check("a@[192.0.2.1]", &["-|a|[192.0.2.1]"]);
        check("\"a b\"@c.org", &["-|a b|c.org"]);
        check("=?utf-8?Q?J=C3=BCrgen?= <j@x>", &["=?utf-8?Q?J=C3=BCrgen?=|j|x"]);
    }

    #[test]
    fn rfc5322_3_4_groups() {
        check(
            "A Group:Ed Jones <joe@where.test>,joe@b;",
            &["-|A Group|-", "Ed Jones|joe|where.test", "-|joe|b", "-|-|-"],
        );
        check("Undisclosed recipients:;", &["-|Undisclosed recipients|-", "-|-|-"]);
        check("g:a@b", &["-|g|-", "-|a|b", "-|-|-"]);
        check("a@b, g: c@d;, e@f", &["-|a|b", "-|g|-", "-|c|d", "-|-|-", "-|e|f"]);
    }

    #[test]
    fn rfc5322_4_4_obsolete_forms() {
        check("a . b @ c . d", &["-|a.b|c.d"]);
        check("a@b (Full (old) Name)", &["Full (old) Name|a|b"]);
        check("Pete <@x.org,@y.org:pete@z.org>", &["Pete|pete|z.org"]);
        check(",, a@b,,", &["-|a|b"]);
    }

    #[test]
    fn what_is_no_address_is_still_shown() {
        check("postmaster", &["-|postmaster|"]);
        check("<>", &["-||"]);
        check("[List] x <a@b>", &["[List] x|a|b"]);
        check("\"never ends <a@b>", &["-|never ends <a@b>|"]);
        check("a <b@c", &["a|b|c"]);
    }

    #[test]
    fn lists_are_bounded_and_linear() {
        assert_eq!(parse_addresses("a@b,".repeat(5000).as_bytes(), 1000).len(), 1000);
        assert_eq!(parse_addresses(&b"<".repeat(300_000), 1000).len(), 1);
        assert_eq!(parse_addresses(&b"(".repeat(300_000), 1000).len(), 0);
        assert_eq!(parse_addresses(&b"\"".repeat(300_000), 1000).len(), 0);
    }
}
