//! The counters of IMAP: Uid, UidValidity, ModSeq, and the session's sequence numbers.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

macro_rules! non_zero {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prim:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// The least value.
            pub const FIRST: Self = Self(<$inner>::MIN);

            /// `None` for zero, which the standards exclude.
            pub const fn new(value: $prim) -> Option<Self> {
                match <$inner>::new(value) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            pub const fn get(self) -> $prim {
                self.0.get()
            }

            /// The value after this one; `None` when the counter is used up.
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

non_zero!(
    /// A message's unique identifier in one mailbox, strictly ascending (RFC 9051 §2.3.1.1).
    Uid, NonZeroU32, u32
);
non_zero!(
    /// Changes when the Uids of a mailbox start anew (RFC 9051 §2.3.1.1).
    UidValidity, NonZeroU32, u32
);
non_zero!(
    /// A message's place in the list a session sees; local to the session, never stored (RFC 9051 §2.3.1.2).
    SeqNum, NonZeroU32, u32
);
non_zero!(
    /// A change's number within its account (RFC 7162 §3.1); at most 63 bits (RFC 7162 §7).
    ModSeq, NonZeroU64, u64
);
