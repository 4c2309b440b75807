//! The row of a blob: its size and where its content lies. Prost under a version octet, as every value is.

use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;

use super::frame::{self, CONTENT_MAX, FrameId};
use super::segment::{SegmentNumber, Segments};
use crate::error::Error;

const VERSION: u8 = 1;

/// A blob that is present.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobRow {
    /// Octets of the content.
    #[prost(uint64, tag = "1")]
    pub(crate) size: u64,
    /// The content itself, when it is small: then there are no extents.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) inline: Bytes,
    /// Where the frames lie, in the order of the content.
    #[prost(message, repeated, tag = "3")]
    pub(crate) extents: Vec<Extent>,
    /// Octets of each frame in its segment, header included.
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) stored: Vec<u32>,
    /// The number that the frames of this body bear.
    #[prost(fixed64, tag = "5")]
    pub(crate) stage: u64,
}

/// Frames that follow each other in one segment.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Extent {
    #[prost(uint32, tag = "1")]
    pub(crate) segment: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) offset: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) frames: u32,
}

/// One frame and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    segment: SegmentNumber,
    offset: u64,
    stored: u32,
    index: u32,
}

impl BlobRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(1 + self.encoded_len());
        value.push(VERSION);
        // A Vec grows as needed, so that this can't fail.
        let _ = prost::Message::encode(self, &mut value);
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Error> {
        match value.split_first() {
            Some((&VERSION, rest)) => {
                <Self as prost::Message>::decode(rest).map_err(|error| Error::Corrupt(format!("a blob row: {error}")))
            }
            Some((found, _)) => Err(Error::NewerFormat { found: u64::from(*found), known: u64::from(VERSION) }),
            None => Err(Error::Corrupt("a blob row is empty".to_owned())),
        }
    }

    /// The part when the content stands in the row.
    pub(crate) fn inline_part(&self, range: Range<u64>) -> Option<Bytes> {
        if !self.extents.is_empty() {
            return None;
        }
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(self.inline.len());
        Some(self.inline.slice(at(range.start)..at(range.end)))
    }

    /// Octets per segment.
    pub(crate) fn stored_in_segments(&self) -> Vec<(SegmentNumber, i64)> {
        let mut sums: Vec<(SegmentNumber, i64)> = Vec::new();
        for placed in self.frames() {
            let stored = i64::from(placed.stored);
            match sums.iter_mut().find(|(segment, _)| *segment == placed.segment) {
                Some((_, sum)) => *sum += stored,
                None => sums.push((placed.segment, stored)),
            }
        }
        sums
    }

    /// Reads a part, which lies within the size, from the segments. Blocks.
    pub(crate) fn read(&self, segments: &Segments, range: Range<u64>) -> Result<Bytes, Error> {
        let content_max = CONTENT_MAX as u64;
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(length.min(1 << 24));
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = range.start / content_max;
        let last = (range.end - 1) / content_max;
        for placed in self.frames().filter(|placed| (first..=last).contains(&u64::from(placed.index))) {
            let content = self.read_frame(segments, placed)?;
            let begins = u64::from(placed.index) * content_max;
            let at =
                |place: u64| usize::try_from(place.saturating_sub(begins)).unwrap_or(usize::MAX).min(content.len());
            out.extend_from_slice(&content[at(range.start)..at(range.end)]);
        }
        if out.len() != length {
            return Err(Error::Corrupt(format!("a blob row of {} octets names frames of fewer", self.size)));
        }
        Ok(Bytes::from(out))
    }

    fn read_frame(&self, segments: &Segments, placed: Placed) -> Result<Vec<u8>, Error> {
        let segment = segments.open(placed.segment)?;
        let too_long = || segment.damaged(placed.offset, "a row names a frame that is too long");
        let stored = usize::try_from(placed.stored).ok().filter(|stored| *stored <= CONTENT_MAX + frame::HEADER);
        let mut octets = vec![0; stored.ok_or_else(too_long)?];
        segment.read(placed.offset, &mut octets)?;
        frame::decode(&octets, FrameId { stage: self.stage, index: placed.index })
            .map_err(|reason| segment.damaged(placed.offset, reason))
    }

    fn frames(&self) -> impl Iterator<Item = Placed> + '_ {
        let mut stored = self.stored.iter().copied().zip(0u32..);
        self.extents.iter().flat_map(move |extent| {
            let mut offset = extent.offset;
            let count = usize::try_from(extent.frames).unwrap_or(usize::MAX);
            let mut placed = Vec::new();
            for (octets, index) in stored.by_ref().take(count) {
                placed.push(Placed { segment: SegmentNumber::new(extent.segment), offset, stored: octets, index });
                offset = offset.saturating_add(u64::from(octets));
            }
            placed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back() {
        let extent = |segment, offset, frames| Extent { segment, offset, frames };
        let row = BlobRow {
            size: 150_000,
            inline: Bytes::new(),
            extents: vec![extent(1, 16, 2), extent(2, 99, 1)],
            stored: vec![10, 20, 30],
            stage: 5,
        };
        assert_eq!(BlobRow::decode(&row.encode()), Ok(row.clone()));
        let places: Vec<_> = row.frames().map(|p| (p.segment.get(), p.offset, p.index)).collect();
        assert_eq!(places, [(1, 16, 0), (1, 26, 1), (2, 99, 2)]);
        assert_eq!(row.stored_in_segments(), [(SegmentNumber::new(1), 30), (SegmentNumber::new(2), 30)]);
    }

    #[test]
    fn a_row_of_a_newer_version_is_not_guessed_at() {
        assert_eq!(BlobRow::decode(&[9, 0]), Err(Error::NewerFormat { found: 9, known: 1 }));
        assert!(matches!(BlobRow::decode(&[]), Err(Error::Corrupt(_))));
        assert!(matches!(BlobRow::decode(&[1, 0xff]), Err(Error::Corrupt(_))));
    }
}
