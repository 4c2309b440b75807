//! LIST, UIDL and CAPA: answers of many lines, rendered piece by piece so that a large maildrop needs no large buffer.

use super::command::Number;
use super::maildrop::Maildrop;

/// What is being listed, and where it goes on. Part of the session's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    Sizes { next: Number },
    UniqueIds { next: Number },
}

impl Listing {
    /// Appends lines until `out` holds `enough` octets; returns where to go on, or `None` once the final dot is out.
    pub fn render(self, maildrop: &Maildrop, out: &mut Vec<u8>, enough: usize) -> Option<Self> {
        let (Self::Sizes { next } | Self::UniqueIds { next }) = self;
        for (number, entry) in maildrop.present_from(next) {
            let line = match self {
                Self::Sizes { .. } => format!("{number} {}\r\n", entry.size),
                Self::UniqueIds { .. } => format!("{number} {}\r\n", maildrop.unique_id(entry)),
            };
            out.extend_from_slice(line.as_bytes());
            if out.len() >= enough {
                return Some(self.after(number));
            }
        }
        out.extend_from_slice(b".\r\n");
        None
    }

    fn after(self, number: Number) -> Self {
        let next = number.saturating_add(1);
        match self {
            Self::Sizes { .. } => Self::Sizes { next },
            Self::UniqueIds { .. } => Self::UniqueIds { next },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::maildrop::Entry;
    use super::*;
    use posthouse_mail::{Uid, UidValidity};

    fn check(listing: Listing, enough: usize, expect: &str, pieces: usize) {
        let entry = |n: u32| Entry { uid: Uid::new(n).expect("not zero"), size: u64::from(n) * 10 };
        let mut maildrop = Maildrop::new(UidValidity::FIRST, vec![entry(3), entry(4), entry(9)]);
        assert!(maildrop.mark(2));
        let (mut all, mut count, mut next) = (Vec::new(), 0, Some(listing));
        while let Some(listing) = next {
            let mut out = Vec::new();
            next = listing.render(&maildrop, &mut out, enough);
            all.extend(out);
            count += 1;
        }
        assert_eq!((String::from_utf8(all).expect("text").as_str(), count), (expect, pieces));
    }

    #[test]
    fn rfc1939_5_a_listing_leaves_out_marked_messages_and_keeps_the_numbers_of_the_rest() {
        check(Listing::Sizes { next: 1 }, 1000, "1 30\r\n3 90\r\n.\r\n", 1);
        check(Listing::UniqueIds { next: 1 }, 1000, "1 1.3\r\n3 1.9\r\n.\r\n", 1);
        check(Listing::Sizes { next: 1 }, 1, "1 30\r\n3 90\r\n.\r\n", 3);
    }
}
