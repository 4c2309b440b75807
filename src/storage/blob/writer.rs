//! Streams a body into the store with a few frames of memory, whatever the body's size.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;

use super::Blobs;
use super::cipher::DataKey;
use super::frame::{self, CONTENT_MAX, FrameId, StageId};
use super::place::Place;
use super::rows::{BATCH, DIRECT_MAX, Rows, Stage};
use super::segment::Segments;
use super::staged::{Content, Run, Staged, StagedBody};
use crate::error::Error;

/// Octets of a body.
pub const BODY_MAX: u64 = posthouse_conf::storage::BODY_MAX.get();
/// Up to this size a last frame is packed on the caller's thread: handing it over would cost more.
const SMALL: usize = 16 << 10;

/// A body in the making. Dropped unfinished, nothing of it is ever referred to.
pub struct BodyWriter {
    blobs: Arc<Blobs>,
    stage: Stage,
    size: u64,
    /// Absent after an error: then the body is lost. Boxed: the state of the hash is two kilobytes, and every future that the
    /// writer passes through would hold them again.
    work: Option<Box<Work>>,
}

/// What travels to the blocking pool and back.
struct Work {
    stage: StageId,
    key: DataKey,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    output: Output,
    next_index: u32,
}

/// What a finished body is known by.
struct Packed {
    blob: BlobId,
    key: DataKey,
}

/// Where full frames went.
enum Output {
    Segments {
        segments: Arc<Segments>,
        runs: Vec<Run>,
    },
    Rows {
        rows: Rows,
        /// Frames from number `written` on that are no rows yet.
        pending: Vec<Bytes>,
        written: u32,
    },
}

impl BodyWriter {
    pub(crate) fn new(blobs: Arc<Blobs>) -> Self {
        let hasher = blobs.hasher();
        let stage = Stage { id: StageId::new(rand::random()), at: clock() };
        let output = match &blobs.place {
            Place::Segments(segments) => Output::Segments { segments: segments.clone(), runs: Vec::new() },
            Place::Rows | Place::Served(_) => {
                Output::Rows { rows: blobs.rows.clone(), pending: Vec::new(), written: 0 }
            }
        };
        // Without randomness there is no key, and no body: the first write says so.
        let key = DataKey::random().ok();
        let work =
            key.map(|key| Box::new(Work { stage: stage.id, key, hasher, buffer: Vec::new(), output, next_index: 0 }));
        Self { blobs, stage, size: 0, work }
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
                let work = self.take_frame().await?;
                self.work = Some(work.hand_over(self.stage, BATCH).await?);
                continue;
            }
            let (now, later) = chunk.split_at(chunk.len().min(CONTENT_MAX - work.buffer.len()));
            work.buffer.extend_from_slice(now);
            chunk = later;
        }
        Ok(())
    }

    /// Ends the body. A long one is durable now, so that no commit waits for it; one of a single frame will be with the commit
    /// of a transaction that it is attached to.
    pub async fn finish(mut self) -> Result<StagedBody, Error> {
        let is_long = self.work.as_ref().is_some_and(|work| work.next_index > 0);
        let (packed, content) = if is_long {
            let work = self.take_frame().await?.hand_over(self.stage, 0).await?;
            let packed = Packed { blob: work.blob(), key: work.key };
            (packed, work.output.into_durable().await?)
        } else {
            self.pack_only_frame().await?
        };
        let Packed { blob, key } = packed;
        let key = self.blobs.keys.wrap(&blob, &key)?;
        let body = BodyRef { blob, size: self.size };
        let blobs = self.blobs.clone();
        emit(event::BodyStaged { octets: body.size });
        let is_durable = AtomicBool::new(is_long);
        Ok(self.blobs.share(Staged { body, stage: self.stage, content, key, is_durable, blobs }))
    }

    /// Packs the buffered frame. The work is out of `self` until the caller brings it back: an error loses the body.
    async fn take_frame(&mut self) -> Result<Box<Work>, Error> {
        let mut work = self.work.take().ok_or_else(lost)?;
        self.blobs.blocking(move || work.put_frame().map(|()| work)).await
    }

    async fn pack_only_frame(&mut self) -> Result<(Packed, Content), Error> {
        let work = self.work.take().ok_or_else(lost)?;
        let inline_max = self.blobs.inline_max;
        let (packed, content) = match work.buffer.len() {
            0..=SMALL => work.pack(inline_max)?,
            _ => self.blobs.blocking(move || work.pack(inline_max)).await?,
        };
        match content {
            Content::Chunk { frame, .. } if frame.len() > DIRECT_MAX => {
                self.blobs.rows.put(self.stage, 0, &[frame]).await?;
                Ok((packed, Content::Chunks(1)))
            }
            content => Ok((packed, content)),
        }
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
    fn pack(mut self: Box<Self>, inline_max: usize) -> Result<(Packed, Content), Error> {
        self.hasher.update(&self.buffer);
        let blob = self.blob();
        let Self { stage, key, buffer, output, .. } = *self;
        let content = Bytes::from(buffer);
        let frame = frame::encode(&content, FrameId { stage, index: 0 }, &key)?;
        let content = match output {
            _ if content.len() <= inline_max => Content::Inline { content, frame },
            Output::Segments { segments, .. } => Content::Frame { content, frame, slot: OnceLock::new(), segments },
            Output::Rows { .. } => Content::Chunk { content, frame },
        };
        Ok((Packed { blob, key }, content))
    }

    /// Packs one frame of a longer body. Blocks.
    fn put_frame(&mut self) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        let frame = frame::encode(&self.buffer, FrameId { stage: self.stage, index: self.next_index }, &self.key)?;
        self.buffer.clear();
        self.next_index += 1;
        match &mut self.output {
            Output::Segments { segments, runs } => append(segments, runs, &frame),
            Output::Rows { pending, .. } => {
                pending.push(frame);
                Ok(())
            }
        }
    }

    /// Commits the frames that become rows once they are more than so many octets.
    async fn hand_over(mut self: Box<Self>, stage: Stage, octets_max: usize) -> Result<Box<Self>, Error> {
        if let Output::Rows { rows, pending, written } = &mut self.output
            && pending.iter().map(Bytes::len).sum::<usize>() > octets_max
        {
            rows.put(stage, *written, pending).await?;
            *written = self.next_index;
            pending.clear();
        }
        Ok(self)
    }
}

/// Writes one frame at a place of its own. Blocks.
pub(super) fn append(segments: &Segments, runs: &mut Vec<Run>, frame: &[u8]) -> Result<(), Error> {
    let slot = segments.reserve(frame.len());
    slot.segment.write(slot.offset, frame)?;
    let stored = u32::try_from(frame.len()).map_err(|_| Error::Limit { what: "octets of a frame" })?;
    match runs.last_mut() {
        Some(run) if run.ends_at(&slot) => {
            run.stored.push(stored);
            run.slots.push(slot);
        }
        _ => runs.push(Run { slots: vec![slot], stored: vec![stored] }),
    }
    Ok(())
}

/// Makes what was written durable.
pub(super) async fn sync(runs: &[Run]) -> Result<(), Error> {
    for segment in runs.iter().filter_map(|run| run.slots.first()).map(|slot| &slot.segment) {
        segment.sync_shared().await?;
    }
    Ok(())
}

impl Output {
    /// What was written, once it is durable.
    async fn into_durable(self) -> Result<Content, Error> {
        match self {
            Self::Segments { runs, .. } => {
                sync(&runs).await?;
                Ok(Content::Runs(runs))
            }
            Self::Rows { written, .. } => Ok(Content::Chunks(written)),
        }
    }
}

fn clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
