//! Bodies: references have holders, the sweep knows what it has to free, segments are counted.

use std::collections::{BTreeMap, BTreeSet};

use posthouse_mail::UnixMillis;

use super::pen::{Edit, Pen};
use crate::blob::row::BlobRow;
use crate::check::blobs::{holder, stray_stages};
use crate::check::{Reads, Source};
use crate::error::Error;
use crate::keys::{self, KeyParts};

pub(super) async fn mend(pen: &mut Pen<'_>) -> Result<(), Error> {
    let referred = references(pen).await?;
    tombstones(pen).await?;
    unreferenced(pen, &referred).await?;
    for stage in stray_stages(&mut Source::new(pen.store, Reads::OneTransaction)).await? {
        let place = keys::describe(&keys::blob_chunk(&stage, 0));
        let edit = Edit::Set(keys::blob_stage(pen.now, &stage).to_vec(), Vec::new());
        pen.mend(edit, place, "no body has it: freed after storage.staged_ttl").await?;
    }
    segments(pen).await
}

/// Returns the bodies that something refers to, or did until it was released.
async fn references(pen: &mut Pen<'_>) -> Result<BTreeSet<[u8; 32]>, Error> {
    let mut referred = BTreeSet::new();
    for (key, value) in pen.rows(keys::all_blob_refs()).await? {
        let mut parts = KeyParts::of(&key);
        let Some((owner, blob)) = parts.owner().zip(parts.blob()) else { continue };
        referred.insert(*blob.as_bytes());
        let place = format!("body {blob}");
        if value.is_empty() {
            if pen.store.snapshot().get(&holder(owner)).await?.is_none() {
                let now = pen.now;
                let released = Edit::Set(key.to_vec(), now.0.to_be_bytes().to_vec());
                let told = Edit::Set(keys::blob_tombstone(now, &blob, owner).to_vec(), Vec::new());
                pen.write(&[released, told]).await?;
                pen.say(place, format!("{owner:?} is lost: the body is freed after storage.blob_retention"));
            }
            continue;
        }
        let at = UnixMillis(<[u8; 8]>::try_from(value.as_ref()).map_or(pen.now.0, u64::from_be_bytes));
        let told = keys::blob_tombstone(at, &blob, owner);
        if pen.store.snapshot().get(&told).await?.is_none() {
            pen.mend(Edit::Set(told.to_vec(), Vec::new()), place, "the sweep knows that it was released").await?;
        }
    }
    Ok(referred)
}

async fn tombstones(pen: &mut Pen<'_>) -> Result<(), Error> {
    for (key, _) in pen.rows(keys::blob_tombstones()).await? {
        let mut parts = KeyParts::of(&key);
        let Some((owner, blob)) = parts.owner().zip(parts.blob()) else { continue };
        if pen.store.snapshot().get(&keys::blob_ref(&blob, owner)).await?.is_none() {
            pen.mend(Edit::Clear(key.to_vec()), format!("body {blob}"), "a tombstone without a reference went").await?;
        }
    }
    Ok(())
}

/// What nothing refers to is for the sweep of staged bodies.
async fn unreferenced(pen: &mut Pen<'_>, referred: &BTreeSet<[u8; 32]>) -> Result<(), Error> {
    let staged: BTreeSet<[u8; 32]> = pen
        .rows(keys::blob_stageds())
        .await?
        .iter()
        .filter_map(|(key, _)| KeyParts::of(key).blob())
        .map(|blob| *blob.as_bytes())
        .collect();
    for (key, _) in pen.rows(keys::blob_states()).await? {
        let Some(blob) = KeyParts::of(&key).blob() else { continue };
        if !referred.contains(blob.as_bytes()) && !staged.contains(blob.as_bytes()) {
            let edit = Edit::Set(keys::blob_staged(pen.now, &blob).to_vec(), Vec::new());
            pen.mend(edit, format!("body {blob}"), "nothing refers to it: freed after storage.staged_ttl").await?;
        }
    }
    Ok(())
}

async fn segments(pen: &mut Pen<'_>) -> Result<(), Error> {
    let mut live: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for (_, value) in pen.rows(keys::blob_states()).await? {
        for (segment, octets) in BlobRow::decode(&value)?.stored_in_segments() {
            *live.entry(keys::segment(segment).to_vec()).or_default() += octets;
        }
    }
    for (key, value) in pen.rows(keys::segments()).await? {
        let counted = <[u8; 8]>::try_from(value.as_ref()).ok().map(i64::from_le_bytes);
        let present = live.remove(&key[..]).unwrap_or(0);
        if counted != Some(present) {
            let edit = Edit::Set(key.to_vec(), present.to_le_bytes().to_vec());
            pen.mend(edit, keys::describe(&key), format!("counted anew: {present}")).await?;
        }
    }
    for (key, present) in live {
        let edit = Edit::Set(key.clone(), present.to_le_bytes().to_vec());
        pen.mend(edit, keys::describe(&key), format!("counted anew: {present}")).await?;
    }
    Ok(())
}
