//! What FoundationDB's error codes mean to the rest of the store.

use foundationdb::FdbError;

use crate::engine::{MAX_KEY, MAX_TXN, MAX_VALUE};
use crate::error::Error;

/// When an error came: only during a commit can the outcome be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum During {
    Reads,
    Commit,
}

pub(super) fn error(fault: FdbError, during: During) -> Error {
    known(fault.code(), during).unwrap_or_else(|| {
        let text = format!("FoundationDB: {} ({})", fault.message(), fault.code());
        match during {
            During::Commit if fault.is_maybe_committed() => Error::MaybeCommitted,
            _ if fault.is_retryable() => Error::TryAgain(text),
            _ => Error::Unavailable(text),
        }
    })
}

/// The codes that mean something of their own; FoundationDB itself sorts the others.
fn known(code: i32, during: During) -> Option<Error> {
    let is_commit = during == During::Commit;
    Some(match code {
        NOT_COMMITTED => Error::Conflict,
        TRANSACTION_TOO_OLD => Error::TooOld,
        COMMIT_UNKNOWN_RESULT if is_commit => Error::MaybeCommitted,
        // FoundationDB calls a time-out final and certain. It is neither during a commit, which may still be on its way;
        // and a read that took too long, while a lost server is replaced, may well be repeated.
        TRANSACTION_TIMED_OUT if is_commit => Error::MaybeCommitted,
        TRANSACTION_TIMED_OUT => Error::TryAgain("the FoundationDB cluster took too long".to_owned()),
        ACCESSED_UNREADABLE => Error::Unreadable,
        TOO_MANY_WATCHES => Error::Limit { what: "watched rows" },
        TRANSACTION_TOO_LARGE => over("a transaction", MAX_TXN),
        KEY_TOO_LARGE => over("a key", MAX_KEY),
        VALUE_TOO_LARGE => over("a value", MAX_VALUE),
        KEY_OUTSIDE_LEGAL_RANGE => Error::Invalid("a key of the engine itself"),
        _ => return None,
    })
}

/// FoundationDB tells no size; it is over the limit.
fn over(what: &'static str, max: usize) -> Error {
    Error::TooLarge { what, size: max as u64 + 1, max: max as u64 }
}

const TRANSACTION_TOO_OLD: i32 = 1007;
const NOT_COMMITTED: i32 = 1020;
const COMMIT_UNKNOWN_RESULT: i32 = 1021;
const TRANSACTION_TIMED_OUT: i32 = 1031;
const TOO_MANY_WATCHES: i32 = 1032;
const ACCESSED_UNREADABLE: i32 = 1036;
const KEY_OUTSIDE_LEGAL_RANGE: i32 = 2004;
const TRANSACTION_TOO_LARGE: i32 = 2101;
const KEY_TOO_LARGE: i32 = 2102;
const VALUE_TOO_LARGE: i32 = 2103;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_has_an_unknown_outcome() {
        for code in [COMMIT_UNKNOWN_RESULT, TRANSACTION_TIMED_OUT] {
            assert_eq!(known(code, During::Commit), Some(Error::MaybeCommitted));
        }
        assert!(known(TRANSACTION_TIMED_OUT, During::Reads).is_some_and(|error| error.is_retryable()));
        assert_eq!(known(NOT_COMMITTED, During::Commit), Some(Error::Conflict));
        assert_eq!(known(TRANSACTION_TOO_OLD, During::Reads), Some(Error::TooOld));
    }

    #[test]
    fn every_limit_is_told_by_name() {
        let limits = [(TRANSACTION_TOO_LARGE, "a transaction"), (KEY_TOO_LARGE, "a key"), (VALUE_TOO_LARGE, "a value")];
        for (code, name) in limits {
            assert!(matches!(known(code, During::Commit), Some(Error::TooLarge { what, .. }) if what == name));
        }
    }
}
