//! A batch of sessions as octets: a head that tells kinds and sizes, then the states one after the other.
//!
//! The states stand outside of prost's messages, for prost copies what it reads into buffers that nobody wipes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use posthouse_net::descriptors::DESCRIPTORS_MAX;
use prost::Message as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Parcel;
use super::message::parse;

/// Octets of a session's state, with the name of its kind. Most have a few hundred; one with a long answer that its client does
/// not read has more.
pub const STATE_MAX: usize = 16 * 1024 * 1024;
/// Sessions in a batch: their sockets go in one frame.
const PARCELS_MAX: usize = DESCRIPTORS_MAX;
/// Octets of a batch's parcels: one of the largest, or many.
const OCTETS_MAX: usize = STATE_MAX + PARCEL_HEAD_MAX;
/// What the head says of a parcel beside the name of its kind.
const PARCEL_HEAD_MAX: usize = 32;
/// The length of the head, and the number of the batch.
const BATCH_HEAD_MAX: usize = 16;
/// Octets of a batch as a frame's body.
pub(super) const BODY_MAX: usize = OCTETS_MAX + BATCH_HEAD_MAX;

/// A batch as it was received.
pub(super) struct Batch {
    pub(super) number: u32,
    pub(super) parcels: Vec<Parcel>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BatchHead {
    #[prost(uint32, tag = "1")]
    number: u32,
    /// In the order of the descriptors and of the states.
    #[prost(message, repeated, tag = "2")]
    parcels: Vec<ParcelHead>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ParcelHead {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint32, tag = "2")]
    size: u32,
}

/// Octets that a parcel counts for.
fn weight(parcel: &Parcel) -> usize {
    parcel.kind.len() + parcel.state.len() + PARCEL_HEAD_MAX
}

/// Whether a parcel can go at all.
pub(super) fn fits(parcel: &Parcel) -> bool {
    parcel.kind.len() + parcel.state.len() <= STATE_MAX
}

/// Takes off what goes into one batch; every parcel fits.
pub(super) fn next(parcels: &mut VecDeque<Parcel>) -> Vec<Parcel> {
    let (mut batch, mut octets) = (Vec::new(), 0);
    while batch.len() < PARCELS_MAX
        && let Some(parcel) = parcels.pop_front_if(|parcel| octets + weight(parcel) <= OCTETS_MAX)
    {
        octets += weight(&parcel);
        batch.push(parcel);
    }
    batch
}

pub(super) fn encode(number: u32, parcels: &[Parcel]) -> Zeroizing<Vec<u8>> {
    let size = |parcel: &Parcel| u32::try_from(parcel.state.len()).expect("a state is bounded");
    let heads = parcels.iter().map(|parcel| ParcelHead { kind: parcel.kind.clone(), size: size(parcel) });
    let head = BatchHead { number, parcels: heads.collect() }.encode_to_vec();
    let states: usize = parcels.iter().map(|parcel| parcel.state.len()).sum();
    // Of its full size at once: what grows by and by leaves copies that nobody wipes.
    let mut body = Zeroizing::new(Vec::with_capacity(4 + head.len() + states));
    body.extend_from_slice(&u32::try_from(head.len()).expect("a batch is bounded").to_be_bytes());
    body.extend_from_slice(&head);
    for parcel in parcels {
        body.extend_from_slice(&parcel.state);
    }
    body
}

pub(super) fn decode(body: &[u8], descriptors: Vec<OwnedFd>) -> Result<Batch, String> {
    let (length, rest) = body.split_first_chunk().ok_or("a batch without a head")?;
    let length = u32::from_be_bytes(*length) as usize;
    let (head, mut states) = rest.split_at_checked(length).ok_or("a batch with half a head")?;
    let head: BatchHead = parse(head)?;
    if head.parcels.len() != descriptors.len() {
        return Err(format!("{} sessions with {} files", head.parcels.len(), descriptors.len()));
    }
    let (since, mut parcels) = (Instant::now(), Vec::with_capacity(descriptors.len()));
    for (parcel, socket) in head.parcels.into_iter().zip(descriptors) {
        let size = parcel.size as usize;
        if size > STATE_MAX {
            return Err(format!("a session of {size} octets, at most {STATE_MAX} are taken"));
        }
        let (state, rest) = states.split_at_checked(size).ok_or("a batch that ends in a state")?;
        states = rest;
        parcels.push(Parcel { kind: parcel.kind, state: Zeroizing::new(state.to_vec()), socket, since });
    }
    if !states.is_empty() {
        return Err("a batch with more octets than it says".to_owned());
    }
    Ok(Batch { number: head.number, parcels })
}
