//! Modified UTF-7, the form of mailbox names on the wire (RFC 3501 §5.1.3).
//!
//! Apart from the names so that the round trip can be tested by itself. Decoding is strict: an encoding that another one of
//! the same text would beat is refused, otherwise two spellings would name one mailbox.

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

/// Base 64 with `,` for `/` and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);

/// Writes a name as modified UTF-7.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut run: Vec<u8> = Vec::new();
    for c in name.chars() {
        if is_plain(c) {
            close_run(&mut out, &mut run);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            run.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    close_run(&mut out, &mut run);
    out
}

fn close_run(out: &mut String, run: &mut Vec<u8>) {
    if !run.is_empty() {
        out.push('&');
        out.push_str(&BASE64.encode(&run));
        out.push('-');
        run.clear();
    }
}

/// Reads modified UTF-7; `None` where the text is not the one encoding of anything.
pub fn decode(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_run = false;
    while let Some(c) = rest.chars().next() {
        if !is_plain(c) {
            return None;
        }
        rest = &rest[1..];
        if c != '&' {
            out.push(c);
            after_run = false;
            continue;
        }
        let (run, after) = rest.split_once('-')?;
        rest = after;
        if run.is_empty() {
            out.push('&');
            after_run = false;
        } else if after_run {
            // RFC 3501 §5.1.3: no null shift (`-&`): the two runs must be one.
            return None;
        } else {
            decode_run(run, &mut out)?;
            after_run = true;
        }
    }
    Some(out)
}

fn decode_run(run: &str, out: &mut String) -> Option<()> {
    let bytes = BASE64.decode(run).ok()?;
    if bytes.len() % 2 != 0 {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    for c in char::decode_utf16(units) {
        let c = c.ok()?;
        // RFC 3501 §5.1.3: printable US-ASCII is never encoded.
        if is_plain(c) {
            return None;
        }
        out.push(c);
    }
    Some(())
}

fn is_plain(c: char) -> bool {
    (' '..='~').contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_one_encoding() {
        for (name, wire) in [
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("AT&T", "AT&-T"),
            ("台北/日本語", "&U,BTFw-/&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire).as_deref(), Some(name));
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        for wire in ["AT&T", "&", "&AGE-", "&APw", "&APw-&APw-", "ü", "&2D0-", "&AA-", "&AP=-", "a\0b", "&APx-"] {
            assert_eq!(decode(wire), None, "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_the_round_trip(name in any::<String>()) {
            prop_assert_eq!(decode(&encode(&name)), Some(name));
        }

        #[test]
        fn what_decodes_encodes_to_the_same(wire in "[ -~]{0,40}") {
            if let Some(name) = decode(&wire) {
                prop_assert_eq!(encode(&name), wire);
            }
        }
    }
}
