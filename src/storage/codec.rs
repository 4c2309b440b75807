//! How a record becomes a row: one version octet, then prost; a value over 64 KiB is split here and nowhere else.
//!
//! Apart so that no caller knows of pieces: a row's head says how many there are, the pieces lie in a subspace of their
//! own (`keys::chunk`), and overwriting or removing a row that may be split clears its old pieces. A transaction knows the
//! format that it may write (`gate`); every format from `FORMAT_MIN` on is read.

use bytes::Bytes;

use crate::engine::{Page, RangeRequest};
use crate::error::Error;
use crate::keys::{self, Key, KeyRange};
use crate::seal;
use crate::transaction::Transaction;

/// Octets of a value that stay in one row.
pub const SPLIT_AT: usize = 64 * 1024;

/// The oldest record format that this binary reads: from the first release on, the one before its own.
pub const FORMAT_MIN: u32 = 1;
/// The newest record format that this binary writes and reads.
pub const FORMAT_MAX: u32 = 1;
/// Second octet: the record follows.
const WHOLE: u8 = 0;
/// Second octet: the number of pieces follows.
const SPLIT: u8 = 1;

/// A prost message that stands in a row.
pub trait Record: prost::Message + Default {
    /// Whether its encoding may pass 64 KiB; costs a range clear at each overwrite.
    const MAY_SPLIT: bool = false;
}

/// Octets of rows fetched at once.
const PAGE_OCTETS: usize = 512 * 1024;

/// The first rows of a range as they are, at most `limit` of them.
pub async fn page(txn: &mut Transaction<'_>, range: &KeyRange, limit: usize) -> Result<Page, Error> {
    txn.range(RangeRequest::new(&range.begin, &range.end).bytes(PAGE_OCTETS).limit(limit)).await
}

/// Reads one record.
pub async fn get<R: Record>(txn: &mut Transaction<'_>, key: &Key) -> Result<Option<R>, Error> {
    match txn.get(key).await? {
        Some(value) => decode(txn, key, &value).await.map(Some),
        None => Ok(None),
    }
}

/// Reads one record that must be there: its absence breaks an invariant.
pub async fn expect<R: Record>(txn: &mut Transaction<'_>, key: &Key, what: &str) -> Result<R, Error> {
    get(txn, key).await?.ok_or_else(|| Error::Corrupt(format!("{what} {key:?} is missing")))
}

/// Turns a row that a scan returned into its record, fetching its pieces if it has any.
pub async fn decode<R: Record>(txn: &mut Transaction<'_>, key: &[u8], value: &[u8]) -> Result<R, Error> {
    match value {
        [version, ..] if u32::from(*version) > FORMAT_MAX => {
            Err(Error::NewerFormat { found: u64::from(*version), known: u64::from(FORMAT_MAX) })
        }
        [version, ..] if u32::from(*version) < FORMAT_MIN => Err(damaged(key)),
        [_, WHOLE, body @ ..] => parse(key, body),
        [_, SPLIT, count @ ..] if R::MAY_SPLIT => {
            let count = <[u8; 4]>::try_from(count).map(u32::from_be_bytes).map_err(|_| damaged(key))?;
            let mut whole = Vec::new();
            for number in 0..count {
                let piece = txn.get(&keys::chunk(key, number)).await?.ok_or_else(|| damaged(key))?;
                whole.extend_from_slice(&piece);
            }
            parse(key, &whole)
        }
        _ => Err(damaged(key)),
    }
}

/// How many pieces the head of a split value names; `None`: it is no such head.
pub fn pieces(value: &[u8]) -> Option<u32> {
    match value {
        [_, SPLIT, count @ ..] => <[u8; 4]>::try_from(count).map(u32::from_be_bytes).ok(),
        _ => None,
    }
}

