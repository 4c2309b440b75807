//! Flag lists as answers print them, `\Recent` included.
//!
//! Apart from `posthouse_mail::flag` because `\Recent` belongs to the session that saw a message first, never to a message.

use posthouse_mail::{Flag, FlagSet};

/// System flags in the order of RFC 3501 §2.3.2.
pub const SYSTEM: [Flag; 5] = [Flag::Answered, Flag::Flagged, Flag::Deleted, Flag::Seen, Flag::Draft];

/// `(\Seen $Forwarded)`.
pub fn put_flags<'a>(out: &mut Vec<u8>, flags: impl IntoIterator<Item = &'a Flag>, recent: bool) {
    put_words(out, flags.into_iter().map(Flag::as_str).chain(recent.then_some("\\Recent")));
}

/// PERMANENTFLAGS: every flag in use, and `\*` when new keywords may be made (RFC 3501 §7.1).
pub fn put_permanent_flags(out: &mut Vec<u8>, keywords: &FlagSet, read_only: bool) {
    if read_only {
        out.extend_from_slice(b"()");
        return;
    }
    let keywords = keywords.iter().filter(|flag| matches!(flag, Flag::Keyword(_)));
    put_words(out, SYSTEM.iter().chain(keywords).map(Flag::as_str).chain(["\\*"]));
}

fn put_words<'a>(out: &mut Vec<u8>, words: impl Iterator<Item = &'a str>) {
    out.push(b'(');
    for (i, word) in words.enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word.as_bytes());
    }
    out.push(b')');
}
