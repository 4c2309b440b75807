//! Remembers that a password was right a moment ago, so that clients that log in every minute do not cost a hash each.
//!
//! Only keyed digests are kept, under a key that lives as long as the process; failures are never remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use posthouse_mail::{AccountId, Secret};
use tokio::time::Instant;

pub(super) struct Successes {
    key: Secret<[u8; 32]>,
    ttl: Duration,
    entries_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Whose password, and until when it counts.
    known: HashMap<Digest, (AccountId, Instant)>,
    /// In the order of their ends.
    order: VecDeque<(Digest, Instant)>,
}

pub(super) type Digest = [u8; 32];

impl Successes {
    pub(super) fn new(ttl: Duration, entries_max: usize) -> Self {
        Self { key: Secret::new(rand::random()), ttl, entries_max, entries: Mutex::default() }
    }

    pub(super) fn digest(&self, account: AccountId, hash: &Secret<String>, password: &Secret<String>) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(self.key.reveal());
        hasher.update(&account.get().to_be_bytes());
        // A PHC string has no NUL, so the two texts cannot run into each other.
        hasher.update(hash.reveal().as_bytes()).update(&[0]).update(password.reveal().as_bytes());
        *hasher.finalize().as_bytes()
    }

    pub(super) fn contains(&self, digest: &Digest, now: Instant) -> bool {
        self.entries().known.get(digest).is_some_and(|(_, until)| now < *until)
    }

    pub(super) fn remember(&self, account: AccountId, digest: Digest, now: Instant) {
        if self.entries_max == 0 {
            return;
        }
        let mut entries = self.entries();
        while let Some((oldest, until)) = entries.order.front().copied() {
            if until > now && entries.order.len() < self.entries_max {
                break;
            }
            entries.order.pop_front();
            // A digest that was renewed since stands further back, with a later end.
            if entries.known.get(&oldest).is_some_and(|(_, end)| *end == until) {
                entries.known.remove(&oldest);
            }
        }
        let until = now + self.ttl;
        entries.known.insert(digest, (account, until));
        entries.order.push_back((digest, until));
    }

    /// Drops all of an account.
    pub(super) fn forget(&self, account: AccountId) {
        self.entries().known.retain(|_, (whose, _)| *whose != account);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const ALICE: AccountId = AccountId::new(1);

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_digest_belongs_to_one_account_one_hash_and_one_password() {
        let successes = Successes::new(TTL, 10);
        let digest = |id, hash, password| successes.digest(AccountId::new(id), &secret(hash), &secret(password));
        let first = digest(1, "h", "p");
        assert_eq!(first, digest(1, "h", "p"));
        for other in [digest(2, "h", "p"), digest(1, "i", "p"), digest(1, "h", "q"), digest(1, "hp", "")] {
            assert_ne!(first, other);
        }
        assert_ne!(first, Successes::new(TTL, 10).digest(AccountId::new(1), &secret("h"), &secret("p")));
    }

    #[test]
    fn it_forgets_with_time_and_the_oldest_when_full() {
        let successes = Successes::new(TTL, 2);
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        successes.remember(ALICE, [1; 32], at(0));
        successes.remember(ALICE, [2; 32], at(1));
        assert!(successes.contains(&[1; 32], at(59)) && !successes.contains(&[1; 32], at(60)));
        successes.remember(ALICE, [3; 32], at(2));
        assert!(!successes.contains(&[1; 32], at(2)) && successes.contains(&[2; 32], at(2)));
        successes.remember(ALICE, [2; 32], at(3));
        successes.remember(ALICE, [4; 32], at(4));
        assert!(successes.contains(&[2; 32], at(62)) && successes.contains(&[4; 32], at(62)));
        assert!(successes.entries().order.len() <= 2 && successes.entries().known.len() <= 2);
    }

    #[test]
    fn an_account_can_be_forgotten() {
        let successes = Successes::new(TTL, 10);
        let now = Instant::now();
        successes.remember(ALICE, [1; 32], now);
        successes.remember(AccountId::new(2), [2; 32], now);
        successes.forget(ALICE);
        assert!(!successes.contains(&[1; 32], now) && successes.contains(&[2; 32], now));
    }
}
