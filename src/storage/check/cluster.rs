//! What nodes agree on: who owns the store, and which formats are written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Report, Rule};
use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::owner;
use crate::record::{GateRow, NodeRow};
use crate::shard::ShardId;
use crate::store::Store;
use crate::transaction::Transaction;

/// Shards looked at in one step.
const STEP: u16 = 256;

pub(super) async fn walk(store: &Store, report: &mut Report) -> Result<(), Error> {
    let outcome = nodes(store, report).await;
    report.absorb("nodes", outcome)?;
    let outcome = fences(store, report).await;
    report.absorb("fences", outcome)
}

/// Every shard has the epoch of the store's owner: a lost fence would let a former owner write, or keep the present one out.
async fn fences(store: &Store, report: &mut Report) -> Result<(), Error> {
    // Every row is a read of its own, which over a connection takes its time: each step is held against the owner of its moment.
    for first in (0..ShardId::COUNT).step_by(STEP.into()) {
        let shards = first..(first + STEP).min(ShardId::COUNT);
        let mut txn = store.snapshot();
        let epoch = owner::epoch(&mut txn).await?;
        let present = present(&mut txn, shards.clone()).await?;
        if let (None, Some(shard)) = (epoch, present.keys().next()) {
            report.add(Rule::Directory, format!("shard {shard}"), "it has a fence, and the store has no owner's row");
            return Ok(());
        }
        let right = epoch.map(u64::to_be_bytes);
        for shard in shards.filter(|shard| present.get(shard).copied() != right) {
            let place = format!("shard {shard}");
            report.add(Rule::Directory, place, "its fence does not have the epoch of the store's owner");
        }
    }
    Ok(())
}

/// Fence rows.
pub(crate) async fn present(txn: &mut Transaction<'_>, shards: Range<u16>) -> Result<BTreeMap<u16, [u8; 8]>, Error> {
    let mut present = BTreeMap::new();
    for shard in shards.filter_map(ShardId::new) {
        let row = txn.get(&keys::fence(shard)).await?;
        present.extend(row.and_then(|row| row.as_ref().try_into().ok()).map(|epoch| (shard.get(), epoch)));
    }
    Ok(present)
}

/// The gate lets nobody write what a node cannot read, and knows how many nodes there are.
async fn nodes(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut txn = store.snapshot();
    let nodes = codec::scan_all::<NodeRow>(&mut txn, &keys::nodes()).await?;
    let gate = codec::get::<GateRow>(&mut txn, &keys::gate()).await?.unwrap_or_default();
    if usize::try_from(gate.node_count).ok() != Some(nodes.len()) {
        let detail = format!("{} nodes counted, {} present", gate.node_count, nodes.len());
        report.add(Rule::Counters, "gate of formats", detail);
    }
    for (_, node) in nodes {
        if !(node.format_min..=node.format_max).contains(&gate.level) {
            let detail = format!("the gate is at {}, it reads {} to {}", gate.level, node.format_min, node.format_max);
            report.add(Rule::Directory, format!("node {}", node.name), detail);
        }
    }
    Ok(())
}
