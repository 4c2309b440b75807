//! ENVELOPE (RFC 3501 §7.4.2).

use posthouse_mail::structure::{EnvelopeStructure, HeaderAddress};

use super::text::put_nstring;

pub fn put_envelope(out: &mut Vec<u8>, envelope: &EnvelopeStructure) {
    // RFC 3501 §7.4.2: an absent Sender or Reply-To reads as From.
    let or_from = |list| if Vec::is_empty(list) { &envelope.from } else { list };
    out.push(b'(');
    put_nstring(out, envelope.date.as_deref());
    out.push(b' ');
    put_nstring(out, envelope.subject.as_deref());
    let lists = [
        &envelope.from,
        or_from(&envelope.sender),
        or_from(&envelope.reply_to),
        &envelope.to,
        &envelope.cc,
        &envelope.bcc,
    ];
    for list in lists {
        out.push(b' ');
        put_addresses(out, list);
    }
    out.push(b' ');
    put_nstring(out, envelope.in_reply_to.as_deref());
    out.push(b' ');
    put_nstring(out, envelope.message_id.as_deref());
    out.push(b')');
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[HeaderAddress]) {
    if addresses.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in addresses {
        out.push(b'(');
        put_nstring(out, address.name.as_deref());
        // RFC 5322 §4.4: source routes are not generated; they are not kept either.
        out.extend_from_slice(b" NIL ");
        put_nstring(out, address.mailbox.as_deref());
        out.push(b' ');
        put_nstring(out, address.host.as_deref());
        out.push(b')');
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_sender_reads_as_from() {
        let alice = HeaderAddress {
            name: Some(b"Alice".to_vec()),
            mailbox: Some(b"alice".to_vec()),
            host: Some(b"demo.test".to_vec()),
        };
        let envelope = EnvelopeStructure { subject: Some(b"Hi".to_vec()), from: vec![alice], ..Default::default() };
        let mut out = Vec::new();
        put_envelope(&mut out, &envelope);
        let from = "((\"Alice\" NIL \"alice\" \"demo.test\"))";
        let expect = format!("(NIL \"Hi\" {from} {from} {from} NIL NIL NIL NIL NIL)");
        assert_eq!(String::from_utf8(out).expect("ASCII"), expect);
    }
}
