//! What travels between the client of a served engine and its server: one message a frame, each request with an id.
//!
//! Messages are prost's, so that fields can be added; numbers are never used again. A server answers requests in any order.
//! The first request of a connection is `Hello`: two programs that share no version part there, with words that say which
//! of them is older.

use std::ops::RangeInclusive;

use bytes::Bytes;
use prost::{Message, Oneof};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::LengthDelimitedCodec;

use crate::engine::MAX_TXN;
use crate::error::Error;

/// The versions of this protocol that the program speaks.
pub(super) const VERSIONS: RangeInclusive<u32> = 1..=1;
/// Octets of a frame: the largest transaction with what its encoding adds to very short rows.
pub(super) const FRAME_MAX: usize = 4 * MAX_TXN;
/// What may stand in a frame around a commit.
const FRAME_HEAD: usize = 64;

/// A connection that carries the protocol.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A length of four octets, then the message.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

/// Whether a commit can be sent at all.
pub(super) fn check_frame(commit: &Commit) -> Result<(), Error> {
    let (size, max) = (commit.encoded_len(), FRAME_MAX - FRAME_HEAD);
    if size > max {
        return Err(Error::TooLarge { what: "a transaction", size: size as u64, max: max as u64 });
    }
    Ok(())
}

/// Reads a frame's message.
pub(super) fn decode<M: Message + Default>(frame: impl bytes::Buf) -> Result<M, Error> {
    M::decode(frame).map_err(|error| Error::Unavailable(format!("the peer sent what is no message: {error}")))
}

/// The process that a client is, for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Incarnation(pub(super) u128);

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    /// Zero where no answer is wanted.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Call", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub(super) call: Option<Call>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Call {
    #[prost(message, tag = "2")]
    Hello(Hello),
    #[prost(message, tag = "3")]
    Ping(Ping),
    #[prost(message, tag = "4")]
    Version(Reader),
    #[prost(message, tag = "5")]
    Get(Get),
    #[prost(message, tag = "6")]
    Range(Range),
    #[prost(message, tag = "7")]
    Commit(Box<Commit>),
    /// The transaction reads no more.
    #[prost(message, tag = "8")]
    Forget(Reader),
    /// Answered when the key changes; the request's id names the watch.
    #[prost(message, tag = "9")]
    Watch(Watch),
    /// Ends the watch of that id.
    #[prost(uint64, tag = "10")]
    Unwatch(u64),
    /// Frames of bodies as they lie in the server's segments.
    #[prost(message, tag = "11")]
    Frames(Frames),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) version_min: u32,
    #[prost(uint32, tag = "2")]
    pub(super) version_max: u32,
    /// Bits of what the sender can beyond its version; unknown ones are passed over.
    #[prost(uint64, tag = "3")]
    pub(super) features: u64,
    /// Sixteen octets: an `Incarnation`.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) incarnation: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Ping {}

/// A transaction that reads.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Reader {
    #[prost(uint64, tag = "1")]
    pub(super) transaction: u64,
    /// Nothing was read yet: the server takes the snapshot now.
    #[prost(bool, tag = "2")]
    pub(super) is_first: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Get {
    #[prost(message, required, tag = "1")]
    pub(super) reader: Reader,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Range {
    #[prost(message, required, tag = "1")]
    pub(super) reader: Reader,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) begin: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) end: Bytes,
    #[prost(uint64, tag = "4")]
    pub(super) limit: u64,
    #[prost(uint64, tag = "5")]
    pub(super) bytes: u64,
    #[prost(bool, tag = "6")]
    pub(super) reverse: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Watch {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
}

/// Places in segments, whose octets follow each other in the answer. The server does not know what they hold: who asks has
/// their row, and finds by their checksums and tags whether they are what it names.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Frames {
    #[prost(message, repeated, tag = "1")]
    pub(super) runs: Vec<Run>,
}

/// Frames one behind the other in one segment.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Run {
    #[prost(uint32, tag = "1")]
    pub(super) segment: u32,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
    #[prost(uint32, tag = "3")]
    pub(super) length: u32,
}

