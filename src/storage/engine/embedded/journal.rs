//! The journal: what a group of transactions writes, made durable with one write and one sync.
//!
//! Two files take turns. Each use of a file is an epoch, in which records stand one behind the other, each from the start of
//! a page, so that no later write touches the page of an acknowledged one. A file is written over from its start once the
//! index holds its epoch: its blocks are there then, and a sync has nothing but data to write. A record names the version
//! before its own: a chain with a link missing is found when it is replayed (`recovery`).
//!
//! Octets of a record, little-endian: magic 4, format 4, epoch 8, version 8, version before 8, payload length 8, checksum 16 of
//! all of that and the payload; then the payload: number of rows 4, of each its key's length 4, its value's length + 1 (0 where
//! it is cleared) 4, key, value; number of frames 4, of each its segment 4, offset 8, length 4, octets; then zeros.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::Batch;
use super::disk::{Disk, Fault, WrapFile};
use super::index::{JournalKey, Position};
use crate::blob::segment::{Segment, sync_dir};
use crate::error::{Error, from_io};

pub(super) const PAGE: u64 = 4096;
pub(super) const HEADER: usize = 56;
pub(super) const MAGIC: [u8; 4] = *b"PHjn";
pub(super) const FORMAT: u32 = 1;
/// Octets that a file grows by, written with zeros so that later syncs need not record the growth.
const GROWTH: u64 = 1 << 20;
const NAMES: [&str; 2] = ["journal.0", "journal.1"];

/// The frame of a body, with its place in a segment.
pub(super) type PlacedFrame<'a> = (&'a Arc<Segment>, u64, &'a Bytes);

/// A file of the journal, as it was opened.
pub(super) struct JournalFile {
    pub(super) disk: Box<dyn Disk>,
    pub(super) len: u64,
}

/// Both files. Their absence in a store that had them is damage: what they held is lost.
pub(super) fn open_files(dir: &Path, wrap: &WrapFile, is_new: bool) -> Result<[JournalFile; 2], Error> {
    let [first, second] = NAMES;
    Ok([open_file(dir, first, wrap, is_new)?, open_file(dir, second, wrap, is_new)?])
}

fn open_file(dir: &Path, name: &str, wrap: &WrapFile, is_new: bool) -> Result<JournalFile, Error> {
    let path = dir.join(name);
    let file = OpenOptions::new().read(true).write(true).create(is_new).truncate(false).open(&path);
    let file: File = file.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Corrupt(format!("{} is missing: restore it, or the store from a backup", path.display()))
        }
        _ => from_io(&error, "opening the journal"),
    })?;
    let disk = wrap(file);
    let len = disk.len().map_err(|error| from_io(&error, "opening the journal"))?;
    if is_new && len > 0 {
        let reason = "the index is missing beside a journal: restore it, or the store from a backup";
        return Err(Error::Corrupt(format!("{}: {reason}", dir.display())));
    }
    if is_new {
        sync_dir(dir).map_err(|error| from_io(&error, "making the journal"))?;
    }
    Ok(JournalFile { disk, len })
}

/// The journal, open for writing. Only the commit thread has it.
pub(super) struct Journal {
    files: [JournalFile; 2],
    key: JournalKey,
    /// The epoch that is being written, and where its next record goes.
    epoch: u64,
    end: u64,
    /// The version of the last record.
    version: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Goes on in an epoch, behind the records that it has.
    pub(super) fn new(files: [JournalFile; 2], key: JournalKey, (position, end): (Position, u64)) -> Self {
        Self { files, key, epoch: position.epoch, end, version: position.version, buffer: Vec::new() }
    }

    /// Octets of the epoch so far.
    pub(super) fn octets(&self) -> u64 {
        self.end
    }

    /// Where the index stands when it has taken in everything up to here.
    pub(super) fn position(&self) -> Position {
        Position { version: self.version, epoch: self.epoch + 1 }
    }

    /// Begins the next epoch. The index must hold the one before the present.
    pub(super) fn turn(&mut self) {
        self.epoch += 1;
        self.end = 0;
    }

    /// Writes a record and makes it durable. After a failed write the next record takes its place.
    pub(super) fn append(&mut self, version: u64, batch: &Batch, frames: &[PlacedFrame<'_>]) -> Result<(), Fault> {
        self.encode(version, batch, frames);
        let octets = self.buffer.len() as u64;
        let [even, odd] = &mut self.files;
        let file = if self.epoch.is_multiple_of(2) { even } else { odd };
        // One page more: a file that ends with its last record has lost something.
        file.grow(self.end + octets + PAGE)
            .and_then(|()| file.disk.write(self.end, &self.buffer))
            .map_err(|error| Fault::of_write(&error))?;
        file.disk.sync().map_err(|error| Fault::Sync(error.to_string()))?;
        self.end += octets;
        self.version = version;
        if self.buffer.capacity() as u64 > GROWTH {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn encode(&mut self, version: u64, batch: &Batch, frames: &[PlacedFrame<'_>]) {
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        for number in [self.epoch, version, self.version, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[0; 16]);
        put_length(out, batch.len());
        for (key, value) in batch.rows() {
            put_length(out, key.len());
            put_length(out, value.as_ref().map_or(0, |value| value.len() + 1));
            out.extend_from_slice(key);
            out.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        put_length(out, frames.len());
        for (segment, offset, octets) in frames {
            out.extend_from_slice(&segment.number.get().to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            put_length(out, octets.len());
            out.extend_from_slice(octets);
        }
        let length = (out.len() - HEADER) as u64;
        out[32..40].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&self.key, &out[..40], &out[HEADER..]);
        out[40..HEADER].copy_from_slice(&sum);
        out.resize(out.len().next_multiple_of(PAGE as usize), 0);
    }
}

impl JournalFile {
    fn grow(&mut self, needed: u64) -> std::io::Result<()> {
        if self.len >= needed {
            return Ok(());
        }
        let len = needed.next_multiple_of(GROWTH);
        let outcome = self.disk.write(self.len, &vec![0; usize::try_from(len - self.len).unwrap_or(usize::MAX)]);
        self.len = if outcome.is_ok() { len } else { self.disk.len()? };
        outcome
    }
}

/// Keys, values, frames and groups are far shorter than that.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn checksum(key: &JournalKey, head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(head).update(payload);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}
