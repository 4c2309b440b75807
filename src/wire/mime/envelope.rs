//! The fields that ENVELOPE shows (RFC 9051 §7.5.2), and what threading and SENTSINCE need from a header.
//!
//! Apart from the structure scanner so that they can be had from a header alone.

use posthouse_mail::structure::{EnvelopeStructure, HeaderAddress};

use super::address::parse_addresses;
use super::date::parse_date;
use super::fields::{Field, fields, find};
use super::msg_id::msg_ids;

/// Reads the ENVELOPE from a raw header, keeping about `octets_max` at most; `true` says that something was left out.
///
/// RFC 9051 §7.5.2: without Sender or Reply-To the author stands there.
pub fn envelope(header: &[u8], octets_max: usize) -> (EnvelopeStructure, bool) {
    let mut reading = Reading { envelope: EnvelopeStructure::default(), left: octets_max, cut: false };
    for field in fields(header) {
        reading.take(&field);
    }
    let mut envelope = reading.envelope;
    if envelope.sender.is_empty() {
        envelope.sender.clone_from(&envelope.from);
    }
    if envelope.reply_to.is_empty() {
        envelope.reply_to.clone_from(&envelope.from);
    }
    (envelope, reading.cut)
}

/// The Date field as Unix seconds.
pub fn sent_at(header: &[u8]) -> Option<i64> {
    parse_date(&find(header, "Date")?.value())
}

/// The identifiers that join a thread: of Message-ID, In-Reply-To and References, without repeats.
pub fn thread_ids(header: &[u8]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for name in ["Message-ID", "In-Reply-To", "References"] {
        let found = find(header, name).map(|field| msg_ids(&field.value())).unwrap_or_default();
        for id in found {
            if ids.len() < THREAD_IDS_MAX && !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    ids
}

struct Reading {
    envelope: EnvelopeStructure,
    left: usize,
    cut: bool,
}

impl Reading {
    fn take(&mut self, field: &Field<'_>) {
        let name = field.name.to_ascii_lowercase();
        match name.as_slice() {
            b"from" => self.addresses(field, |envelope| &mut envelope.from),
            b"sender" => self.addresses(field, |envelope| &mut envelope.sender),
            b"reply-to" => self.addresses(field, |envelope| &mut envelope.reply_to),
            b"to" => self.addresses(field, |envelope| &mut envelope.to),
            b"cc" => self.addresses(field, |envelope| &mut envelope.cc),
            b"bcc" => self.addresses(field, |envelope| &mut envelope.bcc),
            b"date" => self.text(field, |envelope| &mut envelope.date),
            b"subject" => self.text(field, |envelope| &mut envelope.subject),
            b"in-reply-to" => self.text(field, |envelope| &mut envelope.in_reply_to),
            b"message-id" => self.text(field, |envelope| &mut envelope.message_id),
            _ => {}
        }
    }

    /// RFC 5322 §3.6: these occur once; the first one counts.
    fn text(&mut self, field: &Field<'_>, slot: fn(&mut EnvelopeStructure) -> &mut Option<Vec<u8>>) {
        let slot = slot(&mut self.envelope);
        if slot.is_some() {
            return;
        }
        let mut value = field.value();
        if value.len() > self.left {
            value.truncate(self.left);
            self.cut = true;
        }
        self.left -= value.len();
        *slot = Some(value);
    }

    /// RFC 5322 §4.5.3: obsolete messages may repeat them; all are shown.
    fn addresses(&mut self, field: &Field<'_>, slot: fn(&mut EnvelopeStructure) -> &mut Vec<HeaderAddress>) {
        let value = field.value();
        let found = parse_addresses(&value, ADDRESSES_MAX);
        let slot = slot(&mut self.envelope);
        let room = ADDRESSES_MAX.saturating_sub(slot.len());
        self.cut |= found.len() > room;
        for address in found.into_iter().take(room) {
            let cost = cost(&address);
            if cost > self.left {
                self.cut = true;
                return;
            }
            self.left -= cost;
            slot.push(address);
        }
    }
}

fn cost(address: &HeaderAddress) -> usize {
    let text = [&address.name, &address.mailbox, &address.host];
    ADDRESS_COST + text.iter().map(|part| part.as_ref().map_or(0, Vec::len)).sum::<usize>()
}

/// Identifiers that join one message to a thread: each becomes a row.
const THREAD_IDS_MAX: usize = 100;
/// Entries shown of one field.
const ADDRESSES_MAX: usize = 2000;
/// What an address costs beside its text: a group of nothing is not free.
const ADDRESS_COST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nFrom: A <a@b>\r\nTo: c@d,\r\n e@f\r\nTo: g@h\r\n\
        Subject: x\r\n y\r\nsubject: second\r\nMessage-ID: <1@x>\r\nReferences: <0@x> <1@x>\r\nIn-Reply-To: <0@x>\r\n\r\nFrom: body@x\r\n";

    #[test]
    fn rfc9051_7_5_2_envelope() {
        let (envelope, cut) = envelope(HEADER, 10_000);
        assert!(!cut);
        assert_eq!(envelope.subject.as_deref(), Some(b"x y".as_slice()));
        assert_eq!(envelope.from.len(), 1);
        assert_eq!(envelope.sender, envelope.from, "the author stands in for a missing Sender");
        assert_eq!(envelope.reply_to, envelope.from);
        assert_eq!(envelope.to.len(), 3);
        assert_eq!(envelope.message_id.as_deref(), Some(b"<1@x>".as_slice()));
        assert_eq!(envelope.cc, []);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let header = format!("To: {}\r\nSubject: {}\r\n", "a@b,".repeat(50_000), "x".repeat(50_000));
        let (envelope, cut) = envelope(header.as_bytes(), 20_000);
        assert!(cut);
        assert!(envelope.to.len() <= 2000);
        assert!(envelope.subject.expect("a subject").len() <= 20_000);
    }

    #[test]
    fn thread_ids_come_without_repeats() {
        assert_eq!(thread_ids(HEADER), ["1@x", "0@x"]);
        assert_eq!(sent_at(HEADER), Some(880_127_706));
    }
}
