//! Bodies: every reference has its holder, what is to be freed is known to the sweeper, segments are counted, and every
//! body can be read to its end and is what its name says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};

use super::{Options, Progress, Reads, Report, Rule, STEP, Source, Walked};
use crate::blob::frame::StageId;
use crate::blob::row::BlobRow;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner, KeyParts};
use crate::store::Store;
use crate::transaction::Transaction;

/// Octets of a body read at once.
const PIECE: u64 = 1 << 20;
/// Bodies without a reference that are looked up together.
const UNHELD_MAX: usize = 1000;

pub(super) async fn walk(
    store: &Store,
    options: Options,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), Error> {
    if store.snapshot().get(&keys::secret(crate::blob::rotation::ID_KEY)).await.is_ok_and(|row| row.is_none()) {
        report.lost(Rule::Body, "secret blob-id", "it is gone: a restart would make another and not know equal bodies");
    }
    let outcome = references(store, report).await;
    report.absorb("references of bodies", outcome)?;
    let outcome = tombstones(store, report).await;
    report.absorb("tombstones of bodies", outcome)?;
    let outcome = segments(store, report).await;
    report.absorb("segments", outcome)?;
    let outcome = proved_stages(store, report).await;
    report.absorb("frames of bodies", outcome)?;
    let (mut names, mut unheld) = (Names::default(), Unheld::default());
    let mut range = keys::blob_states();
    loop {
        // By their keys alone: a row that cannot be read was found before, and the bodies behind it count too.
        let request = crate::engine::RangeRequest::new(&range.begin, &range.end).limit(STEP);
        let page = store.snapshot().range_sealed(request).await?;
        for blob in page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).blob()) {
            report.walked.bodies += 1;
            let outcome = unheld.add(store, blob, report).await;
            report.absorb(&format!("body {blob}"), outcome)?;
            if options.bodies {
                body(store, blob, &mut names, report).await?;
            }
            let [first, second, ..] = *blob.as_bytes();
            let place = usize::from(first) << 8 | usize::from(second);
            report.walked.at(Walked::ACCOUNTS_DONE, Walked::DONE, (place, 1 << 16));
            progress(&report.walked);
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => break,
        }
    }
    let outcome = unheld.tell(store, report).await;
    report.absorb("bodies that nothing refers to", outcome)?;
    names.tell(report);
    Ok(())
}

/// A reference has a body, and a holder or a tombstone.
async fn references(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::all_blob_refs();
    loop {
        let mut txn = store.snapshot();
        let page = codec::page(&mut txn, &range, STEP).await?;
        for (key, value) in &page.rows {
            let mut parts = KeyParts::of(key);
            let Some((owner, blob)) = parts.owner().zip(parts.blob()) else {
                report.add(Rule::Row, keys::describe(key), "a key cannot be read");
                continue;
            };
            reference(&mut txn, (&blob, owner), value, report).await?;
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(()),
        }
    }
}

async fn reference(
    txn: &mut Transaction<'_>,
    (blob, owner): (&BlobId, BlobOwner),
    value: &Bytes,
    report: &mut Report,
) -> Result<(), Error> {
    let place = format!("body {blob}");
    if value.is_empty() {
        if txn.get(&holder(owner)).await?.is_none() {
            report.add(Rule::Reference, &place, format!("{owner:?} holds it and is gone"));
        }
    } else {
        let released = <[u8; 8]>::try_from(value.as_ref()).map(|at| UnixMillis(u64::from_be_bytes(at)));
        let told = match released {
            Ok(at) => txn.get(&keys::blob_tombstone(at, blob, owner)).await?.is_some(),
            Err(_) => false,
        };
        if !told {
            report.add(Rule::Reference, &place, format!("{owner:?} released it and the sweep does not know"));
        }
    }
    if txn.get(&keys::blob_state(blob)).await?.is_none() {
        report.lost(Rule::Reference, place, format!("{owner:?} holds it, but the body is gone"));
    }
    Ok(())
}

pub(crate) fn holder(owner: BlobOwner) -> keys::Key {
    match owner {
        BlobOwner::Email { account, email } => keys::email(account, email),
        BlobOwner::Spool(message) => keys::spool(message),
        BlobOwner::Queue(message) => keys::queue_message(message),
    }
}

