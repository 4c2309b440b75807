//! How a repair writes: a few edits in one transaction, under the fence of every shard that they touch.

use std::collections::BTreeSet;

use bytes::Bytes;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{BlobId, UnixMillis};

use super::Mended;
use crate::codec::{self, Record};
use crate::error::Error;
use crate::keys::{self, Key, KeyRange};
use crate::record::{EmailMailbox, EmailRow, QueueMessageRow};
use crate::store::Store;
use crate::transaction::{Transaction, check_fence};
use crate::writer::boxed;

/// Edits in one transaction.
const CHUNK: usize = 50;
/// Rows read at once.
const PAGE: usize = 500;

/// One change of a row.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// A value, which is sealed as it is written.
    Set(Vec<u8>, Vec<u8>),
    /// Octets as they are to lie in the engine.
    Lay(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>),
    ClearRange(KeyRange),
    /// Where an email stands, and its flags; the rest of its row stays.
    Email {
        key: Key,
        mailboxes: Vec<EmailMailbox>,
        flags: u32,
        keywords: Vec<String>,
    },
    NewEmail {
        key: Key,
        row: Box<EmailRow>,
    },
    QueueMessage {
        key: Key,
        row: Box<QueueMessageRow>,
    },
}

impl Edit {
    /// A record that is never split.
    pub(super) fn record<R: Record>(key: &Key, record: &R) -> Self {
        Self::Set(key.to_vec(), codec::encode(record, crate::gate::FORMAT_SURE))
    }

    fn key(&self) -> &[u8] {
        match self {
            Self::Set(key, _) | Self::Lay(key, _) | Self::Clear(key) => key,
            Self::ClearRange(range) => &range.begin,
            Self::Email { key, .. } | Self::NewEmail { key, .. } | Self::QueueMessage { key, .. } => key,
        }
    }
}

pub(super) struct Pen<'s> {
    pub(super) store: &'s Store,
    pub(super) now: UnixMillis,
    pub(super) mended: Vec<Mended>,
}

impl<'s> Pen<'s> {
    pub(super) fn new(store: &'s Store, now: UnixMillis) -> Self {
        Self { store, now, mended: Vec::new() }
    }

    pub(super) fn say(&mut self, place: impl Into<String>, what: impl Into<String>) {
        let mended = Mended { place: place.into(), what: what.into() };
        if !self.mended.contains(&mended) {
            self.mended.push(mended);
        }
    }

    /// Writes in the order given. A repair that is cut short is begun anew: every state in between is one that it mends.
    pub(super) async fn write(&self, edits: &[Edit]) -> Result<(), Error> {
        for chunk in edits.chunks(CHUNK) {
            self.store.transact(|txn| boxed(write_in(txn, self.store, chunk))).await?;
        }
        Ok(())
    }

    /// Writes one thing and says so.
    pub(super) async fn mend(
        &mut self,
        edit: Edit,
        place: impl Into<String>,
        what: impl Into<String>,
    ) -> Result<(), Error> {
        self.write(&[edit]).await?;
        self.say(place, what);
        Ok(())
    }

    /// Lays a row aside as it was.
    pub(super) async fn lay_aside(&mut self, key: &[u8], octets: &[u8], why: &str) -> Result<(), Error> {
        let kept = Edit::Set(keys::lost(key).to_vec(), octets.to_vec());
        self.write(&[kept, Edit::Clear(key.to_vec())]).await?;
        self.say(keys::describe(key), format!("{why}; laid aside as it was"));
        Ok(())
    }

    /// The content of a body; `None`: it is lost. A body that only cannot be read now, as its key or its place is away, ends
    /// the repair: it must not be taken for lost.
    pub(super) async fn body(&self, blob: BlobId) -> Result<Option<Bytes>, Error> {
        match self.store.body_read(&BodyRef { blob, size: u64::MAX }, 0..u64::MAX).await {
            Ok(content) => Ok(Some(content)),
            Err(Error::Corrupt(_) | Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every row of a range.
    pub(super) async fn rows(&self, mut range: KeyRange) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let page = codec::page(&mut self.store.snapshot(), &range, PAGE).await?;
            rows.extend(page.rows);
            match rows.last() {
                Some((key, _)) if page.more => range.begin = keys::after(key),
                _ => return Ok(rows),
            }
        }
    }

    /// Every record of a range.
    pub(super) async fn records<R: Record>(&self, mut range: KeyRange) -> Result<Vec<(Bytes, R)>, Error> {
        let mut all = Vec::new();
        loop {
            let (rows, more) = codec::scan::<R>(&mut self.store.snapshot(), &range, PAGE).await?;
            all.extend(rows);
            match all.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => return Ok(all),
            }
        }
    }
}

async fn write_in(txn: &mut Transaction<'_>, store: &Store, edits: &[Edit]) -> Result<(), Error> {
    let shards: BTreeSet<u16> =
        edits.iter().filter_map(|edit| keys::shard_of(edit.key())).map(|shard| shard.get()).collect();
    for shard in shards.into_iter().filter_map(crate::shard::ShardId::new) {
        check_fence(txn, store.fence(shard)).await?;
    }
    for edit in edits {
        match edit {
            Edit::Set(key, value) => txn.set(key, value),
            Edit::Lay(key, octets) => txn.set_sealed(key, octets),
            Edit::Clear(key) => txn.clear(key),
            Edit::ClearRange(range) => {
                for range in [keys::chunks_within(range), range.clone()] {
                    txn.clear_range(&range.begin, &range.end);
                }
            }
            Edit::NewEmail { key, row } => codec::put(txn, key, &**row)?,
            Edit::QueueMessage { key, row } => codec::put(txn, key, &**row)?,
            Edit::Email { key, mailboxes, flags, keywords } => {
                let mut row = codec::expect::<EmailRow>(txn, key, "the email").await?;
                (row.mailboxes, row.flags, row.keywords) = (mailboxes.clone(), *flags, keywords.clone());
                codec::put(txn, key, &row)?;
            }
        }
    }
    Ok(())
}
