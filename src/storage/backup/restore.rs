//! A whole site comes back: into a store with nothing in it, at any point.
//!
//! Ids, Uids and ModSeqs are those of the backup, so that rows keep naming each other; bodies get the ids of the new store.
//! What a client remembers of the site may be newer than the point, so every mailbox has a new UidValidity and every
//! account another generation. A restore that was cut short is begun again with the same point and goes on where it was.

mod account;
mod site;

use posthouse_mail::UnixMillis;
use posthouse_obs::emit;
use posthouse_obs::event::backup as event;

use super::image::OpenPoint;
use super::point::Accounts;
use super::target::Target;
use super::{Phase, Progress, Step};
use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::shard::{Fence, ShardId};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// What comes back.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// If none is named: the one whose restore was cut short, or else the newest.
    pub point: Option<String>,
    /// Leaves the mail that was under way: what has been sent since would be sent again.
    pub without_queue: bool,
}

/// Gives the right to write to a shard.
pub type Fences<'a> = &'a (dyn Fn(ShardId) -> Fence + Sync);

/// How an account comes back.
struct Rights<'a> {
    fences: Fences<'a>,
    now: UnixMillis,
    /// A part of the site's facts is lost: a domain that is missing need not have been deleted.
    founds_domains: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    pub point: String,
    pub domains: u64,
    pub accounts: u64,
    pub messages: u64,
    /// Messages in spool and queue.
    pub under_way: u64,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Things left out that are told one by one.
const LEFT_OUT_MAX: usize = 1000;

impl Restored {
    /// As `leave_out` for what damage hides; any other error stays one.
    async fn leave_out_damaged(&mut self, point: &OpenPoint, of: &str, error: Error) -> Result<(), Error> {
        match error {
            Error::BackupDamaged(reason) => self.leave_out(point, format!("{of}: {reason}")).await,
            error => Err(error),
        }
    }

    /// What the backup can no longer tell is left out, and everything else comes back. Where the point itself is gone
    /// meanwhile, nothing is, and the restore ends.
    async fn leave_out(&mut self, point: &OpenPoint, what: String) -> Result<(), Error> {
        point.confirm().await?;
        match self.left_out.len() {
            0..LEFT_OUT_MAX => self.left_out.push(what),
            LEFT_OUT_MAX => self.left_out.push("and more".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// The row that says which point is being restored.
const MARK: &str = "restore";

/// Brings a whole site back into an empty store.
pub async fn whole(
    store: &Store,
    target: &Target,
    wish: &Wish,
    (fences, now): (Fences<'_>, UnixMillis),
    progress: Progress<'_>,
) -> Result<Restored, Error> {
    let wanted = match &wish.point {
        Some(point) => Some(point.clone()),
        None => unfinished(store).await?,
    };
    let mut point = OpenPoint::open(target, wanted.as_deref()).await?;
    let mark = point.id().to_owned();
    let mark = mark.as_bytes();
    store.transact(|txn| boxed(begin(txn, mark))).await?;
    let mut restored = Restored { point: point.id().to_owned(), ..Restored::default() };
    for passed_over in point.passed_over() {
        restored.leave_out(&point, passed_over.clone()).await?;
    }
    progress(&Step::of(Phase::Site));
    let founds_domains = !site::restore(store, &point, fences, &mut restored).await?;
    let rights = Rights { fences, now, founds_domains };
    let mut accounts = Accounts::of(target, Some(point.row.clone()));
    let total = point.row.account_count.saturating_add(1);
    loop {
        let entry = match accounts.next().await {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(Error::BackupDamaged(reason)) => {
                restored.leave_out(&point, format!("accounts of a list: {reason}")).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        account::restore(store, (&mut point, &entry), &rights, &mut restored).await?;
        let Restored { accounts, messages, .. } = restored;
        progress(&Step { done: accounts, total, accounts, messages, ..Step::of(Phase::Restore) });
    }
    if !wish.without_queue {
        site::restore_transit(store, &mut point, &mut restored).await?;
    }
    store.transact(|txn| boxed(end(txn))).await?;
    let Restored { accounts, messages, .. } = restored;
    progress(&Step { done: total, total, accounts, messages, ..Step::of(Phase::Restore) });
    emit(event::BackupRestored { point: restored.point.clone(), accounts, messages });
    Ok(restored)
}

/// The point of a restore that was cut short: until it is brought to its end the store lacks accounts, and mail to them would
/// be refused.
pub async fn unfinished(store: &Store) -> Result<Option<String>, Error> {
    let mark = store.snapshot().get(&keys::meta(MARK)).await?;
    Ok(mark.map(|mark| String::from_utf8_lossy(&mark).into_owned()))
}

/// The store is empty, or the same point was being restored to it.
async fn begin(txn: &mut Transaction<'_>, mark: &[u8]) -> Result<(), Error> {
    let key = keys::meta(MARK);
    match txn.get(&key).await? {
        Some(found) if found == mark => return Ok(()),
        Some(_) => {
            return Err(Error::Refused(
                "another point was being restored to this store: begin with a new one".to_owned(),
            ));
        }
        None => {}
    }
    for range in [keys::domain_names(), keys::spools(), keys::queue_messages()] {
        if codec::any(txn, &range).await? {
            return Err(Error::Refused(
                "a whole site is restored to an empty store only, and this one has a site: name an account, or another store"
                    .to_owned(),
            ));
        }
    }
    txn.set(&key, mark);
    Ok(())
}

async fn end(txn: &mut Transaction<'_>) -> Result<(), Error> {
    txn.clear(&keys::meta(MARK));
    Ok(())
}
