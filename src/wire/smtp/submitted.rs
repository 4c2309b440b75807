//! The header of a submitted message: what it says of its authors, and what it lacks (RFC 6409 §8).
//!
//! Apart from the data receiver because only mail of our own users is ever changed; mail that passes through keeps every
//! octet.

use posthouse_mail::structure::HeaderAddress;
use posthouse_mail::{Address, Reply};
use thiserror::Error;

use crate::mime::{Field, fields, parse_addresses};

/// Authors of one message that are looked at.
const AUTHORS_MAX: usize = 100;

/// Collects the header of a message as its data streams by.
#[derive(Debug, Default)]
pub struct HeaderCollector {
    octets: Vec<u8>,
    /// How far the blank line was looked for.
    searched: usize,
}

impl HeaderCollector {
    /// Takes the next octets. Gives the header, its blank line included, and what of the body came with it. The caller
    /// bounds the header with `DataLimits::header_max`.
    pub fn push(&mut self, chunk: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        self.octets.extend_from_slice(chunk);
        let end = self.end()?;
        let body = self.octets.split_off(end);
        Some((std::mem::take(&mut self.octets), body))
    }

    /// The data ended: all that came was header.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }

    /// Behind the blank line.
    fn end(&mut self) -> Option<usize> {
        if self.octets.starts_with(b"\r\n") {
            return Some(2);
        }
        // The blank line may have begun in the chunk before.
        let from = self.searched.saturating_sub(3);
        self.searched = self.octets.len();
        memchr::memmem::find(&self.octets[from..], b"\r\n\r\n").map(|at| from + at + 4)
    }
}

