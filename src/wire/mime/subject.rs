//! The base subject (RFC 5256 §2.1): a subject without `Re:`, `Fwd:`, list tags and their kin.
//!
//! Apart because threading and SORT must cut subjects in one way, step by step as the RFC numbers them.

use super::encoded_word::decode_words;

/// The base subject of an unfolded value, in the case it was written in (i;unicode-casemap is for the comparison).
pub fn base_subject(value: &[u8]) -> String {
    let value = &value[..value.len().min(SUBJECT_MAX)];
    // (1) Decode; white space of any length is one space.
    let decoded = decode_words(value);
    let spaced = decoded.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = spaced.as_str();
    loop {
        rest = strip_trailers(rest);
        rest = strip_leaders(rest);
        // (6) `[fwd: subject]` around everything: unwrap and begin again.
        match strip_forward_brackets(rest) {
            Some(inner) => rest = inner,
            None => return rest.to_owned(),
        }
    }
}

/// (2) `subj-trailer`: white space and `(fwd)` at the end.
fn strip_trailers(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_end();
        match strip_suffix_caseless(rest, "(fwd)") {
            Some(shorter) => rest = shorter,
            None => return rest,
        }
    }
}

/// (3) to (5): `subj-leader`, and a `subj-blob` that is not all there is.
fn strip_leaders(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        if let Some(shorter) = strip_refwd(rest) {
            rest = shorter;
            continue;
        }
        match strip_blob(rest).filter(|shorter| !shorter.is_empty()) {
            Some(shorter) => rest = shorter,
            None => return rest,
        }
    }
}

/// `subj-refwd`, with the blobs that may stand before it: `[list] Re[2]:`.
fn strip_refwd(rest: &str) -> Option<&str> {
    let mut rest = rest;
    while let Some(shorter) = strip_blob(rest) {
        rest = shorter;
    }
    let rest = ["re", "fwd", "fw"].iter().find_map(|word| strip_prefix_caseless(rest, word))?;
    let rest = rest.trim_start();
    strip_blob(rest).unwrap_or(rest).strip_prefix(':')
}

/// `subj-blob`: `[` anything but brackets `]` and white space.
fn strip_blob(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    Some(inner[end..].strip_prefix(']')?.trim_start())
}

fn strip_forward_brackets(rest: &str) -> Option<&str> {
    strip_prefix_caseless(rest, "[fwd:")?.strip_suffix(']')
}

fn strip_prefix_caseless<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn strip_suffix_caseless<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let tail = text.get(at..)?;
    tail.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}

/// Octets of a Subject field that are looked at.
const SUBJECT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subject: &str, expect: &str) {
        assert_eq!(base_subject(subject.as_bytes()), expect, "{subject:?}");
    }

    #[test]
    fn rfc5256_2_1_leaders_and_trailers_go() {
        check("Re: hello", "hello");
        check("RE: Fwd: FW:  hello  world (fwd) (FWD)", "hello world");
        check("re [2]: hello", "hello");
        check("[list] Re: [list] hello", "hello");
        check("[a][b] re: hello", "hello");
        check("[only]", "[only]");
        check("[tag] hello", "hello");
        check("[Fwd: Re: hello]", "hello");
        check("[fwd: [fwd: hello]]", "hello");
        check("=?utf-8?Q?Re:_caf=C3=A9?=", "café");
        check("reason: why", "reason: why");
        check("Re:", "");
        check("", "");
    }

    #[test]
    fn long_subjects_cost_their_length() {
        base_subject("[fwd:".repeat(100_000).as_bytes());
        base_subject("[a]".repeat(100_000).as_bytes());
        base_subject("re:".repeat(100_000).as_bytes());
    }
}
