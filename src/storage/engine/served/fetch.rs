//! Frames of bodies that lie in the server's segments: asked for by their places, many with one call.
//!
//! Apart from transactions: what lies at a place never changes while a row names it, so that a read needs no snapshot. The
//! frames travel as they are stored, and whoever reads them proves them.

use bytes::{Bytes, BytesMut};

use super::Served;
use super::protocol::{Answer, Call, Frames, Run};
use crate::blob::segment::SegmentNumber;
use crate::engine::Embedded;
use crate::error::Error;

/// Octets of one answer: a few dozen frames.
pub(super) const OCTETS_MAX: usize = 2 << 20;
/// Runs in one request.
const RUNS_MAX: usize = 256;

/// Frames that are asked for together.
#[derive(Default)]
pub(crate) struct Fetch {
    runs: Vec<Run>,
    octets: usize,
}

impl Fetch {
    /// Adds a frame; false when it has to wait for the next call.
    pub(crate) fn add(&mut self, segment: SegmentNumber, offset: u64, length: usize) -> bool {
        let Ok(octets) = u32::try_from(length) else { return false };
        if self.octets + length > OCTETS_MAX {
            return false;
        }
        let is_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(run) if run.segment == segment.get() && run.offset.checked_add(run.length.into()) == Some(offset) => {
                run.length += octets;
            }
            _ if is_full => return false,
            _ => self.runs.push(Run { segment: segment.get(), offset, length: octets }),
        }
        self.octets += length;
        true
    }
}

impl Served {
    /// The octets of the frames, one behind the other.
    pub(crate) async fn fetch(&self, fetch: Fetch) -> Result<Bytes, Error> {
        let wanted = fetch.octets;
        match self.client.read(Call::Frames(Frames { runs: fetch.runs })).await? {
            Answer::Frames(octets) if octets.len() == wanted => Ok(octets),
            _ => Err(Error::Unavailable("the server answered something else".to_owned())),
        }
    }
}

impl Frames {
    /// Octets of the answer.
    pub(super) fn octets(&self) -> usize {
        let lengths = self.runs.iter().map(|run| usize::try_from(run.length).unwrap_or(usize::MAX));
        lengths.fold(0, usize::saturating_add)
    }
}

/// Reads what a client asks for.
pub(super) async fn read(engine: &Embedded, frames: Frames) -> Result<Bytes, Error> {
    let octets = frames.octets();
    if octets > OCTETS_MAX || frames.runs.len() > RUNS_MAX {
        return Err(Error::Unavailable("frames beyond the bound of one call were asked for".to_owned()));
    }
    let segments = engine.segments();
    let read = move || {
        let mut out = BytesMut::zeroed(octets);
        let mut rest = &mut out[..];
        for run in frames.runs {
            let (run_octets, behind) = rest.split_at_mut(usize::try_from(run.length).unwrap_or(usize::MAX));
            segments.open(SegmentNumber::new(run.segment))?.read(run.offset, run_octets)?;
            rest = behind;
        }
        Ok(out.freeze())
    };
    engine.blocking(read).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_run_and_bounds_end_a_call() {
        let segment = SegmentNumber::new(3);
        let mut fetch = Fetch::default();
        assert!(fetch.add(segment, 16, 100) && fetch.add(segment, 116, 50) && fetch.add(segment, 999, 1));
        assert!(fetch.add(SegmentNumber::new(4), 1000, 1));
        let runs: Vec<_> = fetch.runs.iter().map(|run| (run.segment, run.offset, run.length)).collect();
        assert_eq!(runs, [(3, 16, 150), (3, 999, 1), (4, 1000, 1)]);
        assert_eq!(fetch.octets, 152);
        assert!(!fetch.add(segment, 0, OCTETS_MAX - 151) && fetch.add(segment, 0, OCTETS_MAX - 152));
        let mut scattered = Fetch::default();
        let taken = (0..).take_while(|place| scattered.add(segment, place * 10, 1)).count();
        assert_eq!(taken, RUNS_MAX);
    }
}
