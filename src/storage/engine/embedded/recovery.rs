//! What the journal holds and the index does not, found again after a crash.
//!
//! Every epoch comes back as the layer that it was, and the last one goes on where it ended: a start takes nothing into the
//! index and syncs the journal alone. The torn tail of a record that was never acknowledged ends the journal. A sound record
//! behind it, a break in the chain of versions or a file that ends too early is damage to what was acknowledged, and the store
//! is not opened on top of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::index::{JournalKey, Position};
use super::journal::{FORMAT, HEADER, JournalFile, MAGIC, PAGE, checksum};
use super::layer::{Layer, Value};
use crate::blob::segment::{Segment, SegmentNumber, Segments};
use crate::error::{Error, from_io};

/// An epoch that the index does not hold.
#[derive(Default)]
pub(super) struct Epoch {
    pub(super) layer: Arc<Layer>,
    /// Segments with frames that only the journal has: they are held until they are back.
    pub(super) segments: BTreeMap<SegmentNumber, Arc<Segment>>,
    /// Its number and the version of its last record.
    pub(super) last: Position,
    /// Where its last record begins.
    last_at: u64,
    /// Where its next record goes.
    pub(super) end: u64,
}

/// Octets read at once while looking for records.
const LOOK: usize = 1 << 20;

struct Record {
    epoch: u64,
    version: u64,
    previous: u64,
    payload: Bytes,
    /// Where the next one begins.
    end: u64,
}

/// Reads both files behind a position of the index: the epochs that follow, the oldest first, at most one a file.
pub(super) fn recover(
    files: &[JournalFile; 2],
    key: &JournalKey,
    position: Position,
    segments: &Segments,
) -> Result<Vec<Epoch>, Error> {
    let mut replay = Replay { key, position, segments, opened: HashMap::new() };
    let (mut epochs, mut ends) = (Vec::new(), [0, 0]);
    while epochs.len() < files.len() {
        let turn = usize::from(!replay.position.epoch.is_multiple_of(2));
        let epoch = replay.file(&files[turn])?;
        if epoch.end == 0 {
            break;
        }
        ends[turn] = epoch.end;
        epochs.push(epoch);
        replay.position.epoch += 1;
    }
    for (file, end) in files.iter().zip(ends) {
        refuse_damage(file, end, key, position.epoch)?;
    }
    if let Some(last) = epochs.last() {
        settle(&files[usize::from(!last.last.epoch.is_multiple_of(2))], last)?;
    }
    Ok(epochs)
}

struct Replay<'a> {
    key: &'a JournalKey,
    /// Of the last record replayed, and the epoch that is being read.
    position: Position,
    segments: &'a Segments,
    /// Segments opened to put frames back; `None` where the segment is gone, and with it all that it held.
    opened: HashMap<SegmentNumber, Option<Arc<Segment>>>,
}

impl Replay<'_> {
    /// Replays the records of the present epoch in a file.
    fn file(&mut self, file: &JournalFile) -> Result<Epoch, Error> {
        let mut epoch = Epoch::default();
        while let Some(record) = read_record(file, epoch.end, self.key)?
            && record.epoch == self.position.epoch
        {
            if record.previous != self.position.version || record.version <= record.previous {
                return Err(damaged("a commit is missing from it"));
            }
            self.apply(&mut epoch, record.version, record.payload)?;
            self.position.version = record.version;
            (epoch.last_at, epoch.end) = (epoch.end, record.end);
        }
        epoch.last = self.position;
        if epoch.end > 0 && file.len < epoch.end + PAGE {
            return Err(damaged("a file of it was cut short"));
        }
        Ok(epoch)
    }

    fn apply(&mut self, epoch: &mut Epoch, version: u64, mut payload: Bytes) -> Result<(), Error> {
        let count = take_u32(&mut payload)?;
        let mut rows: Vec<(Bytes, Value)> = Vec::new();
        for _ in 0..count {
            let key = take_u32(&mut payload)?;
            let value = take_u32(&mut payload)?;
            // Octets of their own: a row that lives on would keep the whole record in memory.
            let key = Bytes::copy_from_slice(&take(&mut payload, key)?);
            let value = value.checked_sub(1).map(|length| take(&mut payload, length)).transpose()?;
            rows.push((key, value.map(|value| Bytes::copy_from_slice(&value))));
        }
        epoch.layer.add(version, rows);
        for _ in 0..take_u32(&mut payload)? {
            let segment = SegmentNumber::new(take_u32(&mut payload)?);
            let offset = payload.try_get_u64_le().map_err(|_| short())?;
            let length = take_u32(&mut payload)?;
            let octets = take(&mut payload, length)?;
            if let Some(segment) = self.open(segment)? {
                self.segments.hold(&segment, offset, octets);
                epoch.segments.entry(segment.number).or_insert(segment);
            }
        }
        Ok(())
    }

    fn open(&mut self, number: SegmentNumber) -> Result<Option<Arc<Segment>>, Error> {
        if let Some(opened) = self.opened.get(&number) {
            return Ok(opened.clone());
        }
        let opened = self.segments.open_to_restore(number)?;
        self.opened.insert(number, opened.clone());
        Ok(opened)
    }
}

