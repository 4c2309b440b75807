//! The arithmetic of atomic operations: pure, the same in a transaction that reads its own writes and at the commit.

use bytes::Bytes;

use super::Atomic;

/// The value after an operation; `None` is an absent row.
pub(crate) fn apply(op: Atomic, current: Option<&[u8]>, argument: &[u8]) -> Option<Bytes> {
    let value = match op {
        Atomic::CompareAndClear => return current.filter(|value| *value != argument).map(Bytes::copy_from_slice),
        Atomic::Add => add(&fit(current, argument.len()), argument),
        Atomic::Max => by_number(current, argument, true),
        Atomic::Min => by_number(current, argument, false),
        Atomic::ByteMax => current.map_or(argument, |value| value.max(argument)).to_vec(),
        Atomic::ByteMin => current.map_or(argument, |value| value.min(argument)).to_vec(),
        // Absent is not zero here: a mask laid on nothing is the mask itself.
        Atomic::And => current.map_or_else(|| argument.to_vec(), |value| zip(value, argument, |a, b| a & b)),
        Atomic::Or => zip(current.unwrap_or_default(), argument, |a, b| a | b),
        Atomic::Xor => zip(current.unwrap_or_default(), argument, |a, b| a ^ b),
    };
    Some(Bytes::from(value))
}

/// The value in the length of the argument.
fn fit(current: Option<&[u8]>, length: usize) -> Vec<u8> {
    let mut value: Vec<u8> = current.unwrap_or_default().iter().copied().take(length).collect();
    value.resize(length, 0);
    value
}

/// Little-endian addition that wraps.
fn add(value: &[u8], argument: &[u8]) -> Vec<u8> {
    let mut carry = 0u16;
    let sum = value.iter().zip(argument).map(|(a, b)| {
        let digit = u16::from(*a) + u16::from(*b) + carry;
        carry = digit >> 8;
        digit.to_le_bytes()[0]
    });
    sum.collect()
}

fn zip(value: &[u8], argument: &[u8], op: impl Fn(u8, u8) -> u8) -> Vec<u8> {
    fit(Some(value), argument.len()).iter().zip(argument).map(|(a, b)| op(*a, *b)).collect()
}

/// Unsigned little-endian comparison. An absent row takes the argument.
fn by_number(current: Option<&[u8]>, argument: &[u8], want_greater: bool) -> Vec<u8> {
    let Some(current) = current else {
        return argument.to_vec();
    };
    let value = fit(Some(current), argument.len());
    let is_greater = value.iter().rev().gt(argument.iter().rev());
    if is_greater == want_greater { value } else { argument.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: Atomic, current: Option<&[u8]>, argument: &[u8], expect: Option<&[u8]>) {
        assert_eq!(apply(op, current, argument).as_deref(), expect, "{op:?} {current:?} {argument:?}");
    }

    #[test]
    fn numbers_are_little_endian_and_as_long_as_the_argument() {
        check(Atomic::Add, None, &[5, 0], Some(&[5, 0]));
        check(Atomic::Add, Some(&[255, 0]), &[1, 0], Some(&[0, 1]));
        check(Atomic::Add, Some(&[255, 255]), &[1, 0], Some(&[0, 0]));
        check(Atomic::Add, Some(&5i64.to_le_bytes()), &(-7i64).to_le_bytes(), Some(&(-2i64).to_le_bytes()));
        check(Atomic::Max, Some(&[0, 1]), &[255, 0], Some(&[0, 1]));
        check(Atomic::Min, Some(&[0, 1]), &[255, 0], Some(&[255, 0]));
        check(Atomic::Min, None, &[9], Some(&[9]));
        check(Atomic::Max, Some(&[1, 1, 1]), &[2], Some(&[2]));
    }

    #[test]
    fn octets_compare_from_the_left() {
        check(Atomic::ByteMax, Some(b"ab"), b"b", Some(b"b"));
        check(Atomic::ByteMin, Some(b"ab"), b"b", Some(b"ab"));
        check(Atomic::ByteMin, None, b"b", Some(b"b"));
    }

    #[test]
    fn bits_are_combined_in_the_length_of_the_argument() {
        check(Atomic::And, None, &[3], Some(&[3]));
        check(Atomic::And, Some(&[6, 6]), &[3], Some(&[2]));
        check(Atomic::Or, Some(&[4]), &[3, 1], Some(&[7, 1]));
        check(Atomic::Xor, Some(&[7]), &[2], Some(&[5]));
    }

    #[test]
    fn compare_and_clear_clears_only_what_is_equal() {
        check(Atomic::CompareAndClear, Some(&[1]), &[1], None);
        check(Atomic::CompareAndClear, Some(&[2]), &[1], Some(&[2]));
        check(Atomic::CompareAndClear, None, &[1], None);
    }
}
