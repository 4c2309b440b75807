//! Every body that a point's accounts and messages under way name is in one of its packs.
//!
//! Ids of bodies are held as the first half of a hash, `backup.index_max` of them at a time: a larger backup is walked
//! several times, each time for another part of all ids.

use posthouse_mail::BlobId;

use super::Verified;
use crate::backup::account;
use crate::backup::bundle;
use crate::backup::lock::{self, Lock};
use crate::backup::pack::PackIndex;
use crate::backup::point::Accounts;
use crate::backup::record::{AccountEntry, GoneEntry, MessageEntry, PackRow, PointRow, SiteEntry, TransitEntry};
use crate::backup::target::{Target, rows_path};
use crate::error::Error;
use crate::record::transport::TransitRow;

/// Walks one point.
pub(super) async fn walk(
    (target, lock): (&Target, Option<&Lock>),
    (id, row): (&str, &PointRow),
    packs: &[PackRow],
    verified: &mut Verified,
) -> Result<(), Error> {
    let bodies: u64 = packs.iter().map(|pack| pack.bodies).sum();
    let at_once = u64::try_from(target.settings.index_max.max(1)).unwrap_or(u64::MAX);
    let parts = bodies.div_ceil(at_once).max(1);
    for part in 0..parts {
        let held = Held::load((target, lock), packs, (part, parts)).await?;
        let mut walk = Walk { target, lock, point: id, held, counts: part == 0, verified };
        walk.under_way(row).await?;
        walk.accounts(row).await?;
        if part == 0 {
            for name in &row.site {
                walk.bundle::<SiteEntry>(name).await?;
            }
            for name in &row.accounts {
                walk.bundle::<AccountEntry>(name).await?;
            }
        }
    }
    Ok(())
}

/// One part of all ids, sorted.
struct Held {
    ids: Vec<u128>,
    part: (u64, u64),
}

impl Held {
    async fn load(
        (target, lock): (&Target, Option<&Lock>),
        packs: &[PackRow],
        part: (u64, u64),
    ) -> Result<Self, Error> {
        let mut held = Self { ids: Vec::new(), part };
        for pack in packs {
            lock::renew(lock).await?;
            let index = PackIndex::load(target, &pack.name, pack.octets).await?;
            let ids = index.bodies().iter().map(|body| half(&body.blob));
            let of_part: Vec<u128> = ids.filter(|id| held.is_of_part(*id)).collect();
            held.ids.extend(of_part);
        }
        held.ids.sort_unstable();
        held.ids.dedup();
        Ok(held)
    }

    fn is_of_part(&self, id: u128) -> bool {
        let (part, parts) = self.part;
        u64::try_from(id >> 64).unwrap_or(0) % parts == part
    }

    fn lacks(&self, id: u128) -> bool {
        self.is_of_part(id) && self.ids.binary_search(&id).is_err()
    }
}

fn half(blob: &BlobId) -> u128 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *blob.as_bytes();
    u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

struct Walk<'a> {
    target: &'a Target,
    lock: Option<&'a Lock>,
    point: &'a str,
    held: Held,
    /// The first walk counts what it sees.
    counts: bool,
    verified: &'a mut Verified,
}

impl Walk<'_> {
    async fn under_way(&mut self, row: &PointRow) -> Result<(), Error> {
        for name in &row.transit {
            for entry in self.bundle::<TransitEntry>(name).await? {
                let spooled = entry.spool.as_ref().and_then(|row| row.message.as_ref());
                let queued = entry.queue.as_ref().and_then(|row| row.message.as_ref());
                for TransitRow { blob, .. } in spooled.into_iter().chain(queued) {
                    self.body(blob, "a message under way");
                }
            }
        }
        Ok(())
    }

    async fn accounts(&mut self, row: &PointRow) -> Result<(), Error> {
        let mut accounts = Accounts::of(self.target, Some(row.clone()));
        loop {
            let entry = match accounts.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                // A damaged part of the list hides its accounts, and is told where the lists are read.
                Err(Error::BackupDamaged(_)) => continue,
                Err(error) => return Err(error),
            };
            lock::renew(self.lock).await?;
            self.verified.accounts += u64::from(self.counts);
            let head = account::head(self.target, &entry).await;
            let Some(head) = self.verified.absorb(head)? else {
                self.verified.mark(self.target, &rows_path(&entry.head)).await;
                continue;
            };
            for part in head.runs.iter().flat_map(|run| &run.parts) {
                let messages = self.bundle::<MessageEntry>(&part.name).await?;
                if self.counts {
                    self.verified.messages += u64::try_from(messages.len()).unwrap_or(u64::MAX);
                }
                for row in messages.iter().filter_map(|message| message.row.as_ref()) {
                    self.body(&row.blob, &entry.address);
                }
            }
            for name in &head.gone {
                self.bundle::<GoneEntry>(name).await?;
            }
        }
    }

    /// The records of an object; none, and a mark, when it is damaged.
    async fn bundle<T: prost::Message + Default>(&mut self, name: &[u8]) -> Result<Vec<T>, Error> {
        lock::renew(self.lock).await?;
        let read = bundle::read::<T>(self.target, name).await;
        let records = self.verified.absorb(read)?;
        if records.is_none() {
            self.verified.mark(self.target, &rows_path(name)).await;
        }
        Ok(records.unwrap_or_default())
    }

    fn body(&mut self, blob: &[u8], of: &str) {
        let point = self.point;
        match <[u8; 32]>::try_from(blob).map(BlobId::new) {
            Ok(blob) if self.held.lacks(half(&blob)) => {
                self.verified.add(format!("point {point}: the body {blob} of {of} is in none of its packs"));
            }
            Ok(_) => {}
            Err(_) => self.verified.add(format!("point {point}: a message of {of} names no body")),
        }
    }
}