/// The record at an offset; `None` where no sound one stands.
fn read_record(file: &JournalFile, offset: u64, key: &JournalKey) -> Result<Option<Record>, Error> {
    let room = file.len.saturating_sub(offset);
    if room < HEADER as u64 {
        return Ok(None);
    }
    let mut head = [0; HEADER];
    read(file, offset, &mut head)?;
    let mut fields = &head[MAGIC.len()..];
    if head[..MAGIC.len()] != MAGIC || fields.get_u32_le() != FORMAT {
        return Ok(None);
    }
    let (epoch, version, previous, length) =
        (fields.get_u64_le(), fields.get_u64_le(), fields.get_u64_le(), fields.get_u64_le());
    if length > room - HEADER as u64 {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    read(file, offset + HEADER as u64, &mut payload)?;
    if checksum(key, &head[..40], &payload)[..] != head[40..] {
        return Ok(None);
    }
    let end = offset + (HEADER as u64 + length).next_multiple_of(PAGE);
    Ok(Some(Record { epoch, version, previous, payload: payload.into(), end }))
}

fn read(file: &JournalFile, offset: u64, out: &mut [u8]) -> Result<(), Error> {
    file.disk.read(offset, out).map_err(|error| from_io(&error, "reading the journal"))
}

/// Behind the end of what was replayed nothing may stand that was acknowledged.
fn refuse_damage(file: &JournalFile, end: u64, key: &JournalKey, oldest_epoch: u64) -> Result<(), Error> {
    let mut offset = end;
    let mut octets = vec![0; LOOK];
    while offset + HEADER as u64 <= file.len {
        let length = usize::try_from(file.len - offset).unwrap_or(LOOK).min(LOOK);
        read(file, offset, &mut octets[..length])?;
        for page in octets[..length].chunks(PAGE as usize) {
            // What names an older epoch is none of these, sound or not.
            if may_be_of(page, oldest_epoch)
                && read_record(file, offset, key)?.is_some_and(|record| record.epoch >= oldest_epoch)
            {
                return Err(damaged("a record in the middle of it is unreadable"));
            }
            offset += PAGE;
        }
    }
    Ok(())
}

/// The last record may come from a process that was killed before its sync, or whose sync failed. It is shown from now on, so
/// it must last from now on; written again, since after a failed sync nobody knows what the disk has.
fn settle(file: &JournalFile, epoch: &Epoch) -> Result<(), Error> {
    let fail = |error| from_io(&error, "syncing the journal");
    let mut octets = vec![0; usize::try_from(epoch.end - epoch.last_at).unwrap_or(usize::MAX)];
    read(file, epoch.last_at, &mut octets)?;
    file.disk.write(epoch.last_at, &octets).map_err(fail)?;
    file.disk.sync().map_err(fail)
}

/// Whether a page begins as a record of this epoch or a later one does.
fn may_be_of(page: &[u8], oldest_epoch: u64) -> bool {
    let Some(mut fields) = page.strip_prefix(&MAGIC).filter(|fields| fields.len() >= HEADER - MAGIC.len()) else {
        return false;
    };
    fields.get_u32_le() == FORMAT && fields.get_u64_le() >= oldest_epoch
}

fn damaged(what: &str) -> Error {
    Error::Corrupt(format!(
        "the journal: {what}; restore the store from a backup, or its files from where they were moved"
    ))
}

fn short() -> Error {
    damaged("a record is shorter than what it should hold")
}

fn take_u32(payload: &mut Bytes) -> Result<u32, Error> {
    payload.try_get_u32_le().map_err(|_| short())
}

fn take(payload: &mut Bytes, length: u32) -> Result<Bytes, Error> {
    let length = usize::try_from(length).map_err(|_| short())?;
    if length > payload.len() {
        return Err(short());
    }
    Ok(payload.split_to(length))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use posthouse_conf::{Size, Storage as Settings};

    use super::*;
    use crate::engine::embedded::Embedded;
    use crate::engine::{Isolation, Kv as _, KvTxn as _};

    async fn put(engine: &Embedded, number: u32) {
        let mut txn = engine.begin();
        txn.set(format!("key {number}").as_bytes(), &number.to_le_bytes());
        txn.set(b"last", &number.to_le_bytes());
        txn.commit().await.expect("committed");
    }

    async fn last(engine: &Embedded) -> u32 {
        let value = engine.begin().get(b"last", Isolation::Snapshot).await.expect("read").expect("a row");
        u32::from_le_bytes(value.as_ref().try_into().expect("a number"))
    }

    /// The files as a kill would leave them now.
    fn copy(from: &Path) -> tempfile::TempDir {
        let to = tempfile::tempdir().expect("a directory");
        for name in ["index.redb", "journal.0", "journal.1"] {
            std::fs::copy(from.join(name), to.path().join(name)).expect("copied");
        }
        to
    }

    async fn open(dir: &Path) -> Result<Embedded, Error> {
        Embedded::open(dir, &Settings::default()).await
    }

    /// A directory whose journal holds the commits 1 to `count`, as a kill leaves it.
    async fn killed(count: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = open(dir.path()).await.expect("an engine");
        for number in 1..=count {
            put(&engine, number).await;
        }
        copy(dir.path())
    }

    fn change(dir: &Path, at: u64, octets: &[u8]) {
        let file = std::fs::OpenOptions::new().write(true).open(dir.join("journal.0")).expect("a journal");
        file.write_all_at(octets, at).expect("written");
    }

    #[tokio::test]
    async fn every_commit_outlasts_a_kill_whatever_the_journal_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        // The journal turns every few commits, with checkpoints at work meanwhile.
        let settings = Settings { journal_max: Size::kib(20), ..Settings::default() };
        let engine = Embedded::open(dir.path(), &settings).await.expect("an engine");
        let mut stamps = Vec::new();
        for number in 1..60 {
            put(&engine, number).await;
            if number % 7 != 0 {
                continue;
            }
            // The index is copied first: what a checkpoint writes into it meanwhile the journal still holds.
            let killed = copy(dir.path());
            let after = open(killed.path()).await.expect("recovered");
            assert_eq!(last(&after).await, number);
            put(&after, 1000 + number).await;
            let again = open(copy(killed.path()).path()).await.expect("recovered twice");
            assert_eq!(last(&again).await, 1000 + number);
            stamps.push(again.begin().read_version().await.expect("a version"));
        }
        assert!(stamps.is_sorted(), "{stamps:?}");
    }

    #[tokio::test]
    async fn a_torn_tail_is_dropped_and_written_over() {
        let dir = killed(3).await;
        // Each record takes one page; of the third something is missing.
        change(dir.path(), 2 * PAGE + 70, &[0xee; 8]);
        let engine = open(dir.path()).await.expect("opened");
        assert_eq!(last(&engine).await, 2);
        put(&engine, 9).await;
        engine.close().await.expect("closed");
        assert_eq!(last(&open(dir.path()).await.expect("opened")).await, 9);
    }

    #[tokio::test]
    async fn damage_before_a_sound_record_is_refused() {
        let dir = killed(3).await;
        change(dir.path(), PAGE + 70, &[0xee; 8]);
        let refused = open(dir.path()).await.map(drop);
        assert!(matches!(&refused, Err(Error::Corrupt(reason)) if reason.contains("in the middle")), "{refused:?}");
    }

    #[tokio::test]
    async fn a_missing_or_shortened_journal_is_refused() {
        let dir = killed(3).await;
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("journal.0")).expect("a journal");
        file.set_len(3 * PAGE).expect("cut");
        let refused = open(dir.path()).await.map(drop);
        assert!(matches!(&refused, Err(Error::Corrupt(reason)) if reason.contains("cut short")), "{refused:?}");
        std::fs::remove_file(dir.path().join("journal.0")).expect("removed");
        let refused = open(dir.path()).await.map(drop);
        assert!(matches!(&refused, Err(Error::Corrupt(reason)) if reason.contains("is missing")), "{refused:?}");
    }

    #[tokio::test]
    async fn an_epoch_that_is_gone_is_noticed_by_the_next() {
        let dir = killed(3).await;
        // The first record again, as if it came from an older copy of the file.
        let whole = std::fs::read(dir.path().join("journal.0")).expect("a journal");
        let page = usize::try_from(PAGE).expect("small");
        change(dir.path(), PAGE, &whole[2 * page..3 * page]);
        let refused = open(dir.path()).await.map(drop);
        assert!(
            matches!(&refused, Err(Error::Corrupt(reason)) if reason.contains("a commit is missing")),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn an_index_that_is_gone_is_not_made_anew_beside_a_journal() {
        let dir = killed(1).await;
        std::fs::remove_file(dir.path().join("index.redb")).expect("removed");
        let refused = open(dir.path()).await.map(drop);
        assert!(matches!(&refused, Err(Error::Corrupt(reason)) if reason.contains("index is missing")), "{refused:?}");
    }
}
