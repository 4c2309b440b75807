//! The row of a blob: its size and where its content lies. Prost under a version octet, as every value is.

use bytes::Bytes;
use prost::Message as _;

use super::frame::StageId;
use super::object::ObjectId;
use super::segment::SegmentNumber;
use crate::error::Error;

const VERSION: u8 = 3;

/// A blob that is present.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobRow {
    /// Octets of the content.
    #[prost(uint64, tag = "1")]
    pub(crate) size: u64,
    /// Its only frame, when that is small: then there are no others.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) inline: Bytes,
    /// Where the frames lie in segments, in the order of the content.
    #[prost(message, repeated, tag = "3")]
    pub(crate) extents: Vec<Extent>,
    /// Octets of each frame in segments or object, header included.
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) stored: Vec<u32>,
    /// The stage that the frames of this body bear.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) stage: Bytes,
    /// Frames that are rows under the stage: then there are no extents.
    #[prost(uint32, tag = "6")]
    pub(crate) chunks: u32,
    /// The key of its frames, wrapped under one of the site's.
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) key: Bytes,
    /// The object that its frames are, one after the other: then they are nowhere else.
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) object: Bytes,
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
pub(crate) struct Placed {
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u64,
    pub(crate) stored: u32,
    pub(crate) index: u32,
}

/// One frame and where it lies in its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InObject {
    pub(crate) offset: u64,
    pub(crate) stored: u32,
    pub(crate) index: u32,
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

    /// Octets per segment.
    pub(crate) fn stored_in_segments(&self) -> Vec<(SegmentNumber, i64)> {
        let mut sums: Vec<(SegmentNumber, i64)> = Vec::new();
        for placed in self.placed() {
            let stored = i64::from(placed.stored);
            match sums.iter_mut().find(|(segment, _)| *segment == placed.segment) {
                Some((_, sum)) => *sum += stored,
                None => sums.push((placed.segment, stored)),
            }
        }
        sums
    }

    /// The stage that wrote its frames.
    pub(crate) fn stage(&self) -> Result<StageId, Error> {
        let octets = self.stage.as_ref().try_into();
        octets.map(StageId::new).map_err(|_| Error::Corrupt("a blob row names no stage".to_owned()))
    }

    /// The object that its frames are.
    pub(crate) fn object(&self) -> Result<ObjectId, Error> {
        let octets = self.object.as_ref().try_into();
        octets.map(ObjectId::new).map_err(|_| Error::Corrupt("a blob row names no object".to_owned()))
    }

    /// The frames of the object.
    pub(crate) fn within_object(&self) -> impl Iterator<Item = InObject> + '_ {
        self.stored.iter().zip(0..).scan(0u64, |end, (stored, index)| {
            let offset = *end;
            *end = end.saturating_add(u64::from(*stored));
            Some(InObject { offset, stored: *stored, index })
        })
    }

    /// The frames that lie in segments.
    pub(crate) fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
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
            stage: Bytes::from_static(&[5; 16]),
            chunks: 0,
            key: Bytes::from_static(b"wrapped"),
            object: Bytes::new(),
        };
        assert_eq!(BlobRow::decode(&row.encode()), Ok(row.clone()));
        let places: Vec<_> = row.placed().map(|p| (p.segment.get(), p.offset, p.index)).collect();
        assert_eq!(places, [(1, 16, 0), (1, 26, 1), (2, 99, 2)]);
        assert_eq!(row.stored_in_segments(), [(SegmentNumber::new(1), 30), (SegmentNumber::new(2), 30)]);
    }

    #[test]
    fn a_row_of_a_newer_version_is_not_guessed_at() {
        assert_eq!(BlobRow::decode(&[9, 0]), Err(Error::NewerFormat { found: 9, known: 3 }));
        assert!(matches!(BlobRow::decode(&[]), Err(Error::Corrupt(_))));
        assert!(matches!(BlobRow::decode(&[3, 0xff]), Err(Error::Corrupt(_))));
    }
}
