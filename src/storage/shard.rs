//! Shards, epochs and fences: who may write which owned rows.
//!
//! An entity belongs to a shard for ever, a shard to one owner at a time. The owner's epoch is read inside each
//! transaction that writes owned rows, so that a stale owner's write aborts whatever anybody believed about who is alive.

use std::fmt;

/// One of the fixed number of parts that all entities are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u16);

impl ShardId {
    /// Fixed for ever: shards stand in keys.
    pub const COUNT: u16 = 4096;

    /// The shard of an entity: a hash of its kind, a zero octet and its key. Fixed for ever as well.
    pub fn of(kind: &str, key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(key);
        let [first, second, ..] = *hasher.finalize().as_bytes();
        Self(u16::from_be_bytes([first, second]) % Self::COUNT)
    }

    /// `None` when there is no such shard.
    pub fn new(number: u16) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which ownership of a shard; rises with every change of owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a shard that nobody ever took: its fence row is absent.
    pub const FIRST: Self = Self(0);

    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The right to write the owned rows of a shard: an argument of every function that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub shard: ShardId,
    pub epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_never_move() {
        // Golden values: a change here would lose every entity of an existing store.
        let shards =
            [("account", 1u64), ("account", 2), ("domain", 1)].map(|(k, id)| ShardId::of(k, &id.to_be_bytes()));
        assert_eq!(shards.map(ShardId::get), SHARDS_OF_RECORD);
    }

    const SHARDS_OF_RECORD: [u16; 3] = [416, 1190, 250];

    #[test]
    fn there_are_4096_shards() {
        assert_eq!(ShardId::new(4095).map(ShardId::get), Some(4095));
        assert_eq!(ShardId::new(4096), None);
    }
}
