//! Bodies: every reference has its holder, every body can be read to its end.

use posthouse_mail::BlobId;
use posthouse_mail::stage::BodyRef;

use super::{Progress, Report, Rule, STEP};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::store::Store;
use crate::transaction::Transaction;

/// Octets of a body read at once.
const PIECE: u64 = 1 << 20;

pub(super) async fn walk(store: &Store, report: &mut Report, progress: Progress<'_>) -> Result<(), Error> {
    references(store, report).await?;
    let mut range = keys::blob_states();
    loop {
        let page = codec::page(&mut store.snapshot(), &range, STEP).await?;
        for (key, _) in &page.rows {
            if let Some(blob) = KeyParts::of(key).blob() {
                body(store, blob, report).await?;
            }
        }
        progress(&report.walked);
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(()),
        }
    }
}

/// A reference that is not released has a holder and a body.
async fn references(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::all_blob_refs();
    loop {
        let mut txn = store.snapshot();
        let page = codec::page(&mut txn, &range, STEP).await?;
        for (key, value) in &page.rows {
            let mut parts = KeyParts::of(key);
            let Some((owner, blob)) = parts.owner().zip(parts.blob()) else {
                report.add(Rule::Row, "references", "a key cannot be read");
                continue;
            };
            if value.is_empty() && txn.get(&holder(owner)).await?.is_none() {
                report.add(Rule::Reference, format!("{blob}"), format!("{owner:?} holds it and is gone"));
            }
            if txn.get(&keys::blob_state(&blob)).await?.is_none() {
                report.add(Rule::Reference, format!("{blob}"), format!("{owner:?} holds it, but the body is gone"));
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(()),
        }
    }
}

fn holder(owner: BlobOwner) -> keys::Key {
    match owner {
        BlobOwner::Email { account, email } => keys::email(account, email),
        BlobOwner::Spool(message) => keys::spool(message),
        BlobOwner::Queue(message) => keys::queue_message(message),
    }
}

async fn body(store: &Store, blob: BlobId, report: &mut Report) -> Result<(), Error> {
    report.walked.bodies += 1;
    // The size in a `BodyRef` names what its holder expects; here the body says itself where it ends.
    let whole = BodyRef { blob, size: u64::MAX };
    let mut offset = 0;
    loop {
        match store.body_read(&whole, offset..offset + PIECE).await {
            Ok(piece) => {
                let length = u64::try_from(piece.len()).unwrap_or(PIECE);
                report.walked.body_octets += length;
                offset += length;
                if length < PIECE {
                    return Ok(());
                }
            }
            Err(Error::Corrupt(detail)) => {
                report.add(Rule::Body, format!("{blob}"), detail);
                return Ok(());
            }
            Err(_) if is_gone(&mut store.snapshot(), &blob).await? => return Ok(()),
            Err(Error::Unavailable(detail)) => {
                report.add(Rule::Body, format!("{blob}"), detail);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Swept while it was read.
async fn is_gone(txn: &mut Transaction<'_>, blob: &BlobId) -> Result<bool, Error> {
    Ok(txn.get(&keys::blob_state(blob)).await?.is_none())
}
