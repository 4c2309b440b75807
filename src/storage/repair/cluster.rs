//! What nodes agree on: fences have the owner's epoch, the gate knows its nodes.

use super::pen::{Edit, Pen};
use crate::check::cluster::present;
use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::owner;
use crate::record::{GateRow, NodeRow};
use crate::shard::ShardId;
use crate::writer::boxed;

/// Comes before everything that is written under a fence.
pub(super) async fn mend(pen: &mut Pen<'_>) -> Result<(), Error> {
    let mut txn = pen.store.snapshot();
    let (epoch, present) = (owner::epoch(&mut txn).await?, present(&mut txn, 0..ShardId::COUNT).await?);
    let highest = present.values().max().map(|epoch| u64::from_be_bytes(*epoch));
    if let Some(right) = epoch.or(highest) {
        let is_whole =
            present.len() == usize::from(ShardId::COUNT) && present.values().all(|epoch| *epoch == right.to_be_bytes());
        if epoch.is_none() || !is_whole {
            pen.store.transact(|txn| boxed(owner::mend(txn, right))).await?;
            pen.say("fences", format!("every shard has the epoch {right} of the store's owner again"));
        }
    }
    nodes(pen).await
}

async fn nodes(pen: &mut Pen<'_>) -> Result<(), Error> {
    let nodes = pen.records::<NodeRow>(keys::nodes()).await?;
    let node_count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let gate = codec::get::<GateRow>(&mut pen.store.snapshot(), &keys::gate()).await?;
    let known = gate.map_or(0, |gate| gate.node_count);
    if known != node_count {
        // A lost level was one that every node could read.
        let level = nodes.iter().map(|(_, node)| node.format_max).min().unwrap_or(crate::codec::FORMAT_MIN);
        let level = gate.map_or(level, |gate| gate.level);
        let edit = Edit::record(&keys::gate(), &GateRow { level, node_count });
        pen.mend(edit, "gate of formats", "it knows its nodes again").await?;
    }
    Ok(())
}
