//! Segment files: bodies appended at offsets that are reserved first and written in parallel.
//!
//! A file gets new bodies only from the process that made it: after a restart always comes a new number, since what an old
//! file holds behind its last committed frame is unknown. Reserving never blocks; the commit thread makes the next file
//! ahead.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use crate::error::{Error, from_io};

const MAGIC: [u8; 8] = *b"PHseg\0\0\x01";
/// Magic, number, zeros.
const HEADER: u64 = 16;
const SUFFIX: &str = ".seg";

/// Which segment; never used again in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentNumber(u32);

impl SegmentNumber {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    fn file_name(self) -> String {
        format!("{:08}{SUFFIX}", self.0)
    }
}

/// An open segment.
pub(crate) struct Segment {
    pub(crate) number: SegmentNumber,
    path: PathBuf,
    file: File,
    /// The header is there. It comes with the first frame: a full disk has room for a name, but for no octet.
    has_header: AtomicBool,
    /// Slots handed out that are not committed or dropped yet; a segment with some is not swept.
    slots: AtomicUsize,
    /// Writes that ended.
    written: AtomicU64,
    /// Of how many writes the last sync was; nothing once one failed, since a later one could not tell what is lost.
    synced: Mutex<Option<u64>>,
    /// Whose turn it is to sync for all who wait.
    turn: tokio::sync::Mutex<()>,
}

impl Segment {
    fn new(number: SegmentNumber, path: PathBuf, file: File) -> Self {
        let (slots, written) = (AtomicUsize::new(0), AtomicU64::new(0));
        let has_header = AtomicBool::new(false);
        let (synced, turn) = (Mutex::new(Some(0)), tokio::sync::Mutex::new(()));
        Self { number, path, file, has_header, slots, written, synced, turn }
    }

    pub(crate) fn write(&self, offset: u64, octets: &[u8]) -> Result<(), Error> {
        let fail = |error| from_io(&error, "writing a segment");
        if !self.has_header.load(Ordering::Acquire) {
            self.file.write_all_at(&header(self.number), 0).map_err(fail)?;
            self.has_header.store(true, Ordering::Release);
        }
        self.file.write_all_at(octets, offset).map_err(fail)?;
        self.written.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) fn read(&self, offset: u64, octets: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(octets, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&self.path, offset, "the file ends within a frame"),
            _ => from_io(&error, "reading a segment"),
        })
    }

    /// Makes what was written durable; who waits here takes no thread, and shares the next sync with all who wait then.
    pub(crate) async fn sync_shared(self: &Arc<Self>) -> Result<(), Error> {
        let fail = |error| from_io(&error, "syncing a segment");
        let wanted = self.written.load(Ordering::Acquire);
        let _turn = self.turn.lock().await;
        // Held by a sync that does not wait here: then the pool waits for it.
        if self.synced.try_lock().is_ok_and(|synced| synced.is_some_and(|done| done >= wanted)) {
            return Ok(());
        }
        let segment = self.clone();
        let synced = tokio::task::spawn_blocking(move || segment.sync_up_to(wanted)).await;
        synced.map_err(|error| Error::Unavailable(format!("a sync ended early: {error}")))?.map_err(fail)
    }

    /// Makes what was written durable. Blocks for long.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.sync_up_to(self.written.load(Ordering::Acquire))
    }

    fn sync_up_to(&self, wanted: u64) -> std::io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let done = synced.ok_or_else(|| std::io::Error::other("an earlier sync of the segment failed"))?;
        if done >= wanted {
            return Ok(());
        }
        let covered = self.written.load(Ordering::Acquire);
        *synced = None;
        self.file.sync_data()?;
        *synced = Some(covered);
        Ok(())
    }
}

fn damaged(path: &Path, offset: u64, reason: &str) -> Error {
    Error::Corrupt(format!("{} at octet {offset}: {reason}", path.display()))
}