/// A transaction's reads and writes. `counter` and the client's incarnation name it for ever: whoever repeats it gets the
/// outcome of the first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Commit {
    #[prost(uint64, tag = "1")]
    pub(super) counter: u64,
    /// The server's time when the client heard of it last: where the row of the outcome lies.
    #[prost(uint32, tag = "2")]
    pub(super) bucket: u32,
    /// It may have been sent before.
    #[prost(bool, tag = "3")]
    pub(super) is_repeat: bool,
    /// The transaction whose snapshot its reads were made in.
    #[prost(uint64, optional, tag = "4")]
    pub(super) snapshot: Option<u64>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) read_keys: Vec<Bytes>,
    #[prost(message, repeated, tag = "6")]
    pub(super) read_ranges: Vec<KeyRange>,
    #[prost(message, repeated, tag = "7")]
    pub(super) changes: Vec<Change>,
    #[prost(message, repeated, tag = "8")]
    pub(super) write_ranges: Vec<KeyRange>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyRange {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) begin: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Change {
    #[prost(oneof = "ChangeKind", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) kind: Option<ChangeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ChangeKind {
    #[prost(message, tag = "1")]
    Set(Row),
    #[prost(bytes = "bytes", tag = "2")]
    Clear(Bytes),
    #[prost(message, tag = "3")]
    ClearRange(KeyRange),
    #[prost(message, tag = "4")]
    Atomic(Operation),
    #[prost(message, tag = "5")]
    StampedKey(StampedKey),
    #[prost(message, tag = "6")]
    StampedValue(StampedValue),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Row {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(uint32, tag = "2")]
    pub(super) operation: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) argument: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StampedKey {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prefix: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) suffix: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StampedValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) prefix: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) suffix: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    /// The server's time.
    #[prost(uint32, tag = "3")]
    Pong(u32),
    /// The version of a snapshot.
    #[prost(uint64, tag = "4")]
    Version(u64),
    #[prost(message, tag = "5")]
    Value(Value),
    #[prost(message, tag = "6")]
    Page(Page),
    #[prost(message, tag = "7")]
    Committed(Committed),
    #[prost(message, tag = "8")]
    Fired(Ping),
    #[prost(message, tag = "9")]
    Failed(Failed),
    #[prost(bytes = "bytes", tag = "10")]
    Frames(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(uint64, tag = "2")]
    pub(super) features: u64,
    #[prost(uint32, tag = "3")]
    pub(super) bucket: u32,
    /// Names the store for ever, so that a client never goes on with another one.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) store: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    /// Of the snapshot.
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Page {
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) rows: Vec<Row>,
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Committed {
    #[prost(uint64, tag = "1")]
    pub(super) version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) stamp: Bytes,
}

/// An error of the engine: see `failure.rs`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Failed {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(uint64, tag = "3")]
    pub(super) size: u64,
    #[prost(uint64, tag = "4")]
    pub(super) max: u64,
}

/// What both ends agree on.
pub(super) fn agree(theirs: (u32, u32)) -> Result<u32, Error> {
    let common = theirs.1.min(*VERSIONS.end());
    if common >= theirs.0.max(*VERSIONS.start()) {
        return Ok(common);
    }
    let older = if theirs.0 > *VERSIONS.end() { "this program" } else { "the peer" };
    Err(Error::Unavailable(format!(
        "no common version of the store's protocol: the peer speaks {} to {}, this program {} to {}; upgrade {older}",
        theirs.0,
        theirs.1,
        VERSIONS.start(),
        VERSIONS.end()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken_and_none_is_refused_by_name() {
        assert_eq!(agree((1, 1)), Ok(1));
        assert_eq!(agree((1, 9)), Ok(1));
        assert_eq!(agree((0, 1)), Ok(1));
        let Err(Error::Unavailable(words)) = agree((2, 3)) else { panic!("nothing in common") };
        assert!(words.ends_with("upgrade this program"), "{words}");
        let Err(Error::Unavailable(words)) = agree((0, 0)) else { panic!("nothing in common") };
        assert!(words.ends_with("upgrade the peer"), "{words}");
    }

    #[test]
    fn a_hello_keeps_its_octets() {
        // Golden: what a released client sends must be read for ever.
        let hello = Hello { version_min: 1, version_max: 2, features: 3, incarnation: Bytes::from_static(&[7; 16]) };
        let request = Request { id: 5, call: Some(Call::Hello(hello)) };
        let octets = request.encode_to_vec();
        assert_eq!(octets[..10], [8, 5, 18, 24, 8, 1, 16, 2, 24, 3]);
        assert_eq!(decode::<Request>(octets.as_slice()), Ok(request));
    }
}
