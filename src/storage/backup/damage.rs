//! What a run could not read of the store, in words: so many of them as somebody reads, and how many more there were.
//!
//! Apart as every part of a run tells of it: a store that lost a disk has more damage than memory has room for words.

use std::collections::BTreeSet;

use crate::error::Error;

/// Words that are kept.
const KEPT_MAX: usize = 1000;

/// Words about rows and bodies that cannot be read, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Damage {
    words: BTreeSet<String>,
    /// Those told after there was no room left; the same one may be told again.
    more: u64,
}

impl Damage {
    pub fn add(&mut self, what: String) {
        if self.words.len() < KEPT_MAX {
            self.words.insert(what);
        } else if !self.words.contains(&what) {
            self.more += 1;
        }
    }

    /// Adds what was told of a part.
    pub fn absorb(&mut self, of: &str, part: Self) {
        part.words.into_iter().for_each(|what| self.add(format!("{of}{what}")));
        self.more += part.more;
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words, and last how many more there were.
    pub fn into_words(self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.words.into_iter().chain(more).collect()
    }
}

/// What could be read; nothing, and a word, for what is damaged.
pub(crate) fn readable<T>(
    outcome: Result<T, Error>,
    what: impl FnOnce() -> String,
    damage: &mut Damage,
) -> Result<Option<T>, Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Corrupt(reason)) => {
            damage.add(format!("{}: {reason}", what()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_much_damage_the_first_words_are_kept_and_the_others_counted() {
        let mut all = Damage::default();
        for account in 0..3 {
            let mut damage = Damage::default();
            for number in 0..2 * KEPT_MAX {
                damage.add(format!("message {number:04}"));
            }
            damage.add("message 0000".to_owned());
            all.absorb(&format!("of {account}: "), damage);
        }
        let words = all.into_words();
        assert_eq!(words.len(), KEPT_MAX + 1);
        assert_eq!((words[0].as_str(), words[KEPT_MAX].as_str()), ("of 0: message 0000", "and 5000 more"));
    }
}
