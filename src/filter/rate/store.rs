//! One rate, for many keys, in bounded memory: governor's algorithm over a store of our own.
//!
//! The stores that governor brings grow with their keys. This one holds at most `keys_max`; when it is full, a new key
//! shares the allowance of its wider one (a /24, a /48, a group of accounts), and a client that floods it with fresh
//! addresses ends up limiting its own neighbourhood. A second table, as bounded, holds the wider keys; past that, all
//! newcomers share one allowance. Known keys are never touched by a flood.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use governor::clock::Clock;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{RateLimiter, StateStore};
use governor::{Quota, middleware::NoOpMiddleware};
use posthouse_net::Prefix;

/// What a rate is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Network(Prefix),
    /// An account's id, or the hash of a login name.
    Account(u64),
}

/// How many allowances the accounts share that found no place of their own.
const ACCOUNT_GROUPS: u64 = 4096;

impl Key {
    fn wider(self) -> Self {
        match self {
            Self::Network(prefix) => Self::Network(prefix.wider()),
            Self::Account(account) => Self::Account(account % ACCOUNT_GROUPS),
        }
    }
}

/// `count` in a burst, refilled evenly over `per`.
#[derive(Debug)]
pub(super) struct Limiter<C: Clock>(RateLimiter<Asked, Store, C, NoOpMiddleware<C::Instant>>);

impl<C: Clock> Limiter<C> {
    pub(super) fn new(count: u32, per: Duration, keys_max: usize, clock: C) -> Self {
        // A rate of none would be a closed service; the smallest rate is one.
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let interval = (per / count.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).expect("the interval is not zero").allow_burst(count);
        Self(RateLimiter::new(quota, Store::new(keys_max), clock))
    }

    /// Takes one from the key's allowance; false when there is none left.
    pub(super) fn take(&self, key: Key) -> bool {
        self.0.check_key(&Asked { key, keep: true }).is_ok()
    }

    /// Whether the key has some allowance left; takes nothing.
    pub(super) fn has_room(&self, key: Key) -> bool {
        self.0.check_key(&Asked { key, keep: false }).is_ok()
    }

    /// Drops keys that are back at full allowance.
    pub(super) fn sweep(&self) {
        self.0.retain_recent();
    }
}

/// A key, and whether the answer is to be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    key: Key,
    keep: bool,
}

#[derive(Debug)]
struct Store {
    keys_max: usize,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    own: HashMap<Key, Nanos>,
    wider: HashMap<Key, Nanos>,
    rest: Option<Nanos>,
}

impl Store {
    fn new(keys_max: usize) -> Self {
        Self { keys_max, tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // The tables hold plain numbers: a panic elsewhere cannot leave them half changed.
        self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl StateStore for Store {
    type Key = Asked;

    fn measure_and_replace<T, F, E>(&self, asked: &Asked, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut tables = self.tables();
        let Tables { own, wider, rest } = &mut *tables;
        let fits = |table: &HashMap<Key, Nanos>, key: &Key| table.contains_key(key) || table.len() < self.keys_max;
        let (table, key) = if fits(own, &asked.key) { (Some(own), asked.key) } else { (None, asked.key.wider()) };
        let table = table.or_else(|| fits(wider, &key).then_some(wider));
        let before = table.as_ref().map_or(*rest, |table| table.get(&key).copied());
        let (outcome, after) = measure(before)?;
        match table {
            _ if !asked.keep => {}
            Some(table) => drop(table.insert(key, after)),
            None => *rest = Some(after),
        }
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Asked> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut tables = self.tables();
        let Tables { own, wider, rest } = &mut *tables;
        for table in [own, wider] {
            table.retain(|_, at| *at > drop_below);
            if table.len() < table.capacity() / 4 {
                table.shrink_to_fit();
            }
        }
        *rest = rest.filter(|at| *at > drop_below);
    }

    fn len(&self) -> usize {
        let tables = self.tables();
        tables.own.len() + tables.wider.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn host(a: u8, b: u8) -> Key {
        Key::Network(Prefix::client([10, 0, a, b].into()))
    }

    #[test]
    fn when_full_new_keys_share_their_wider_one_and_known_ones_keep_theirs() {
        let limiter = Limiter::new(2, MINUTE, 2, FakeRelativeClock::default());
        assert!(limiter.take(host(1, 1)) && limiter.take(host(2, 2)));
        // Both places are taken: the neighbours of 10.0.3.0/24 share two.
        assert!(limiter.take(host(3, 1)) && limiter.take(host(3, 2)) && !limiter.take(host(3, 3)));
        assert!(limiter.take(host(1, 1)) && !limiter.take(host(1, 1)));
        // The second table is full too: everyone else shares two.
        assert!(limiter.take(host(4, 1)) && limiter.take(host(5, 1)) && limiter.take(host(6, 1)));
        assert!(!limiter.take(host(7, 1)));
        assert_eq!(limiter.0.len(), 4);
    }

    #[test]
    fn asking_for_room_takes_none() {
        let limiter = Limiter::new(1, MINUTE, 10, FakeRelativeClock::default());
        assert!((0..5).all(|_| limiter.has_room(host(1, 1))));
        assert!(limiter.0.is_empty());
        assert!(limiter.take(host(1, 1)) && !limiter.has_room(host(1, 1)));
    }

    #[test]
    fn a_sweep_forgets_only_those_at_full_allowance() {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::new(2, MINUTE, 10, clock.clone());
        assert!(limiter.take(host(1, 1)));
        clock.advance(MINUTE);
        assert!(limiter.take(host(2, 2)) && limiter.take(host(2, 2)));
        limiter.sweep();
        assert_eq!(limiter.0.len(), 1);
        assert!(!limiter.take(host(2, 2)));
        clock.advance(MINUTE * 2);
        limiter.sweep();
        assert!(limiter.0.is_empty());
    }
}