/// A place in a segment that belongs to one body.
pub(crate) struct Slot {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.segment.slots.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All segments of a directory.
pub(crate) struct Segments {
    dir: PathBuf,
    segment_max: u64,
    open_max: usize,
    state: Mutex<State>,
    /// Frames that a crash left in the journal alone, on their way back into their files and read from here meanwhile.
    held: RwLock<BTreeMap<(SegmentNumber, u64), HeldFrame>>,
}

type HeldFrame = (Arc<Segment>, Bytes);

struct State {
    active: Arc<Segment>,
    /// The first free octet of the active segment.
    end: u64,
    spare: Option<Arc<Segment>>,
    /// Former active segments in which slots may still be open.
    leaving: Vec<Arc<Segment>>,
    next: SegmentNumber,
    /// Files open for reading, with the time of their last use in `clock` ticks.
    open: HashMap<SegmentNumber, (Arc<Segment>, u64)>,
    clock: u64,
}

impl Segments {
    /// Opens the directory and starts a new segment in it.
    pub(crate) fn open_dir(dir: &Path, segment_max: u64, open_max: usize) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| from_io(&error, "making the segment directory"))?;
        let last = numbers(dir)?.into_iter().max().map_or(0, SegmentNumber::get);
        let number = SegmentNumber(last.checked_add(1).ok_or(Error::Limit { what: "segments" })?);
        let state = State {
            active: create(dir, number)?,
            end: HEADER,
            spare: None,
            leaving: Vec::new(),
            next: SegmentNumber(number.0.saturating_add(1)),
            open: HashMap::new(),
            clock: 0,
        };
        Ok(Self { dir: dir.to_owned(), segment_max, open_max, state: Mutex::new(state), held: RwLock::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for some octets. The active segment grows past its size when no spare is at hand.
    pub(crate) fn reserve(&self, octets: usize) -> Slot {
        let octets = octets as u64;
        let mut state = self.lock();
        if state.end.saturating_add(octets) > self.segment_max
            && let Some(spare) = state.spare.take()
        {
            let full = std::mem::replace(&mut state.active, spare);
            state.leaving.push(full);
            state.end = HEADER;
        }
        let offset = state.end;
        state.end += octets;
        let segment = state.active.clone();
        segment.slots.fetch_add(1, Ordering::AcqRel);
        Slot { segment, offset }
    }

    /// Makes the next segment while the active one has still some room. Blocks; called by the commit thread.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let number = {
            let mut state = self.lock();
            if state.spare.is_some() || state.end < self.segment_max / 4 * 3 {
                return Ok(());
            }
            let number = state.next;
            state.next = SegmentNumber(number.0.checked_add(1).ok_or(Error::Limit { what: "segments" })?);
            number
        };
        let spare = create(&self.dir, number)?;
        self.lock().spare = Some(spare);
        Ok(())
    }

