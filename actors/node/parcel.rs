//! A parked session as the parcel that goes over, and back.
//!
//! Apart because here meet two crates that know nothing of each other: what a session is, and how anything moves.

use posthouse_cluster::handoff::Parcel;
use tokio::time::Instant;

use crate::session::parked::Packed;
use crate::session::{Parked, Protocol, ResumeError};

pub(super) fn pack(parked: Parked) -> Parcel {
    let Packed { protocol, octets, socket } = Packed::of(parked);
    Parcel { kind: protocol.as_str().to_owned(), state: octets, socket, since: Instant::now() }
}

pub(super) fn unpack(parcel: Parcel) -> Result<Parked, ResumeError> {
    let protocol = Protocol::of(&parcel.kind).ok_or(ResumeError::Damaged("its protocol"))?;
    Packed { protocol, octets: parcel.state, socket: parcel.socket }.unpack()
}
