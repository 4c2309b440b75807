//! What the two ends say: a tag each, and a body of prost's, so that fields can be added. Numbers are never used again.

use std::os::fd::{AsFd as _, BorrowedFd};

use posthouse_net::descriptors::Frame;
use prost::Message as _;
use zeroize::Zeroizing;

use super::batch::{self, Batch};
use super::{Door, HandoffError, Hello, Parcel, Refusal};

/// Octets of any body but that of a batch.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// Octets of a reason: the rest of it is cut off.
const REASON_MAX: usize = 500;
/// Opens a greeting, so that two programs of another kind part at once.
const MAGIC: &[u8] = b"POSTHOUSE";

const HELLO: u8 = b'H';
const WELCOME: u8 = b'W';
const REFUSED: u8 = b'X';
const DOORS: u8 = b'L';
const READY: u8 = b'R';
const STORE_IS_FREE: u8 = b'F';
const SERVING: u8 = b'V';
const SESSIONS: u8 = b'S';
const RECEIVED: u8 = b'A';
const COMMIT: u8 = b'C';
const STARTED: u8 = b'G';
const DONE: u8 = b'D';
const FINISHED: u8 = b'E';

/// A message as it was received.
pub(super) enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Refused(String),
    Doors(Vec<Door>),
    Ready,
    StoreIsFree,
    Serving,
    Sessions(Batch),
    Received(Received),
    Commit(u32),
    Started(u32),
    Done,
    Finished,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HelloBody {
    #[prost(uint32, tag = "1")]
    version_min: u32,
    #[prost(uint32, tag = "2")]
    version_max: u32,
    #[prost(string, tag = "3")]
    program: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Welcome {
    /// The one that is spoken from now on.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(string, tag = "2")]
    pub(super) program: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RefusedBody {
    #[prost(string, tag = "1")]
    reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DoorsBody {
    /// In the order of the descriptors.
    #[prost(string, repeated, tag = "1")]
    kinds: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Received {
    #[prost(uint32, tag = "1")]
    pub(super) batch: u32,
    /// Parcels that stay with the giver.
    #[prost(message, repeated, tag = "2")]
    pub(super) refused: Vec<RefusedParcel>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RefusedParcel {
    /// Its place in the batch.
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BatchBody {
    #[prost(uint32, tag = "1")]
    batch: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct EmptyBody {}

/// A message that goes out; it borrows the files, which stay the sender's.
pub(super) struct Outgoing<'a> {
    pub(super) tag: u8,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Outgoing<'a> {
    fn new(tag: u8, body: &impl prost::Message) -> Self {
        Self { tag, body: body.encode_to_vec().into(), descriptors: Vec::new() }
    }

    pub(super) fn hello(own: &Hello) -> Self {
        let (version_min, version_max) = (*own.versions.start(), *own.versions.end());
        let body = HelloBody { version_min, version_max, program: own.program.clone() };
        let octets = [MAGIC, &body.encode_to_vec()].concat();
        Self { tag: HELLO, body: octets.into(), descriptors: Vec::new() }
    }

    pub(super) fn welcome(version: u32, program: &str) -> Self {
        Self::new(WELCOME, &Welcome { version, program: program.to_owned() })
    }

    pub(super) fn refused(reason: &str) -> Self {
        Self::new(REFUSED, &RefusedBody { reason: cut(reason) })
    }

    pub(super) fn doors(doors: &'a [Door]) -> Self {
        let body = DoorsBody { kinds: doors.iter().map(|door| door.kind.clone()).collect() };
        Self { descriptors: doors.iter().map(|door| door.socket.as_fd()).collect(), ..Self::new(DOORS, &body) }
    }

    pub(super) fn ready() -> Self {
        Self::new(READY, &EmptyBody {})
    }

    pub(super) fn store_is_free() -> Self {
        Self::new(STORE_IS_FREE, &EmptyBody {})
    }

    pub(super) fn serving() -> Self {
        Self::new(SERVING, &EmptyBody {})
    }

    pub(super) fn sessions(number: u32, parcels: &'a [Parcel]) -> Self {
        let descriptors = parcels.iter().map(|parcel| parcel.socket.as_fd()).collect();
        Self { tag: SESSIONS, body: batch::encode(number, parcels), descriptors }
    }

    pub(super) fn received(batch: u32, refusals: &[Refusal]) -> Self {
        let refused = refusals.iter().map(|refusal| RefusedParcel {
            index: u32::try_from(refusal.index).unwrap_or(u32::MAX),
            reason: cut(&refusal.reason),
        });
        Self::new(RECEIVED, &Received { batch, refused: refused.collect() })
    }

    pub(super) fn commit(batch: u32) -> Self {
        Self::new(COMMIT, &BatchBody { batch })
    }

    pub(super) fn started(batch: u32) -> Self {
        Self::new(STARTED, &BatchBody { batch })
    }

    pub(super) fn done() -> Self {
        Self::new(DONE, &EmptyBody {})
    }

    pub(super) fn finished() -> Self {
        Self::new(FINISHED, &EmptyBody {})
    }
}

/// The first octets of a reason.
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_MAX)].to_owned()
}

impl Message {
    /// What the frame says, or what is wrong with it.
    pub(super) fn decode(frame: Frame) -> Result<Self, String> {
        let Frame { tag, body, descriptors } = frame;
        let body = body.as_slice();
        if !matches!(tag, DOORS | SESSIONS) && !descriptors.is_empty() {
            return Err("files with a message that has none".to_owned());
        }
        let message = match tag {
            HELLO => Self::Hello(hello(body)?),
            WELCOME => Self::Welcome(parse(body)?),
            REFUSED => Self::Refused(parse::<RefusedBody>(body)?.reason),
            DOORS => {
                let kinds = parse::<DoorsBody>(body)?.kinds;
                if kinds.len() != descriptors.len() {
                    return Err(format!("{} listeners with {} files", kinds.len(), descriptors.len()));
                }
                let doors = kinds.into_iter().zip(descriptors);
                Self::Doors(doors.map(|(kind, socket)| Door { kind, socket }).collect())
            }
            READY => parse::<EmptyBody>(body).map(|_| Self::Ready)?,
            STORE_IS_FREE => parse::<EmptyBody>(body).map(|_| Self::StoreIsFree)?,
            SERVING => parse::<EmptyBody>(body).map(|_| Self::Serving)?,
            SESSIONS => Self::Sessions(batch::decode(body, descriptors)?),
            RECEIVED => Self::Received(parse(body)?),
            COMMIT => Self::Commit(parse::<BatchBody>(body)?.batch),
            STARTED => Self::Started(parse::<BatchBody>(body)?.batch),
            DONE => parse::<EmptyBody>(body).map(|_| Self::Done)?,
            FINISHED => parse::<EmptyBody>(body).map(|_| Self::Finished)?,
            unknown => return Err(format!("a message of the unknown kind {unknown}")),
        };
        Ok(message)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Welcome(_) => "WELCOME",
            Self::Refused(_) => "REFUSED",
            Self::Doors(_) => "DOORS",
            Self::Ready => "READY",
            Self::StoreIsFree => "STORE-IS-FREE",
            Self::Serving => "SERVING",
            Self::Sessions(_) => "SESSIONS",
            Self::Received(_) => "RECEIVED",
            Self::Commit(_) => "COMMIT",
            Self::Started(_) => "STARTED",
            Self::Done => "DONE",
            Self::Finished => "FINISHED",
        }
    }

    /// The error that a message is where it was not expected: a refusal is one that may come in place of any answer.
    pub(super) fn unexpected(self, step: &'static str) -> HandoffError {
        match self {
            Self::Refused(reason) => HandoffError::Refused(reason),
            other => HandoffError::Broken { step, what: format!("{} out of turn", other.name()) },
        }
    }
}

fn hello(body: &[u8]) -> Result<Hello, String> {
    let body = body.strip_prefix(MAGIC).ok_or("what is no greeting of this program")?;
    let HelloBody { version_min, version_max, program } = parse(body)?;
    Ok(Hello { program, versions: version_min..=version_max })
}

pub(super) fn parse<M: prost::Message + Default>(body: &[u8]) -> Result<M, String> {
    M::decode(body).map_err(|error| format!("what cannot be read: {error}"))
}
