//! Durations and sizes as the configuration writes them: `"30s"`, `"25MiB"`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// A size in octets: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Span {
    pub const fn ms(value: u64) -> Self {
        Self(Duration::from_millis(value))
    }

    pub const fn secs(value: u64) -> Self {
        Self(Duration::from_secs(value))
    }

    pub const fn mins(value: u64) -> Self {
        Self::secs(value * 60)
    }

    pub const fn hours(value: u64) -> Self {
        Self::mins(value * 60)
    }

    pub const fn days(value: u64) -> Self {
        Self::hours(value * 24)
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    /// Reads `"30s"`.
    pub fn parse(text: &str) -> Option<Self> {
        parse_units(text, &SPAN_UNITS).map(Self::ms)
    }
}

impl Size {
    pub const fn bytes(value: u64) -> Self {
        Self(value)
    }

    pub const fn kib(value: u64) -> Self {
        Self(value << 10)
    }

    pub const fn mib(value: u64) -> Self {
        Self(value << 20)
    }

    pub const fn gib(value: u64) -> Self {
        Self(value << 30)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size as a length in memory; saturates where `usize` is smaller.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads `"25MiB"`.
    pub fn parse(text: &str) -> Option<Self> {
        parse_units(text, &SIZE_UNITS).map(Self)
    }
}

fn parse_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..split].parse().ok()?;
    let unit = text[split..].trim_start();
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    count.checked_mul(factor)
}

fn show_units(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |factor: u64| value.is_multiple_of(factor) && (value >= factor || factor == units[0].1);
    // Zero reads best in the plain unit: seconds or octets.
    let (name, factor) = units.iter().rev().find(|(_, factor)| value > 0 && fits(*factor)).unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_units(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPAN_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_units(self.0, &SIZE_UNITS, f)
    }
}

macro_rules! string_form {
    ($name:ident, $expect:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &$expect))
            }
        }
    };
}

string_form!(Span, "a duration with a unit: ms, s, m, h or d, as in \"30s\"");
string_form!(Size, "a size with a unit: B, KiB, MiB, GiB or TiB, as in \"25MiB\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_written_in_the_largest_unit_that_fits() {
        for text in ["250ms", "30s", "5m", "2h", "7d", "90m"] {
            assert_eq!(Span::parse(text).map(|s| s.to_string()).as_deref(), Some(text));
        }
        for text in ["512B", "64KiB", "25MiB", "3GiB", "1TiB", "0B"] {
            assert_eq!(Size::parse(text).map(|s| s.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Span::parse("60s").map(|s| s.to_string()).as_deref(), Some("1m"));
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        assert_eq!(Span::parse("30"), None);
        assert_eq!(Size::parse("25"), None);
        assert_eq!(Size::parse("25MB"), None);
        assert_eq!(Size::parse("99999999999TiB"), None);
    }
}