/// A tombstone without its reference would leave its body for ever.
async fn tombstones(store: &Store, report: &mut Report) -> Result<(), Error> {
    let mut range = keys::blob_tombstones();
    loop {
        let mut txn = store.snapshot();
        let page = codec::page(&mut txn, &range, STEP).await?;
        for (key, _) in &page.rows {
            let mut parts = KeyParts::of(key);
            let Some((owner, blob)) = parts.owner().zip(parts.blob()) else { continue };
            if txn.get(&keys::blob_ref(&blob, owner)).await?.is_none() {
                report.add(Rule::Reference, format!("body {blob}"), format!("the reference of {owner:?} is gone"));
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(()),
        }
    }
}

/// What nothing refers to, and the sweep has to know: asked for many at once, as its list is walked through for them.
#[derive(Default)]
struct Unheld(BTreeSet<BlobId>);

impl Unheld {
    async fn add(&mut self, store: &Store, blob: BlobId, report: &mut Report) -> Result<(), Error> {
        if codec::any(&mut store.snapshot(), &keys::blob_refs(&blob)).await? {
            return Ok(());
        }
        self.0.insert(blob);
        if self.0.len() < UNHELD_MAX { Ok(()) } else { self.tell(store, report).await }
    }

    /// All in one snapshot: a body may have found a holder since it was noted, or gone.
    async fn tell(&mut self, store: &Store, report: &mut Report) -> Result<(), Error> {
        let mut unknown = std::mem::take(&mut self.0);
        let mut txn = store.snapshot();
        let mut range = keys::blob_stageds();
        while !unknown.is_empty() {
            let page = codec::page(&mut txn, &range, STEP).await?;
            for blob in page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).blob()) {
                unknown.remove(&blob);
            }
            match page.rows.last() {
                Some((key, _)) if page.more => range.begin = keys::after(key),
                _ => break,
            }
        }
        for blob in unknown {
            let there = txn.get(&keys::blob_state(&blob)).await;
            // A row that cannot be read was found before.
            if !matches!(there, Ok(None) | Err(Error::Corrupt(_))) {
                there?;
                if !codec::any(&mut txn, &keys::blob_refs(&blob)).await? {
                    let place = format!("body {blob}");
                    report.add(Rule::Reference, place, "nothing refers to it and the sweep does not know it");
                }
            }
        }
        Ok(())
    }
}

/// The counters of segments are those of the bodies in them.
async fn segments(store: &Store, report: &mut Report) -> Result<(), Error> {
    for reads in [Reads::Chunks, Reads::OneTransaction] {
        let mut found = Report::default();
        let outcome = count_segments(&mut Source::new(store, reads), &mut found).await;
        found.absorb("segments", outcome)?;
        if found.is_whole() {
            return Ok(());
        }
        if reads == Reads::OneTransaction {
            report.merge(found);
        }
    }
    Ok(())
}