/// Writes a record under a key that has none.
pub fn insert<R: Record>(txn: &mut Transaction<'_>, key: &Key, record: &R) -> Result<(), Error> {
    let size = record.encoded_len();
    if size <= SPLIT_AT {
        txn.set(key, &encode(record, txn.format()));
        return Ok(());
    }
    if !R::MAY_SPLIT {
        return Err(too_large("a record that is never split", size));
    }
    let whole = record.encode_to_vec();
    let pieces = whole.chunks(SPLIT_AT);
    let count = u32::try_from(pieces.len()).map_err(|_| too_large("a record", size))?;
    for (number, piece) in (0..count).zip(pieces) {
        txn.set(&keys::chunk(key, number), piece);
    }
    let mut head = vec![txn.format(), SPLIT];
    head.extend_from_slice(&count.to_be_bytes());
    txn.set(key, &head);
    Ok(())
}

/// The value of a record that is not split.
pub fn encode<R: Record>(record: &R, format: u8) -> Vec<u8> {
    let mut value = Vec::with_capacity(record.encoded_len() + 2);
    value.extend_from_slice(&[format, WHOLE]);
    record.encode_raw(&mut value);
    value
}

/// Writes a record over what the key had.
pub fn put<R: Record>(txn: &mut Transaction<'_>, key: &Key, record: &R) -> Result<(), Error> {
    clear_pieces::<R>(txn, key);
    insert(txn, key, record)
}

/// Removes a record with its pieces.
pub fn remove<R: Record>(txn: &mut Transaction<'_>, key: &Key) {
    clear_pieces::<R>(txn, key);
    txn.clear(key);
}

fn clear_pieces<R: Record>(txn: &mut Transaction<'_>, key: &[u8]) {
    if R::MAY_SPLIT {
        let pieces = keys::chunks(key);
        txn.clear_range(&pieces.begin, &pieces.end);
    }
}

fn parse<R: Record>(key: &[u8], body: &[u8]) -> Result<R, Error> {
    R::decode(body).map_err(|_| damaged(key))
}

fn too_large(what: &'static str, size: usize) -> Error {
    Error::TooLarge {
        what,
        size: u64::try_from(size).unwrap_or(u64::MAX),
        max: u64::try_from(SPLIT_AT).unwrap_or(u64::MAX),
    }
}

fn damaged(key: &[u8]) -> Error {
    Error::Corrupt(format!("the row {} cannot be read", keys::describe(key)))
}

/// The first rows of a range, as (key, record); whether more follow.
pub async fn scan<R: Record>(
    txn: &mut Transaction<'_>,
    range: &KeyRange,
    limit: usize,
) -> Result<(Vec<(Bytes, R)>, bool), Error> {
    let found = page(txn, range, limit).await?;
    let mut records = Vec::with_capacity(found.rows.len());
    for (key, value) in found.rows {
        let record = decode(txn, &key, &value).await?;
        records.push((key, record));
    }
    Ok((records, found.more))
}

