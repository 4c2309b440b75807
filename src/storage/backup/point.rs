//! Points: what a target can be restored to, by their times.

use std::collections::VecDeque;

use posthouse_mail::{AccountId, UnixMillis};

use super::bundle;
use super::object::OBJECT_MAX;
use super::record::{AccountEntry, FORMAT, PointRow};
use super::seal::Kind;
use super::target::Target;
use crate::error::Error;
use crate::keys;

/// Folder of the points.
const POINTS: &str = "points/";

/// A point as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointView {
    /// When it was begun, in milliseconds of Unix time, in sixteen digits: ids sort by time.
    pub id: String,
    pub started_at: UnixMillis,
    pub finished_at: UnixMillis,
    pub hostname: String,
    pub version: String,
    pub accounts: u64,
    pub messages: u64,
    /// Octets that it added to the target.
    pub written: u64,
    /// Why it cannot be read; everything else but its time is unknown then.
    pub damaged: Option<String>,
}

impl Target {
    /// Every point, oldest first, those that cannot be read included.
    pub async fn points(&self) -> Result<Vec<PointView>, Error> {
        let mut views = Vec::new();
        for id in ids(self).await? {
            let row = load(self, &id).await;
            let damaged = row.as_ref().err().filter(|error| is_of_point(error)).map(Error::to_string);
            let row = match row {
                // Its id tells when it was begun.
                Err(_) if damaged.is_some() => {
                    PointRow { started_at: id.parse().unwrap_or_default(), ..PointRow::default() }
                }
                row => row?,
            };
            views.push(PointView {
                id,
                damaged,
                started_at: UnixMillis(row.started_at),
                finished_at: UnixMillis(row.finished_at),
                hostname: row.hostname,
                version: row.version,
                accounts: row.account_count,
                messages: row.messages,
                written: row.written,
            });
        }
        Ok(views)
    }
}

/// The id of a point begun at a time.
pub(crate) fn id_at(time: UnixMillis) -> String {
    format!("{:016}", time.0)
}

/// Ids of all points, oldest first.
pub(crate) async fn ids(target: &Target) -> Result<Vec<String>, Error> {
    let listed = target.place.list(POINTS).await?;
    let mut ids: Vec<String> = listed.iter().filter_map(|l| l.name.strip_prefix(POINTS)).map(str::to_owned).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A point that was chosen.
pub(crate) struct Chosen {
    pub id: String,
    pub row: PointRow,
    /// Newer ones that cannot be read, and why.
    pub passed_over: Vec<String>,
}

/// The named point, or the newest that can be read.
pub(crate) async fn choose(target: &Target, id: Option<&str>) -> Result<Chosen, Error> {
    let ids = ids(target).await?;
    let wanted = ids.into_iter().rev().filter(|known| id.is_none_or(|id| known.as_str() == id));
    let mut passed_over = Vec::new();
    let mut last = None;
    for known in wanted {
        match load(target, &known).await {
            Ok(row) => return Ok(Chosen { id: known, row, passed_over }),
            Err(error) if is_of_point(&error) => {
                passed_over.push(format!("point {known}: {error}"));
                last = last.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    let what = id.map_or_else(|| "no point".to_owned(), |id| format!("no point {id}"));
    Err(last.unwrap_or_else(|| Error::Refused(format!("the backup at {} has {what}", target.location))))
}

/// Whether only this point cannot be read, whatever becomes of the others.
fn is_of_point(error: &Error) -> bool {
    matches!(error, Error::BackupDamaged(_) | Error::NewerFormat { .. })
}

pub(crate) async fn load(target: &Target, id: &str) -> Result<PointRow, Error> {
    let path = path(id);
    let octets = target.place.get(&path, OBJECT_MAX).await?;
    let octets = octets.ok_or_else(|| Error::BackupDamaged(format!("{path} is missing")))?;
    let content = target.decode(Kind::Point, &path, octets).await?;
    let row: PointRow =
        prost::Message::decode(content.as_slice()).map_err(|error| Error::BackupDamaged(format!("{path}: {error}")))?;
    if row.format > FORMAT {
        return Err(Error::NewerFormat { found: row.format.into(), known: FORMAT.into() });
    }
    Ok(row)
}

/// Writes a point: from now on it is there, whole.
pub(crate) async fn save(target: &Target, id: &str, row: &PointRow) -> Result<u64, Error> {
    let octets = target.encode(Kind::Point, prost::Message::encode_to_vec(row)).await?;
    let written = u64::try_from(octets.len()).unwrap_or(u64::MAX);
    target.place.put(&path(id), octets).await?;
    Ok(written)
}

pub(crate) async fn remove(target: &Target, id: &str) -> Result<(), Error> {
    target.place.delete(&path(id)).await
}

pub(crate) fn path(id: &str) -> String {
    format!("{POINTS}{id}")
}

/// The accounts of a point, asked for in the order of shard and id; a part of the list is held at a time.
pub(crate) struct Accounts<'t> {
    target: &'t Target,
    lists: VecDeque<Vec<u8>>,
    held: VecDeque<AccountEntry>,
}

impl<'t> Accounts<'t> {
    pub fn of(target: &'t Target, row: Option<PointRow>) -> Self {
        let lists = row.map(|row| row.accounts.into()).unwrap_or_default();
        Self { target, lists, held: VecDeque::new() }
    }

    /// The next account of the list.
    pub async fn next(&mut self) -> Result<Option<AccountEntry>, Error> {
        loop {
            if let Some(entry) = self.held.pop_front() {
                return Ok(Some(entry));
            }
            let Some(name) = self.lists.pop_front() else { return Ok(None) };
            self.held = bundle::read(self.target, &name).await?.into();
        }
    }

    /// What the list has of an account that comes after those asked for before. A damaged part of it has none.
    pub async fn find(&mut self, id: AccountId) -> Result<Option<AccountEntry>, Error> {
        let wanted = order(id);
        loop {
            let entry = match self.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(Error::BackupDamaged(_)) => continue,
                Err(error) => return Err(error),
            };
            let found = order(AccountId::new(entry.id));
            if found == wanted {
                return Ok(Some(entry));
            }
            if found > wanted {
                self.held.push_front(entry);
                break;
            }
        }
        Ok(None)
    }
}

fn order(id: AccountId) -> (u16, u64) {
    (keys::account_shard(id).get(), id.get())
}
