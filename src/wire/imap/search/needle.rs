//! Looks for the strings of SEARCH BODY and TEXT in text that streams by, in bounded memory.
//!
//! Apart from the program so that a message is read once for all its strings, piece by piece.

use memchr::memmem::Finder;

/// Where a string may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// SEARCH BODY: not in the header.
    Body,
    /// SEARCH TEXT.
    Everything,
}

/// One string, folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    scope: Scope,
    text: String,
}

impl Needle {
    pub fn new(scope: Scope, text: &str) -> Self {
        Self { scope, text: fold(text) }
    }
}

/// RFC 3501 §6.4.4: strings match without case.
pub fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(char::to_lowercase).collect() }
}

/// Whether the text contains the string, without case.
pub fn contains(text: &str, string: &str) -> bool {
    fold(text).contains(&fold(string))
}

/// One reading of one message.
#[derive(Debug)]
pub struct NeedleSearch<'p> {
    needles: Vec<(&'p Needle, Finder<'p>)>,
    found: Vec<bool>,
    /// The end of the last piece: a string may go on in the next one.
    carry: String,
    carry_max: usize,
}

impl<'p> NeedleSearch<'p> {
    pub fn new(needles: &'p [Needle]) -> Self {
        Self {
            found: needles.iter().map(|needle| needle.text.is_empty()).collect(),
            carry: String::new(),
            carry_max: needles.iter().map(|needle| needle.text.len()).max().unwrap_or(0),
            needles: needles.iter().map(|needle| (needle, Finder::new(needle.text.as_bytes()))).collect(),
        }
    }

    /// Reads the next piece of the header or of a body.
    pub fn feed(&mut self, in_header: bool, piece: &str) {
        let text = std::mem::take(&mut self.carry) + &fold(piece);
        for ((needle, finder), found) in self.needles.iter().zip(&mut self.found) {
            let applies = needle.scope == Scope::Everything || !in_header;
            *found = *found || (applies && finder.find(text.as_bytes()).is_some());
        }
        let mut cut = text.len().saturating_sub(self.carry_max);
        while !text.is_char_boundary(cut) {
            cut += 1;
        }
        self.carry = text[cut..].to_owned();
    }

    /// A part ends: nothing goes on behind it.
    pub fn end_part(&mut self) {
        self.carry.clear();
    }

    /// Nothing is left to look for.
    pub fn is_settled(&self) -> bool {
        self.found.iter().all(|found| *found)
    }

    /// By the program's numbers.
    pub fn found(self) -> Vec<bool> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[(bool, &str)], needles: &[Needle]) -> Vec<bool> {
        let mut search = NeedleSearch::new(needles);
        pieces.iter().for_each(|(in_header, piece)| search.feed(*in_header, piece));
        search.found()
    }

    #[test]
    fn a_string_is_found_across_pieces_and_without_case() {
        let needles =
            [Needle::new(Scope::Body, "GRÜẞE"), Needle::new(Scope::Body, "nie"), Needle::new(Scope::Body, "")];
        assert_eq!(found(&[(false, "viele gr"), (false, "ü"), (false, "ße!")], &needles), [true, false, true]);
    }

    #[test]
    fn body_strings_do_not_match_in_the_header() {
        let needles = [Needle::new(Scope::Body, "x-spam"), Needle::new(Scope::Everything, "x-spam")];
        assert_eq!(found(&[(true, "X-Spam: yes"), (false, "hello")], &needles), [false, true]);
    }

    #[test]
    fn a_string_does_not_join_two_parts() {
        let needles = [Needle::new(Scope::Body, "ab")];
        let mut search = NeedleSearch::new(&needles);
        search.feed(false, "a");
        search.end_part();
        search.feed(false, "b");
        assert!(!search.is_settled());
    }
}
