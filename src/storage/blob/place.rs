//! Where the bodies of a store lie: chosen once, with its engine, and known to nothing outside the blob layer.
//!
//! Every place holds the same frames, so that what a body is (compressed, checked, read in parts) does not depend on it.

use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use posthouse_mail::BlobId;

use super::Blobs;
use super::cipher::DataKey;
use super::frame::{self, CONTENT_MAX, FRAME_MAX, FrameId};
use super::row::{BlobRow, InObject, Placed};
use super::rows;
use super::segment::Segments;
use crate::engine::served::{Fetch, Served};
use crate::error::Error;

/// Octets of an object fetched at once.
const FETCH: u64 = 4 << 20;

/// Where new bodies go, and where those that lie in segments are found.
#[derive(Clone)]
pub(crate) enum Place {
    /// Files beside the embedded engine's index.
    Segments(Arc<Segments>),
    /// Rows of the engine itself.
    Rows,
    /// Rows of the engine itself; segments, if there are any, lie with the node that serves it.
    Served(Served),
}

/// The part of a content that the frames read so far hold.
struct Part {
    range: Range<u64>,
    out: Vec<u8>,
}

impl Part {
    fn new(range: Range<u64>) -> Self {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        Self { range, out: Vec::with_capacity(length.min(1 << 24)) }
    }

    /// The numbers of the frames that it needs.
    fn frames(&self) -> Range<u32> {
        let number = |place: u64| u32::try_from(place).unwrap_or(u32::MAX);
        let content_max = CONTENT_MAX as u64;
        number(self.range.start / content_max)..number(self.range.end.div_ceil(content_max))
    }

    fn add(&mut self, index: u32, content: &[u8]) {
        let begins = u64::from(index) * CONTENT_MAX as u64;
        let at = |place: u64| usize::try_from(place.saturating_sub(begins)).unwrap_or(usize::MAX).min(content.len());
        self.out.extend_from_slice(&content[at(self.range.start)..at(self.range.end)]);
    }

    fn finish(self) -> Result<Bytes, Error> {
        if self.out.len() as u64 == self.range.end - self.range.start {
            return Ok(Bytes::from(self.out));
        }
        Err(Error::Corrupt("a blob row names fewer octets than its size".to_owned()))
    }
}

impl Blobs {
    /// Reads a part, which lies within the size and is not empty.
    pub(super) async fn read_frames(
        self: &Arc<Self>,
        (blob, row): (&BlobId, &BlobRow),
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let part = Part::new(range);
        let key = self.keys.unwrap(blob, &row.key)?;
        if !row.inline.is_empty() {
            return from_row(row, &key, part);
        }
        // The row says where its frames lie: a store may have taken new bodies elsewhere before.
        if !row.object.is_empty() {
            return self.read_object(row, key, part).await;
        }
        if row.chunks > 0 {
            return self.read_rows(row, key, part).await;
        }
        match &self.place {
            Place::Segments(segments) => {
                let (segments, row) = (segments.clone(), row.clone());
                self.blocking(move || read_segments(&segments, &row, &key, part)).await
            }
            Place::Served(served) => self.read_served(served, row, key, part).await,
            Place::Rows => Err(no_segments()),
        }
    }

    async fn read_object(&self, row: &BlobRow, key: DataKey, mut part: Part) -> Result<Bytes, Error> {
        let missing = || Error::Unavailable("the body lies in an object store, and none is configured".to_owned());
        let objects = self.objects.as_ref().ok_or_else(missing)?;
        let (stage, object, wanted) = (row.stage()?, row.object()?, part.frames());
        let key = Arc::new(key);
        let mut frames = row.within_object().filter(|frame| wanted.contains(&frame.index)).peekable();
        while let Some(first) = frames.next() {
            let (mut batch, mut end) = (vec![first], first.offset + u64::from(first.stored));
            while let Some(next) = frames.next_if(|next| end - first.offset + u64::from(next.stored) <= FETCH) {
                end = next.offset + u64::from(next.stored);
                batch.push(next);
            }
            let octets = objects.read(&object, first.offset..end).await?;
            let key = key.clone();
            let expand = move || {
                let mut rest = octets;
                for InObject { index, stored, .. } in batch {
                    let frame = rest.split_to(rest.len().min(usize::try_from(stored).unwrap_or(usize::MAX)));
                    let content = frame::decode(&frame, FrameId { stage, index }, &key);
                    let place = |reason| Error::Corrupt(format!("frame {index} of object {object}: {reason}"));
                    part.add(index, &content.map_err(place)?);
                }
                Ok(part)
            };
            part = self.blocking(expand).await?;
        }
        part.finish()
    }

