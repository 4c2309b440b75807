//! A body that is written but may have no row yet. Its last handle gone without a commit, it is an orphan in its place.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use posthouse_mail::stage::BodyRef;

use super::Blobs;
use super::row::{BlobRow, Extent};
use super::rows::Stage;
use super::segment::{Segment, Segments, Slot};

/// A handle on a staged body; clones share it. While one lives, the body can be read and attached.
#[derive(Clone)]
pub struct StagedBody {
    pub body: BodyRef,
    pub(crate) staged: Arc<Staged>,
}

impl std::fmt::Debug for StagedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.body.fmt(f)
    }
}

/// What there is of a staged body, and where.
pub(crate) enum Content {
    /// Small enough for its row.
    Inline { content: Bytes, frame: Bytes },
    /// One frame, which the commit thread writes into a segment with those of its neighbours.
    Frame { content: Bytes, frame: Bytes, slot: OnceLock<Slot>, segments: Arc<Segments> },
    /// Written into segments frame by frame as it came.
    Runs(Vec<Run>),
    /// One frame, which becomes a row with the blob's own.
    Chunk { content: Bytes, frame: Bytes },
    /// So many frames, committed as rows as they came.
    Chunks(u32),
}

/// Frames written one after the other into one segment; `slots` keeps each place reserved.
pub(crate) struct Run {
    pub(crate) slots: Vec<Slot>,
    pub(crate) stored: Vec<u32>,
}

impl Run {
    /// Whether a frame at this place continues the run.
    pub(crate) fn ends_at(&self, slot: &Slot) -> bool {
        self.slots.last().zip(self.stored.last()).is_some_and(|(last, stored)| {
            Arc::ptr_eq(&last.segment, &slot.segment) && last.offset + u64::from(*stored) == slot.offset
        })
    }
}

pub(crate) struct Staged {
    pub(crate) body: BodyRef,
    pub(crate) stage: Stage,
    pub(crate) content: Content,
    /// The key of its frames, wrapped.
    pub(crate) key: Bytes,
    /// Set once a sync covered everything written.
    pub(super) is_durable: AtomicBool,
    pub(crate) blobs: Arc<Blobs>,
}

impl Staged {
    /// The row of this body. A place in a segment is reserved at the first call and stays the same.
    pub(crate) fn row(&self) -> BlobRow {
        let stage = Bytes::copy_from_slice(self.stage.id.as_bytes());
        let mut row = BlobRow { size: self.body.size, stage, key: self.key.clone(), ..BlobRow::default() };
        match &self.content {
            Content::Inline { frame, .. } => row.inline = frame.clone(),
            Content::Frame { frame, slot, segments, .. } => {
                let slot = slot.get_or_init(|| segments.reserve(frame.len()));
                row.extents.push(extent(slot, 1));
                // A frame is far shorter than that.
                row.stored.push(u32::try_from(frame.len()).unwrap_or(u32::MAX));
            }
            Content::Runs(runs) => {
                for run in runs {
                    let frames = u32::try_from(run.slots.len()).unwrap_or(u32::MAX);
                    row.extents.extend(run.slots.first().map(|slot| extent(slot, frames)));
                    row.stored.extend(&run.stored);
                }
            }
            Content::Chunk { .. } => row.chunks = 1,
            Content::Chunks(count) => row.chunks = *count,
        }
        row
    }

    /// A part of the content, when it is at hand.
    pub(crate) fn in_memory(&self, range: Range<u64>) -> Option<Bytes> {
        let content = match &self.content {
            Content::Inline { content, .. } | Content::Frame { content, .. } | Content::Chunk { content, .. } => {
                content
            }
            Content::Runs(_) | Content::Chunks(_) => return None,
        };
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(content.len());
        let end = at(range.end);
        Some(content.slice(at(range.start).min(end)..end))
    }

    /// The frame that the commit thread has to write, unless it has done so.
    pub(crate) fn unwritten(&self) -> Option<(&Arc<Segment>, u64, &Bytes)> {
        match &self.content {
            Content::Frame { frame, slot, .. } if !self.is_durable() => {
                slot.get().map(|slot| (&slot.segment, slot.offset, frame))
            }
            _ => None,
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Acquire)
    }

    /// A sync has covered everything written.
    pub(crate) fn set_durable(&self) {
        self.is_durable.store(true, Ordering::Release);
    }

    /// Octets that its commit writes besides its rows.
    pub(crate) fn weight(&self) -> usize {
        match &self.content {
            Content::Frame { frame, .. } => frame.len(),
            Content::Inline { .. } | Content::Runs(_) | Content::Chunk { .. } | Content::Chunks(_) => 0,
        }
    }
}

fn extent(slot: &Slot, frames: u32) -> Extent {
    Extent { segment: slot.segment.number.get(), offset: slot.offset, frames }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.blobs.forget(&self.body.blob);
    }
}
