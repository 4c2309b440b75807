//! The server's own identifiers, each a type of its own.
//!
//! Making them needs randomness or a counter, which come from outside as arguments.

use std::fmt;
use std::str::FromStr;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.strip_prefix($prefix).ok_or(InvalidId)?;
                <$inner>::from_str_radix(digits, 16).map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

/// A text that is no id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct InvalidId;

number_id!(
    /// An account: random, never used again; names and addresses are rows that point to it.
    AccountId, u64, "a"
);
number_id!(
    /// A local domain: random, never used again.
    DomainId, u64, "d"
);
number_id!(
    /// A mailbox within its account, from a counter of the account (RFC 8474 §4 MAILBOXID).
    MailboxId, u64, "m"
);
number_id!(
    /// An email within its account, from a counter of the account (RFC 8621 §4.1.1).
    EmailId, u64, "e"
);
number_id!(
    /// A thread within its account (RFC 8621 §3).
    ThreadId, u64, "t"
);
number_id!(
    /// One try to hand us a message, from MAIL to its last delivery: 48 bits of Unix milliseconds, 80 random bits.
    ///
    /// It names the message in log lines, is the key of its spool and queue rows, and with the recipient the proof
    /// that a delivery happened.
    IngestId, u128, "i"
);

impl IngestId {
    /// Builds an id from the time and 80 bits of the caller's randomness.
    pub const fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(((unix_ms as u128) << 80) | (random & ((1 << 80) - 1)))
    }
}

/// A keyed hash of a blob's content within a de-duplication scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

impl BlobId {
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("b")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix('b').filter(|d| d.len() == 64 && d.is_ascii()).ok_or(InvalidId)?;
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| InvalidId)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_from_their_text() {
        assert_eq!(AccountId::new(0xbeef).to_string().parse(), Ok(AccountId::new(0xbeef)));
        let ingest = IngestId::from_parts(1_700_000_000_000, u128::MAX);
        assert_eq!(ingest.to_string().parse(), Ok(ingest));
        let blob = BlobId::new([7; 32]);
        assert_eq!(blob.to_string().parse(), Ok(blob));
        assert_eq!("m1".parse::<AccountId>(), Err(InvalidId));
        assert_eq!("a".parse::<AccountId>(), Err(InvalidId));
    }

    #[test]
    fn ingest_ids_sort_by_time() {
        assert!(IngestId::from_parts(1, u128::MAX) < IngestId::from_parts(2, 0));
    }
}
