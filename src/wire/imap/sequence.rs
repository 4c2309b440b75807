//! Sequence sets: `1:4,7,9:*`, of sequence numbers or Uids (RFC 3501 §9 `sequence-set`).
//!
//! A set as it was sent knows `*`; resolved against a mailbox it becomes a `RangeSet` of sorted, disjoint ranges, which is
//! also what COPYUID and APPENDUID print.

use std::fmt;
use std::ops::RangeInclusive;

use super::scan::{ParseError, Parsed, Scanner};

/// Ranges in one set; the line limit would allow about as many.
pub const RANGES_MAX: usize = 20_000;

/// What the numbers of a command count: sequence numbers, or Uids after the prefix UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    Sequence,
    Uid,
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Number(u32),
    /// `*`, the largest number in use.
    Last,
}

impl Bound {
    fn resolve(self, last: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Last => last,
        }
    }
}

/// A set as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSet(Vec<(Bound, Bound)>);

impl SequenceSet {
    pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Self> {
        let mut ranges = Vec::new();
        loop {
            if ranges.len() >= RANGES_MAX {
                return Err(ParseError::TooMany("ranges in a set"));
            }
            let first = parse_bound(scanner)?;
            let last = if scanner.eat(b':') { parse_bound(scanner)? } else { first };
            ranges.push((first, last));
            if !scanner.eat(b',') {
                return Ok(Self(ranges));
            }
        }
    }

    /// The numbers meant, where `last` is the largest in use; `None` for an empty mailbox, where `*` means nothing.
    pub fn resolve(&self, last: Option<u32>) -> RangeSet {
        let ranges = self.0.iter().filter_map(|&(a, b)| {
            let star = a == Bound::Last || b == Bound::Last;
            let last = match last {
                Some(last) => last,
                None if star => return None,
                None => 0,
            };
            // RFC 3501 §9 seq-range: the order of the two ends has no meaning.
            let (a, b) = (a.resolve(last), b.resolve(last));
            Some(a.min(b)..=a.max(b))
        });
        RangeSet::from_ranges(ranges)
    }

    /// Whether every number stands for a message, as RFC 3501 §9 seq-number wants of sequence numbers.
    pub fn fits(&self, exists: u32) -> bool {
        let within = |bound: Bound| match bound {
            Bound::Number(number) => number <= exists,
            Bound::Last => exists > 0,
        };
        self.0.iter().all(|&(a, b)| within(a) && within(b))
    }
}

fn parse_bound(scanner: &mut Scanner<'_>) -> Parsed<Bound> {
    if scanner.eat(b'*') {
        return Ok(Bound::Last);
    }
    match scanner.number()? {
        0 => Err(ParseError::Expected("a number above zero")),
        number => Ok(Bound::Number(number)),
    }
}

/// Sorted, disjoint, non-adjacent ranges of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<RangeInclusive<u32>>);

impl RangeSet {
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u32>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> Self {
        Self::from_ranges(numbers.into_iter().map(|number| number..=number))
    }

    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= number);
        after.checked_sub(1).is_some_and(|place| self.0[place].contains(&number))
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().cloned().flatten()
    }
}

impl fmt::Display for RangeSet {
    /// RFC 4315 §4 `uid-set`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (a, b) if a == b => write!(f, "{comma}{a}")?,
                (a, b) => write!(f, "{comma}{a}:{b}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, last: Option<u32>) -> Option<String> {
        let mut scanner = Scanner::new(text.as_bytes());
        let set = SequenceSet::parse(&mut scanner).ok()?;
        scanner.end().ok().map(|()| set.resolve(last).to_string())
    }

    #[test]
    fn sets_resolve_to_sorted_ranges() {
        for (input, last, expect) in [
            ("1", Some(9), Some("1")),
            ("4:1", Some(9), Some("1:4")),
            ("1:*", Some(9), Some("1:9")),
            ("*", Some(9), Some("9")),
            ("12:*", Some(9), Some("9:12")),
            ("*:3", Some(9), Some("3:9")),
            ("5,1,2,3,7:6", Some(9), Some("1:3,5:7")),
            ("*", None, Some("")),
            ("1:*,4", None, Some("4")),
            ("4294967295", Some(1), Some("4294967295")),
            ("1:4294967295,4294967295", Some(1), Some("1:4294967295")),
            ("0", Some(9), None),
            ("1:", Some(9), None),
            ("1,", Some(9), None),
            (",1", Some(9), None),
            ("", Some(9), None),
            ("4294967296", Some(9), None),
            ("1 2", Some(9), None),
        ] {
            assert_eq!(resolved(input, last).as_deref(), expect, "{input:?} {last:?}");
        }
    }

    #[test]
    fn a_set_of_too_many_ranges_is_refused() {
        let text = "1,".repeat(RANGES_MAX) + "1";
        assert!(SequenceSet::parse(&mut Scanner::new(text.as_bytes())).is_err());
    }

    #[test]
    fn sequence_numbers_must_stand_for_messages() {
        let fits =
            |text: &str, exists| SequenceSet::parse(&mut Scanner::new(text.as_bytes())).expect("a set").fits(exists);
        assert!(fits("1:3", 3));
        assert!(!fits("1:4", 3));
        assert!(fits("*", 3));
        assert!(!fits("*", 0));
    }

    #[test]
    fn a_range_set_knows_its_members() {
        let set = RangeSet::from_numbers([9, 1, 2, 3, 7]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 2, 3, 7, 9]);
        assert!(set.contains(2) && set.contains(9) && !set.contains(8) && !set.contains(0));
    }
}
