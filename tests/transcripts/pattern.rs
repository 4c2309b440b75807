//! Patterns of expected lines and escapes of sent ones.

use std::collections::BTreeMap;

/// What earlier lines captured, and what the runner set.
pub type Captures = BTreeMap<String, String>;

/// A piece of a pattern.
enum Piece<'a> {
    Literal(&'a str),
    Anything,
    Name(&'a str),
}

/// Whether the whole line fits; new captures are kept when it does.
pub fn fits(pattern: &str, line: &str, captures: &mut Captures) -> bool {
    let mut found = captures.clone();
    let fits = matches(&pieces(pattern), line, &mut found);
    if fits {
        *captures = found;
    }
    fits
}

fn matches(pieces: &[Piece<'_>], line: &str, captures: &mut Captures) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return line.is_empty();
    };
    match first {
        Piece::Literal(text) => line.strip_prefix(text).is_some_and(|after| matches(rest, after, captures)),
        Piece::Name(name) if captures.contains_key(*name) => {
            let known = captures[*name].clone();
            line.strip_prefix(&known).is_some_and(|after| matches(rest, after, captures))
        }
        Piece::Anything | Piece::Name(_) => {
            let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
            for end in ends {
                let before = captures.clone();
                if let Piece::Name(name) = first {
                    captures.insert((*name).to_owned(), line[..end].to_owned());
                }
                if matches(rest, &line[end..], captures) {
                    return true;
                }
                *captures = before;
            }
            false
        }
    }
}

/// `{..}` and `{name}`; other braces are themselves, so that IMAP literals `{12}` need no escape.
fn pieces(pattern: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    let mut literal = 0;
    while let Some(open) = rest[literal..].find('{').map(|at| literal + at) {
        let inner = rest[open + 1..].split('}').next().unwrap_or_default();
        let is_closed = rest[open + 1 + inner.len()..].starts_with('}');
        let is_name = inner.starts_with(|c: char| c.is_ascii_lowercase())
            && inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_closed && (is_name || inner == "..") {
            pieces.push(Piece::Literal(&rest[..open]));
            pieces.push(if is_name { Piece::Name(inner) } else { Piece::Anything });
            rest = &rest[open + inner.len() + 2..];
            literal = 0;
        } else {
            literal = open + 1;
        }
    }
    pieces.push(Piece::Literal(rest));
    pieces
}

/// A sent text with `{name}` replaced by what was captured.
pub fn fill(text: &str, captures: &Captures) -> String {
    captures.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// A sent text with `\r \n \0 \\ \xNN` and `{1000*x}` as octets.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(escape) = rest.strip_prefix('\\') {
            let (octet, length) = escaped(escape).ok_or_else(|| format!("no such escape: \\{escape}"))?;
            octets.push(octet);
            rest = &escape[length..];
        } else if let Some((count, what, after)) = repetition(rest) {
            octets.extend(unescape(what)?.repeat(count));
            rest = after;
        } else {
            octets.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(octets)
}

fn escaped(escape: &str) -> Option<(u8, usize)> {
    match escape.as_bytes().first()? {
        b'r' => Some((b'\r', 1)),
        b'n' => Some((b'\n', 1)),
        b't' => Some((b'\t', 1)),
        b'0' => Some((0, 1)),
        b'\\' => Some((b'\\', 1)),
        b'x' => u8::from_str_radix(escape.get(1..3)?, 16).ok().map(|octet| (octet, 3)),
        _ => None,
    }
}

fn repetition(text: &str) -> Option<(usize, &str, &str)> {
    let (count, rest) = text.strip_prefix('{')?.split_once('*')?;
    let (what, after) = rest.split_once('}')?;
    Some((count.parse().ok()?, what, after))
}

#[test]
fn patterns_capture_and_compare() {
    let mut captures = Captures::new();
    assert!(fits("* OK [UIDNEXT {next}] {..}", "* OK [UIDNEXT 7] next", &mut captures));
    assert_eq!(captures["next"], "7");
    assert!(fits("a {next}", "a 7", &mut captures));
    assert!(!fits("a {next}", "a 8", &mut captures));
    assert!(fits("* 1 FETCH (BODY[] {12}", "* 1 FETCH (BODY[] {12}", &mut captures));
    assert!(!fits("250 ok", "250 ok then", &mut captures));
}

#[test]
fn escapes_and_repetitions_are_octets() {
    assert_eq!(unescape("a\\r\\n\\x00{3*b}{2}").expect("valid"), b"a\r\n\0bbb{2}");
    assert!(unescape("\\q").is_err());
}
