//! A transaction's writes as they travel, and their way back into a transaction of the engine that serves.

use bytes::Bytes;

use super::protocol::{Change, ChangeKind, KeyRange, Operation, Row, StampedKey, StampedValue};
use crate::engine::embedded::overlay::{Overlay, Pending};
use crate::engine::{Atomic, EmbeddedTxn, KvTxn as _};
use crate::error::Error;

/// By their numbers in messages: their places here never change.
const OPERATIONS: [Atomic; 9] = [
    Atomic::Add,
    Atomic::Max,
    Atomic::Min,
    Atomic::ByteMax,
    Atomic::ByteMin,
    Atomic::And,
    Atomic::Or,
    Atomic::Xor,
    Atomic::CompareAndClear,
];

fn number(operation: Atomic) -> u32 {
    OPERATIONS
        .iter()
        .zip(0..)
        .find(|(known, _)| **known == operation)
        .map(|(_, number)| number)
        .expect("all are listed")
}

fn operation(number: u32) -> Option<Atomic> {
    OPERATIONS.get(usize::try_from(number).ok()?).copied()
}

/// The writes in the order in which they have to be applied.
pub(super) fn changes(writes: Overlay) -> Vec<Change> {
    let mut kinds: Vec<ChangeKind> =
        writes.cleared.into_iter().map(|(begin, end)| ChangeKind::ClearRange(KeyRange { begin, end })).collect();
    for (key, pending) in writes.points {
        match pending {
            Pending::Set(value) => kinds.push(ChangeKind::Set(Row { key, value })),
            Pending::Clear => kinds.push(ChangeKind::Clear(key)),
            Pending::StampedValue { prefix, suffix } => {
                kinds.push(ChangeKind::StampedValue(StampedValue { key, prefix, suffix }));
            }
            Pending::Atomic(operations) => kinds.extend(operations.into_iter().map(|(operation, argument)| {
                ChangeKind::Atomic(Operation { key: key.clone(), operation: number(operation), argument })
            })),
        }
    }
    let stamped = writes.stamped_keys.into_iter();
    kinds
        .extend(stamped.map(|row| {
            ChangeKind::StampedKey(StampedKey { prefix: row.prefix, suffix: row.suffix, value: row.value })
        }));
    kinds.into_iter().map(|kind| Change { kind: Some(kind) }).collect()
}

pub(super) fn ranges(ranges: Vec<(Bytes, Bytes)>) -> Vec<KeyRange> {
    ranges.into_iter().map(|(begin, end)| KeyRange { begin, end }).collect()
}

/// Applies one change. The engine checks it against its limits as if a caller of this process had made it.
pub(super) fn apply(kind: ChangeKind, txn: &mut EmbeddedTxn) -> Result<(), Error> {
    match kind {
        ChangeKind::Set(Row { key, value }) => txn.set(&key, &value),
        ChangeKind::Clear(key) => txn.clear(&key),
        ChangeKind::ClearRange(KeyRange { begin, end }) => txn.clear_range(&begin, &end),
        ChangeKind::Atomic(change) => {
            let known = operation(change.operation);
            let known = known.ok_or(Error::Invalid("an operation that this server does not know"))?;
            txn.atomic(&change.key, known, &change.argument);
        }
        ChangeKind::StampedKey(row) => txn.set_stamped_key(&row.prefix, &row.suffix, &row.value),
        ChangeKind::StampedValue(row) => txn.set_stamped_value(&row.key, &row.prefix, &row.suffix),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_keep_their_numbers() {
        for (number, known) in (0..).zip(OPERATIONS) {
            assert_eq!(super::number(known), number);
            assert_eq!(operation(number), Some(known));
        }
        assert_eq!(operation(9), None);
        assert_eq!(super::number(Atomic::CompareAndClear), 8);
    }
}