    /// A segment for reading. Blocks.
    pub(crate) fn open(&self, number: SegmentNumber) -> Result<Arc<Segment>, Error> {
        {
            let mut state = self.lock();
            state.clock += 1;
            let now = state.clock;
            if state.active.number == number {
                return Ok(state.active.clone());
            }
            if let Some((segment, used)) = state.open.get_mut(&number) {
                *used = now;
                return Ok(segment.clone());
            }
        }
        let path = self.dir.join(number.file_name());
        let file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Corrupt(format!("{} is missing", path.display())),
            _ => from_io(&error, "opening a segment"),
        })?;
        let segment = Arc::new(Segment::new(number, path, file));
        self.keep_open(&segment);
        Ok(segment)
    }

    /// A segment to put frames back into that the journal kept; `None` where it was removed since. Blocks.
    pub(crate) fn open_to_restore(&self, number: SegmentNumber) -> Result<Option<Arc<Segment>>, Error> {
        let path = self.dir.join(number.file_name());
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(Arc::new(Segment::new(number, path, file)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_io(&error, "opening a segment")),
        }
    }

    /// Keeps a frame until `put_back` has written it.
    pub(crate) fn hold(&self, segment: &Arc<Segment>, offset: u64, frame: Bytes) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.insert((segment.number, offset), (segment.clone(), frame));
    }

    /// A frame that is not back in its file yet.
    pub(super) fn held(&self, number: SegmentNumber, offset: u64) -> Option<Bytes> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&(number, offset)).map(|(_, frame)| frame.clone())
    }

    /// Writes what is held into its files, in the order of its places. After an error all of it is still held. Blocks.
    pub(crate) fn put_back(&self) -> Result<(), Error> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        for ((_, offset), (segment, frame)) in &held {
            segment.write(*offset, frame)?;
        }
        self.held.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn keep_open(&self, segment: &Arc<Segment>) {
        let mut state = self.lock();
        if state.open.len() >= self.open_max
            && let Some(oldest) = state.open.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number)
        {
            state.open.remove(&oldest);
        }
        let now = state.clock;
        state.open.insert(segment.number, (segment.clone(), now));
    }

    /// Segments that no body is being written to.
    pub(crate) fn sealed(&self) -> Result<Vec<SegmentNumber>, Error> {
        let mut all = numbers(&self.dir)?;
        all.sort_unstable();
        let mut state = self.lock();
        state.leaving.retain(|segment| segment.slots.load(Ordering::Acquire) > 0);
        let spare = state.spare.as_ref().map(|spare| spare.number);
        let is_leaving = |number: SegmentNumber| state.leaving.iter().any(|segment| segment.number == number);
        // A spare in the making has a number above the active one.
        all.retain(|number| *number < state.active.number && Some(*number) != spare && !is_leaving(*number));
        drop(state);
        Ok(all)
    }

    /// As `sealed`, with the octets of frames in each.
    pub(crate) fn sealed_sizes(&self) -> Result<Vec<(SegmentNumber, u64)>, Error> {
        let mut sizes = Vec::new();
        for number in self.sealed()? {
            match std::fs::metadata(self.dir.join(number.file_name())) {
                Ok(meta) => sizes.push((number, meta.len().saturating_sub(HEADER))),
                // A sweep removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(from_io(&error, "looking at a segment")),
            }
        }
        Ok(sizes)
    }

    /// What is wrong at a place in a segment.
    pub(crate) fn damaged(&self, number: SegmentNumber, offset: u64, reason: &str) -> Error {
        damaged(&self.dir.join(number.file_name()), offset, reason)
    }

    /// Removes a segment's file and returns the octets it freed.
    pub(crate) fn unlink(&self, number: SegmentNumber) -> Result<u64, Error> {
        self.lock().open.remove(&number);
        let path = self.dir.join(number.file_name());
        let octets = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        match std::fs::remove_file(&path) {
            // One without frames goes with the process that made it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(from_io(&error, "removing a segment")),
            Ok(()) => Ok(octets),
        }
    }
}

impl Drop for Segments {
    /// Removes what this process made and wrote nothing into: else each start that fails on a full disk would leave a file.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for segment in std::iter::once(&state.active).chain(&state.spare) {
            if !segment.has_header.load(Ordering::Acquire) {
                // It stays an empty file that a sweep removes.
                let _ = std::fs::remove_file(&segment.path);
            }
        }
    }
}

/// Makes an empty segment whose name is durable.
fn create(dir: &Path, number: SegmentNumber) -> Result<Arc<Segment>, Error> {
    let path = dir.join(number.file_name());
    let fail = |error: std::io::Error| from_io(&error, "making a segment");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(fail)?;
    sync_dir(dir).map_err(fail)?;
    Ok(Arc::new(Segment::new(number, path, file)))
}

fn header(number: SegmentNumber) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&number.0.to_le_bytes());
    header
}

/// A new name in a directory is durable only after this.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn numbers(dir: &Path) -> Result<Vec<SegmentNumber>, Error> {
    let fail = |error: std::io::Error| from_io(&error, "listing segments");
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|digits| digits.parse().ok());
        numbers.extend(number.map(SegmentNumber));
    }
    Ok(numbers)
}
