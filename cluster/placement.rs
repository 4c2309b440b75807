//! Which node owns a shard. There is one owner yet: whoever has opened the store, by the lock of its folder, or where several processes
//! reach it by the epoch of its owner row (`storage/owner`): every shard is ours.

use posthouse_storage::{Fence, ShardId, Store};

/// The owner of every shard, as this node sees it. The view gives speed; the epoch in the write transaction gives safety.
#[derive(Clone)]
pub enum Placement {
    /// This node owns all shards; they were taken when the store was opened.
    Local { store: Store },
}

impl Placement {
    pub fn local(store: Store) -> Self {
        Self::Local { store }
    }

    /// The fence under which this node may write rows of a shard.
    pub fn fence(&self, shard: ShardId) -> Fence {
        match self {
            Self::Local { store } => store.fence(shard),
        }
    }
}