/// As `scan`, but leaves out what cannot be read and says which rows that are; also where the next page begins.
pub async fn scan_readable<R: Record>(
    txn: &mut Transaction<'_>,
    range: &KeyRange,
    limit: usize,
    mut damaged: impl FnMut(&[u8], String),
) -> Result<(Vec<(Bytes, R)>, Option<Vec<u8>>), Error> {
    match scan(txn, range, limit).await {
        Err(Error::Corrupt(_)) => {}
        found => {
            let (rows, more) = found?;
            let next = rows.last().filter(|_| more).map(|(key, _)| keys::after(key));
            return Ok((rows, next));
        }
    }
    let page = txn.range_sealed(RangeRequest::new(&range.begin, &range.end).limit(limit)).await?;
    let next = page.rows.last().filter(|_| page.more).map(|(key, _)| keys::after(key));
    let mut rows = Vec::with_capacity(page.rows.len());
    for (key, _) in page.rows {
        let value = match txn.get(&key).await {
            Ok(Some(value)) => decode(txn, &key, &value).await,
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match value {
            Ok(row) => rows.push((key, row)),
            Err(Error::Corrupt(reason)) => damaged(&key, reason),
            Err(error) => return Err(error),
        }
    }
    Ok((rows, next))
}

/// As `page`, but leaves out what is not what was written and says which rows that are; also where the next page begins.
pub async fn page_readable(
    txn: &mut Transaction<'_>,
    range: &KeyRange,
    limit: usize,
    mut damaged: impl FnMut(&[u8], String),
) -> Result<(Vec<(Bytes, Bytes)>, Option<Vec<u8>>), Error> {
    let request = RangeRequest::new(&range.begin, &range.end).bytes(PAGE_OCTETS).limit(limit);
    let page = txn.range_sealed(request).await?;
    let next = page.rows.last().filter(|_| page.more).map(|(key, _)| keys::after(key));
    let mut rows = Vec::with_capacity(page.rows.len());
    for (key, sealed) in page.rows {
        match seal::open(&key, &sealed) {
            Ok(value) => rows.push((key, value)),
            Err(Error::Corrupt(reason)) => damaged(&key, reason),
            Err(error) => return Err(error),
        }
    }
    Ok((rows, next))
}

/// Every row of a range that is known to be short, such as the mailboxes of one account.
pub async fn scan_all<R: Record>(txn: &mut Transaction<'_>, range: &KeyRange) -> Result<Vec<(Bytes, R)>, Error> {
    let mut all = Vec::new();
    let mut rest = range.clone();
    loop {
        let (page, more) = scan(txn, &rest, 1000).await?;
        all.extend(page);
        match all.last() {
            Some((key, _)) if more => rest.begin = keys::after(key),
            _ => return Ok(all),
        }
    }
}

/// Whether a range has a row at all.
pub async fn any(txn: &mut Transaction<'_>, range: &KeyRange) -> Result<bool, Error> {
    Ok(!page(txn, range, 1).await?.rows.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use crate::record::{AddressRow, MailboxRow};
    use crate::writer::boxed;

    fn long(octets: usize) -> AddressRow {
        AddressRow { targets: vec!["x".repeat(octets)], ..AddressRow::default() }
    }

    async fn write(fixture: &Fixture, key: &Key, row: &AddressRow) {
        fixture.store.transact(|txn| boxed(async move { put(txn, key, row) })).await.expect("it is written");
    }

    async fn pieces(fixture: &Fixture, key: &Key) -> usize {
        page(&mut fixture.store.snapshot(), &keys::chunks(key), 100).await.expect("it is read").rows.len()
    }

    #[tokio::test]
    async fn a_long_value_is_split_and_its_old_pieces_are_cleared() {
        let fixture = Fixture::new().await;
        let key = &keys::address(crate::fixture::DOMAIN, "list");
        for (octets, expect) in [(10, 0), (SPLIT_AT * 5 / 2, 3), (SPLIT_AT * 3 / 2, 2), (20, 0)] {
            write(&fixture, key, &long(octets)).await;
            let read = get::<AddressRow>(&mut fixture.store.snapshot(), key).await;
            assert_eq!((read, pieces(&fixture, key).await), (Ok(Some(long(octets))), expect), "{octets}");
        }
        write(&fixture, key, &long(SPLIT_AT * 2)).await;
        let removed = fixture.store.transact(|txn| {
            boxed(async move {
                remove::<AddressRow>(txn, key);
                Ok(())
            })
        });
        removed.await.expect("it is removed");
        assert_eq!(pieces(&fixture, key).await, 0);
    }

    #[tokio::test]
    async fn what_is_never_split_is_refused_when_it_is_long() {
        let fixture = Fixture::new().await;
        let key = &keys::mailbox(crate::fixture::ALICE, posthouse_mail::MailboxId::new(77));
        let row = &MailboxRow { name: "x".repeat(SPLIT_AT), ..MailboxRow::default() };
        let written = fixture.store.transact(|txn| boxed(async move { insert(txn, key, row) })).await;
        assert!(matches!(written, Err(Error::TooLarge { .. })));
    }

    #[tokio::test]
    async fn damaged_and_newer_rows_are_told_apart() {
        let fixture = Fixture::new().await;
        let mut txn = fixture.store.snapshot();
        let newer = decode::<MailboxRow>(&mut txn, b"k", &[9, 0]).await;
        assert_eq!(newer, Err(Error::NewerFormat { found: 9, known: 1 }));
        for value in [&[][..], &[1], &[1, 2], &[1, 0, 0xff], &[1, 1, 0, 0, 0, 1], &[0, 0]] {
            assert!(matches!(decode::<MailboxRow>(&mut txn, b"k", value).await, Err(Error::Corrupt(_))), "{value:?}");
        }
    }
}
