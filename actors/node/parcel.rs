//! A parked session as the parcel that goes over, and back.
//!
//! Apart because here meet two crates that know nothing of each other: what a session is, and how anything moves.

use posthouse_cluster::handoff::Parcel;
use posthouse_net::FrozenStream;
use zeroize::Zeroizing;

use crate::session::{Parked, Protocol, ResumeError};

/// Octets that tell how long the stream's state is; the session's follows it.
const LENGTH: usize = 4;

/// A stream whose state is too long for its length to be told is none that a session has.
pub(super) fn pack(parked: Parked) -> Parcel {
    let stream = parked.stream.encode();
    let length = u32::try_from(stream.len()).unwrap_or(u32::MAX);
    let mut state = Zeroizing::new(Vec::with_capacity(LENGTH + stream.len() + parked.state.len()));
    state.extend_from_slice(&length.to_be_bytes());
    state.extend_from_slice(&stream);
    state.extend_from_slice(&parked.state);
    Parcel { kind: parked.protocol.as_str().to_owned(), state, socket: parked.socket }
}

pub(super) fn unpack(parcel: Parcel) -> Result<Parked, ResumeError> {
    let protocol = Protocol::of(&parcel.kind).ok_or(ResumeError::Damaged("its protocol"))?;
    let (length, rest) = parcel.state.split_first_chunk::<LENGTH>().ok_or(ResumeError::Damaged("its length"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (stream, state) = rest.split_at_checked(length).ok_or(ResumeError::Damaged("its length"))?;
    let stream = FrozenStream::decode(stream)?;
    Ok(Parked { protocol, state: state.to_vec(), stream, socket: parcel.socket })
}
