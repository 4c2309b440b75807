//! Streams a body into the store with one frame of memory, whatever the body's size.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::Blobs;
use super::frame::{self, CONTENT_MAX, FrameId};
use super::segment::Segments;
use super::staged::{Place, Run, Staged, StagedBody};
use crate::error::Error;

/// Octets of a body: its row must hold the list of its frames.
pub const BODY_MAX: u64 = 256 << 20;
/// Up to this size a last frame is packed on the caller's thread: handing it over would cost more.
const SMALL: usize = 16 << 10;

/// A body in the making. Dropped unfinished, nothing of it is ever referred to.
pub struct BodyWriter {
    blobs: Arc<Blobs>,
    stage: u64,
    size: u64,
    /// Absent after an error: then the body is lost.
    work: Option<Work>,
}

/// What travels to the blocking pool and back.
struct Work {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    runs: Vec<Run>,
    next_index: u32,
}

impl BodyWriter {
    pub(crate) fn new(blobs: Arc<Blobs>) -> Self {
        let hasher = blobs.hasher();
        let work = Work { hasher, buffer: Vec::new(), runs: Vec::new(), next_index: 0 };
        Self { blobs, stage: rand::random(), size: 0, work: Some(work) }
    }

    /// Octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends. After an error the body is lost, and so is every later call.
    pub async fn write(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        self.size = self.size.saturating_add(chunk.len() as u64);
        if self.size > BODY_MAX {
            self.work = None;
            return Err(Error::TooLarge { what: "a body", size: self.size, max: BODY_MAX });
        }
        while !chunk.is_empty() {
            let work = self.work.as_mut().ok_or_else(lost)?;
            // A full frame is written only when more follows, so that a body of one frame stays in memory.
            if work.buffer.len() == CONTENT_MAX {
                self.flush().await?;
                continue;
            }
            let (now, later) = chunk.split_at(chunk.len().min(CONTENT_MAX - work.buffer.len()));
            work.buffer.extend_from_slice(now);
            chunk = later;
        }
        Ok(())
    }

    /// Ends the body. It is durable only with the commit of a transaction that it is attached to.
    pub async fn finish(mut self) -> Result<StagedBody, Error> {
        if self.work.as_ref().is_some_and(|work| !work.runs.is_empty()) {
            self.flush().await?;
        }
        let work = self.work.take().ok_or_else(lost)?;
        let (stage, inline_max) = (self.stage, self.blobs.inline_max);
        let (blob, place) = match work.buffer.len() {
            0 if !work.runs.is_empty() => (work.blob(), Place::Frames(work.runs)),
            0..=SMALL => work.pack(stage, inline_max)?,
            _ => self.blobs.blocking(move || work.pack(stage, inline_max)).await?,
        };
        Ok(self.stage(blob, place))
    }

    fn stage(self, blob: BlobId, place: Place) -> StagedBody {
        let body = BodyRef { blob, size: self.size };
        let blobs = self.blobs.clone();
        emit(event::BodyStaged { octets: body.size });
        let is_durable = AtomicBool::new(false);
        self.blobs.share(Staged { body, stage: self.stage, staged_at: clock(), place, is_durable, blobs })
    }

    /// Writes the buffered frame out.
    async fn flush(&mut self) -> Result<(), Error> {
        let mut work = self.work.take().ok_or_else(lost)?;
        let (stage, segments) = (self.stage, self.blobs.segments.clone());
        self.work = Some(self.blobs.blocking(move || work.write(stage, &segments).map(|()| work)).await?);
        Ok(())
    }
}

fn lost() -> Error {
    Error::Unavailable("an earlier write of this body failed".to_owned())
}

impl Work {
    fn blob(&self) -> BlobId {
        BlobId::new(*self.hasher.finalize().as_bytes())
    }

    /// Packs a body of one frame.
    fn pack(mut self, stage: u64, inline_max: usize) -> Result<(BlobId, Place), Error> {
        self.hasher.update(&self.buffer);
        let blob = self.blob();
        let content = Bytes::from(self.buffer);
        if content.len() <= inline_max {
            return Ok((blob, Place::Inline(content)));
        }
        let mut out = Vec::new();
        frame::encode(&content, FrameId { stage, index: 0 }, &mut out)?;
        Ok((blob, Place::Memory { content, frame: Bytes::from(out), slot: OnceLock::new() }))
    }

    /// Writes one frame of a longer body at a place of its own.
    fn write(&mut self, stage: u64, segments: &Segments) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        let mut out = Vec::with_capacity(self.buffer.len() / 2);
        let stored = frame::encode(&self.buffer, FrameId { stage, index: self.next_index }, &mut out)?;
        self.buffer.clear();
        self.next_index += 1;
        let slot = segments.reserve(stored);
        slot.segment.write(slot.offset, &out)?;
        let stored = u32::try_from(stored).map_err(|_| Error::Limit { what: "octets of a frame" })?;
        match self.runs.last_mut() {
            Some(run) if run.ends_at(&slot) => {
                run.stored.push(stored);
                run.slots.push(slot);
            }
            _ => self.runs.push(Run { slots: vec![slot], stored: vec![stored] }),
        }
        Ok(())
    }
}

fn clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
