//! A parked session as the parcel that goes over, and back.
//!
//! Apart because here meet two crates that know nothing of each other: what a session is, and how anything moves.

use posthouse_cluster::handoff::{Parcel, Refused};
use posthouse_obs::emit;
use posthouse_obs::event::handover::SessionNotResumed;
use tokio::task::JoinSet;
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

/// Parts with sessions that nobody takes, each in its protocol's words, all at once.
pub(super) async fn part_with(refused: Vec<Refused>, hostname: &str) {
    let mut partings = JoinSet::new();
    for Refused { parcel, reason } in refused {
        emit(SessionNotResumed { protocol: parcel.kind.clone(), reason });
        let hostname = hostname.to_owned();
        // One that nobody can read is closed.
        partings.spawn(async move { unpack(parcel)?.say_goodbye(&hostname).await });
    }
    // A client that does not listen has had its time.
    let _ = partings.join_all().await;
}
