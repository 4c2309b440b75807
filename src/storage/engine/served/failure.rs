//! The engine's errors as they travel: a number for what a caller acts on, words for whoever reads the log.

use super::protocol::Failed;
use crate::error::Error;

/// What may be too large, by the words that name it; anything else becomes the first.
const SIZED: [&str; 4] = ["a transaction", "a key", "a value", "a body"];

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        let failed = |code, text: &str| Self { code, text: text.to_owned(), size: 0, max: 0 };
        match error {
            Error::Conflict => failed(1, ""),
            Error::TooOld => failed(2, ""),
            Error::TooLarge { what, size, max } => Self { code: 3, text: (*what).to_owned(), size: *size, max: *max },
            Error::MaybeCommitted => failed(4, ""),
            Error::Full => failed(5, ""),
            Error::Corrupt(place) => failed(6, place),
            Error::Unavailable(reason) => failed(7, reason),
            other => failed(7, &other.to_string()),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed.code {
            1 => Self::Conflict,
            2 => Self::TooOld,
            3 => {
                let what = SIZED.into_iter().find(|what| *what == failed.text).unwrap_or(SIZED[0]);
                Self::TooLarge { what, size: failed.size, max: failed.max }
            }
            4 => Self::MaybeCommitted,
            5 => Self::Full,
            6 => Self::Corrupt(failed.text),
            _ => Self::Unavailable(failed.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_acts_on_arrives_as_it_was() {
        let errors = [
            Error::Conflict,
            Error::TooOld,
            Error::TooLarge { what: "a value", size: 7, max: 5 },
            Error::MaybeCommitted,
            Error::Full,
            Error::Corrupt("index.redb".to_owned()),
            Error::Unavailable("the store is closed".to_owned()),
        ];
        for error in errors {
            assert_eq!(Error::from(Failed::from(&error)), error);
        }
    }
}