    async fn read_served(&self, served: &Served, row: &BlobRow, key: DataKey, mut part: Part) -> Result<Bytes, Error> {
        let (stage, wanted) = (row.stage()?, part.frames());
        let (key, mut rest) = (Arc::new(key), row.placed().filter(|placed| wanted.contains(&placed.index)).peekable());
        while rest.peek().is_some() {
            let frames = fetched_frames(served, &mut rest).await?;
            let key = key.clone();
            let expand = move || {
                for (placed, octets) in frames {
                    let content = frame::decode(&octets, FrameId { stage, index: placed.index }, &key);
                    part.add(placed.index, &content.map_err(|reason| damaged_elsewhere(placed, reason))?);
                }
                Ok(part)
            };
            part = self.blocking(expand).await?;
        }
        part.finish()
    }

    async fn read_rows(&self, row: &BlobRow, key: DataKey, mut part: Part) -> Result<Bytes, Error> {
        let (stage, wanted) = (row.stage()?, part.frames());
        let (key, mut next) = (Arc::new(key), wanted.start);
        while next < wanted.end {
            let frames = self.rows.page(&stage, next, wanted.end).await?;
            let first = next;
            next = next.saturating_add(u32::try_from(frames.len()).unwrap_or(u32::MAX));
            let key = key.clone();
            let expand = move || {
                for (index, frame) in (first..).zip(frames) {
                    let content = frame::decode(&frame, FrameId { stage, index }, &key);
                    part.add(index, &content.map_err(|reason| rows::damaged(&stage, index, reason))?);
                }
                Ok(part)
            };
            part = self.blocking(expand).await?;
        }
        part.finish()
    }
}

/// A short body, which lies in its row.
fn from_row(row: &BlobRow, key: &DataKey, mut part: Part) -> Result<Bytes, Error> {
    let content = frame::decode(&row.inline, FrameId { stage: row.stage()?, index: 0 }, key);
    part.add(0, &content.map_err(|reason| Error::Corrupt(format!("a body in its row: {reason}")))?);
    part.finish()
}

fn read_segments(segments: &Segments, row: &BlobRow, key: &DataKey, mut part: Part) -> Result<Bytes, Error> {
    let (stage, wanted) = (row.stage()?, part.frames());
    for placed in row.placed().filter(|placed| wanted.contains(&placed.index)) {
        let octets = stored_frame(segments, placed)?;
        let Placed { segment, offset, index, .. } = placed;
        let content = frame::decode(&octets, FrameId { stage, index }, key);
        part.add(index, &content.map_err(|reason| segments.damaged(segment, offset, reason))?);
    }
    part.finish()
}

/// The octets of a frame in a segment. Blocks.
pub(super) fn stored_frame(segments: &Segments, placed: Placed) -> Result<Bytes, Error> {
    let stored = frame_length(placed).map_err(|reason| segments.damaged(placed.segment, placed.offset, reason))?;
    if let Some(held) = segments.held(placed.segment, placed.offset) {
        return Ok(held);
    }
    let mut octets = vec![0; stored];
    segments.open(placed.segment)?.read(placed.offset, &mut octets)?;
    Ok(Bytes::from(octets))
}

/// The next frames of a body in the segments of another node, as many as one call brings.
pub(super) async fn fetched_frames(
    served: &Served,
    rest: &mut Peekable<impl Iterator<Item = Placed>>,
) -> Result<Vec<(Placed, Bytes)>, Error> {
    let (mut fetch, mut frames) = (Fetch::default(), Vec::new());
    while let Some(placed) = rest.peek().copied() {
        let length = frame_length(placed).map_err(|reason| damaged_elsewhere(placed, reason))?;
        if !fetch.add(placed.segment, placed.offset, length) {
            break;
        }
        frames.push(placed);
        rest.next();
    }
    let mut octets = served.fetch(fetch).await?;
    let cut = |placed: Placed| (placed, octets.split_to(octets.len().min(frame_length(placed).unwrap_or(usize::MAX))));
    Ok(frames.into_iter().map(cut).collect())
}

/// Octets of a frame, as its row has them.
fn frame_length(placed: Placed) -> Result<usize, &'static str> {
    let stored = usize::try_from(placed.stored).ok().filter(|stored| *stored <= FRAME_MAX);
    stored.ok_or("a row names a frame that is too long")
}

/// What is wrong at a place in a segment of another node.
pub(super) fn damaged_elsewhere(placed: Placed, reason: &str) -> Error {
    let (segment, offset) = (placed.segment.get(), placed.offset);
    Error::Corrupt(format!("segment {segment} of the node that serves the store, at octet {offset}: {reason}"))
}

/// A body in segments on an engine that never had any.
pub(super) fn no_segments() -> Error {
    Error::Unavailable("the body lies in segments, which this node does not have".to_owned())
}