async fn count_segments(source: &mut Source, report: &mut Report) -> Result<(), Error> {
    let mut live: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut range = keys::blob_states();
    loop {
        let page = codec::page(source.step(), &range, STEP).await?;
        for (_, value) in &page.rows {
            for (segment, octets) in BlobRow::decode(value)?.stored_in_segments() {
                *live.entry(keys::segment(segment).to_vec()).or_default() += octets;
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => break,
        }
    }
    let range = keys::segments();
    let page = codec::page(source.step(), &range, usize::MAX).await?;
    for (key, value) in &page.rows {
        let counted = <[u8; 8]>::try_from(value.as_ref()).map_or(0, i64::from_le_bytes);
        let present = live.remove(&key[..]).unwrap_or(0);
        if counted != present {
            report.add(Rule::Counters, keys::describe(key), format!("{counted} counted, {present} present"));
        }
    }
    for (key, present) in live {
        report.add(Rule::Counters, keys::describe(&key), format!("nothing counted, {present} present"));
    }
    Ok(())
}

/// Frames that are rows belong to a body, or to one that is being written.
async fn proved_stages(store: &Store, report: &mut Report) -> Result<(), Error> {
    let first = stray_stages(&mut Source::new(store, Reads::Chunks)).await?;
    if first.is_empty() {
        return Ok(());
    }
    for stage in stray_stages(&mut Source::new(store, Reads::OneTransaction)).await? {
        let place = keys::describe(&keys::blob_chunk(&stage, 0));
        report.add(Rule::Reference, place, "no body has it and the sweep does not know it");
    }
    Ok(())
}

/// Stages whose frames nobody knows.
pub(crate) async fn stray_stages(source: &mut Source) -> Result<Vec<StageId>, Error> {
    let mut stray = BTreeSet::new();
    let mut range = keys::all_blob_chunks();
    loop {
        let page = codec::page(source.step(), &range, 1).await?;
        let Some((key, _)) = page.rows.first() else { break };
        let mut parts = KeyParts::of(key);
        let _ = parts.u32();
        let Some(stage) = parts.stage() else { break };
        range.begin = keys::blob_chunks(&stage).end;
        stray.insert(*stage.as_bytes());
    }
    if stray.is_empty() {
        return Ok(Vec::new());
    }
    let mut range = keys::blob_stages_before(UnixMillis(u64::MAX));
    loop {
        let page = codec::page(source.step(), &range, STEP).await?;
        for stage in page.rows.iter().filter_map(|(key, _)| KeyParts::of(key).stage()) {
            stray.remove(stage.as_bytes());
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => break,
        }
    }
    let mut range = keys::blob_states();
    loop {
        let page = codec::page(source.step(), &range, STEP).await?;
        for (_, value) in &page.rows {
            if let Ok(stage) = BlobRow::decode(value)?.stage() {
                stray.remove(stage.as_bytes());
            }
        }
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => break,
        }
    }
    Ok(stray.into_iter().map(StageId::new).collect())
}

/// Bodies whose content does not make their name. Were it all of them, the key of the names would be another.
#[derive(Default)]
struct Names {
    right: u64,
    wrong: Vec<BlobId>,
}

impl Names {
    fn tell(self, report: &mut Report) {
        if self.right == 0 && self.wrong.len() > 1 {
            let detail = "no body has the name that its content makes: the secret of the names is another one";
            report.lost(Rule::Body, "secret blob-id", detail);
            return;
        }
        for blob in self.wrong {
            report.lost(Rule::Body, format!("body {blob}"), "its content is another's");
        }
    }
}

async fn body(store: &Store, blob: BlobId, names: &mut Names, report: &mut Report) -> Result<(), Error> {
    // The size in a `BodyRef` names what its holder expects; here the body says itself where it ends.
    let whole = BodyRef { blob, size: u64::MAX };
    let mut hasher = store.body_hasher();
    let (mut offset, mut was_away) = (0, false);
    loop {
        match store.body_read(&whole, offset..offset + PIECE).await {
            Ok(piece) => {
                let length = u64::try_from(piece.len()).unwrap_or(PIECE);
                hasher.update(&piece);
                report.walked.body_octets += length;
                offset += length;
                was_away = false;
                if length < PIECE {
                    break;
                }
            }
            Err(Error::Corrupt(detail)) => {
                report.lost(Rule::Body, format!("body {blob}"), detail);
                return Ok(());
            }
            Err(_) if is_gone(&mut store.snapshot(), &blob).await? => return Ok(()),
            // A connection to the store that was lost says nothing of the body.
            Err(Error::Unavailable(_)) if !was_away => was_away = true,
            Err(error @ (Error::Unavailable(_) | Error::NewerFormat { .. })) => {
                report.lost(Rule::Body, format!("body {blob}"), error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    if *hasher.finalize().as_bytes() == *blob.as_bytes() {
        names.right += 1;
    } else {
        names.wrong.push(blob);
    }
    Ok(())
}

/// Swept while it was read.
async fn is_gone(txn: &mut Transaction<'_>, blob: &BlobId) -> Result<bool, Error> {
    match txn.get(&keys::blob_state(blob)).await {
        Ok(row) => Ok(row.is_none()),
        Err(Error::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