/// Why a header can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    #[error("the message has more than one {0} field")]
    Repeated(&'static str),
    #[error("the {0} field names no address")]
    NoAddress(&'static str),
}

impl HeaderFault {
    /// RFC 6409 §6.2: a message that is not well-formed may be refused.
    pub fn reply(self) -> Reply {
        Reply::new(554, (5, 6, 0), self.to_string())
    }
}

/// A header that has been looked through.
#[derive(Debug, Clone)]
pub struct SubmittedHeader {
    kept: Vec<u8>,
    authors: Vec<Address>,
    sender: Option<Address>,
    has_date: bool,
    has_msg_id: bool,
}

impl SubmittedHeader {
    /// Looks through a header; the blank line may be missing.
    pub fn read(header: &[u8]) -> Result<Self, HeaderFault> {
        let mut read = Self { kept: Vec::new(), authors: Vec::new(), sender: None, has_date: false, has_msg_id: false };
        let mut from_seen = false;
        let mut fields_end = 0;
        for field in fields(header) {
            if field.name.is_empty() {
                // What is no field begins the body of a message whose sender forgot the blank line.
                break;
            }
            fields_end = field.range.end;
            if field.is("From") {
                read.authors = (!std::mem::replace(&mut from_seen, true))
                    .then(|| addresses(&field, "From"))
                    .ok_or(HeaderFault::Repeated("From"))??;
            } else if field.is("Sender") {
                let sender = read.sender.is_none().then(|| addresses(&field, "Sender"));
                read.sender = sender.ok_or(HeaderFault::Repeated("Sender"))??.into_iter().next();
            }
            read.has_date |= field.is("Date");
            read.has_msg_id |= field.is("Message-ID");
            // RFC 5322 §3.6.3: blind copies stay blind. RFC 5321 §4.4: Return-Path is for final delivery alone.
            if !field.is("Bcc") && !field.is("Resent-Bcc") && !field.is("Return-Path") {
                read.keep(&header[field.range.clone()]);
            }
        }
        let rest = &header[fields_end..];
        if !rest.starts_with(b"\r\n") {
            read.kept.extend_from_slice(b"\r\n");
        }
        read.kept.extend_from_slice(rest);
        Ok(read)
    }

    fn keep(&mut self, field: &[u8]) {
        self.kept.extend_from_slice(field);
        if !field.ends_with(b"\n") {
            self.kept.extend_from_slice(b"\r\n");
        }
    }

    /// The addresses in From; empty when there is no From.
    pub fn authors(&self) -> &[Address] {
        &self.authors
    }

    /// The address in Sender.
    pub fn sender(&self) -> Option<&Address> {
        self.sender.as_ref()
    }

    /// The header as it is sent, with what was missing (RFC 6409 §8.2, §8.3) and with its blank line.
    pub fn complete(self, author: &Address, date: &str, msg_id: &str) -> Vec<u8> {
        let mut added = String::new();
        if self.authors.is_empty() {
            // RFC 5322 §3.6: From must be there; the envelope says whose it is.
            added.push_str(&format!("From: <{author}>\r\n"));
        }
        if !self.has_date {
            added.push_str(&format!("Date: {date}\r\n"));
        }
        if !self.has_msg_id {
            added.push_str(&format!("Message-ID: <{msg_id}>\r\n"));
        }
        let mut out = added.into_bytes();
        out.extend_from_slice(&self.kept);
        out
    }
}

fn addresses(field: &Field<'_>, name: &'static str) -> Result<Vec<Address>, HeaderFault> {
    let entries = parse_addresses(&field.value(), AUTHORS_MAX);
    // An entry that can't be read as an address must not hide one that is shown to people.
    let read: Option<Vec<_>> = entries.iter().filter(|entry| entry.host.is_some()).map(address).collect();
    read.filter(|addresses| !addresses.is_empty()).ok_or(HeaderFault::NoAddress(name))
}

fn address(entry: &HeaderAddress) -> Option<Address> {
    let local = std::str::from_utf8(entry.mailbox.as_deref()?).ok()?;
    let domain = std::str::from_utf8(entry.host.as_deref()?).ok()?;
    Address::parse(&format!("{local}@{domain}")).ok().or_else(|| {
        let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
        Address::parse(&format!("\"{quoted}\"@{domain}")).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(header: &str) -> String {
        let author = Address::parse("alice@x.org").expect("an address");
        let read = SubmittedHeader::read(header.as_bytes()).expect("a header");
        String::from_utf8(read.complete(&author, "DATE", "ID@x.org")).expect("ASCII")
    }

    #[test]
    fn rfc6409_8_date_and_msg_id_are_added_where_they_miss() {
        let whole = "Date: now\r\nFrom: a@x.org\r\nMessage-ID: <1@x>\r\nSubject: hi\r\n\r\n";
        assert_eq!(completed(whole), whole);
        assert_eq!(completed("From: a@x.org\r\n\r\n"), "Date: DATE\r\nMessage-ID: <ID@x.org>\r\nFrom: a@x.org\r\n\r\n");
        assert_eq!(
            completed("Subject: hi\r\n\r\n"),
            "From: <alice@x.org>\r\nDate: DATE\r\nMessage-ID: <ID@x.org>\r\nSubject: hi\r\n\r\n"
        );
    }

    #[test]
    fn blind_copies_are_taken_out_with_their_folded_lines() {
        let header = "Date: d\r\nFrom: a@x.org\r\nBcc: b@x.org,\r\n c@x.org\r\nMessage-ID: <1@x>\r\nbcc: d@x.org\r\nReturn-Path: <a@x.org>\r\n\r\n";
        assert_eq!(completed(header), "Date: d\r\nFrom: a@x.org\r\nMessage-ID: <1@x>\r\n\r\n");
    }

    #[test]
    fn a_message_without_header_or_blank_line_gets_both() {
        assert_eq!(
            completed("Date: d\r\nFrom: a@x.org\r\nMessage-ID: <1@x>\r\n"),
            "Date: d\r\nFrom: a@x.org\r\nMessage-ID: <1@x>\r\n\r\n"
        );
        let added = "From: <alice@x.org>\r\nDate: DATE\r\nMessage-ID: <ID@x.org>\r\n\r\n";
        assert_eq!(completed("hello you\r\n"), format!("{added}hello you\r\n"));
        assert_eq!(completed("\r\n"), added);
        assert_eq!(completed(""), added);
    }

    #[test]
    fn rfc5322_3_6_2_one_from_with_real_addresses() {
        let check = |header: &str, expect: Result<&[&str], HeaderFault>| {
            let read = SubmittedHeader::read(header.as_bytes());
            let shown = read.map(|read| read.authors().iter().map(Address::to_string).collect::<Vec<_>>());
            assert_eq!(shown, expect.map(|list| list.iter().map(|a| (*a).to_owned()).collect()), "{header:?}");
        };
        check("From: Alice <alice@X.org>, \"b c\"@x.org\r\n", Ok(&["alice@x.org", "\"b c\"@x.org"]));
        check("Subject: hi\r\n", Ok(&[]));
        check("From: a@x.org\r\nFrom: b@x.org\r\n", Err(HeaderFault::Repeated("From")));
        check("From: \r\n", Err(HeaderFault::NoAddress("From")));
        check("From: Alice\r\n", Err(HeaderFault::NoAddress("From")));
        check("From: a@x.org, b@x..org\r\n", Err(HeaderFault::NoAddress("From")));
        check("From: a@x.org\r\nSender: a@x.org\r\nSender: b@x.org\r\n", Err(HeaderFault::Repeated("Sender")));
    }

    #[test]
    fn the_header_ends_at_its_blank_line_however_it_is_cut() {
        let input = b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore";
        for step in 1..=input.len() {
            let mut collector = HeaderCollector::default();
            let mut chunks = input.chunks(step);
            let (header, mut body) = chunks.find_map(|chunk| collector.push(chunk)).expect("a blank line");
            chunks.for_each(|chunk| body.extend_from_slice(chunk));
            assert_eq!(header, b"A: 1\r\nB: 2\r\n\r\n", "in steps of {step}");
            assert_eq!(body, b"body\r\n\r\nmore", "in steps of {step}");
        }
        let mut collector = HeaderCollector::default();
        assert_eq!(collector.push(b"\r\nbody"), Some((b"\r\n".to_vec(), b"body".to_vec())));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_headers_never_panic(header in proptest::collection::vec(proptest::sample::select(b"From: a@x,<>\"\r\n Bcc".to_vec()), 0..80)) {
            let _ = SubmittedHeader::read(&header);
        }
    }
}
