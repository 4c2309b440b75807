//! An account as a point has it, message by message: what a restore of a part reads.
//!
//! What is held of an account is three numbers for each message; the messages themselves are fetched part by part, their
//! bodies piece by piece.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use posthouse_mail::secret::Secret;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{Address, BlobId, FlagSet, MailboxId, SpecialUse, UnixMillis};

use super::account::{self, places_of};
use super::bundle;
use super::known::Lookup;
use super::point::{self, Accounts};
use super::record::{AccountEntry, AccountHead, GoneEntry, MessageEntry, PackRow, PointRow};
use super::target::Target;
use crate::blob::StagedBody;
use crate::error::Error;
use crate::mailbox;
use crate::message::flag_bits;
use crate::record::MailboxRow;
use crate::store::Store;

/// Parts of runs held at once.
const PARTS_MAX: usize = 8;

/// A point that is open for reading.
pub struct OpenPoint {
    pub(crate) target: Target,
    id: String,
    pub(crate) row: PointRow,
    passed_over: Vec<String>,
    bodies: Lookup,
}

/// An account of a point.
pub struct AccountImage {
    target: Target,
    pub(crate) head: AccountHead,
    /// Its primary address then.
    pub address: Address,
    mailboxes: Vec<MailboxImage>,
    /// What is seen, by mailbox and Uid.
    live: Vec<Live>,
    /// The part used last is at the end.
    parts: VecDeque<(Vec<u8>, Arc<Vec<MessageEntry>>)>,
    /// Objects of it that cannot be read; what only they told is not seen.
    damaged: Vec<String>,
}

/// A mailbox of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxImage {
    pub id: MailboxId,
    pub path: String,
    pub role: Option<SpecialUse>,
    pub subscribed: bool,
    pub messages: usize,
}

/// A message of it, body apart.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageImage {
    /// `\Deleted` included.
    pub flags: FlagSet,
    pub received_at: UnixMillis,
    /// Header fields above the body.
    pub prefix: Bytes,
    pub structure: MessageStructure,
    /// In the store that the backup was taken of.
    pub blob: BlobId,
}

/// Where a message stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Live {
    pub mailbox: u64,
    pub uid: u32,
    pub email: u64,
}

impl OpenPoint {
    /// Opens the named point, or the newest that can be read.
    pub async fn open(target: &Target, id: Option<&str>) -> Result<Self, Error> {
        let point::Chosen { id, row, passed_over } = point::choose(target, id).await?;
        let mut packs = Vec::new();
        for name in &row.packs {
            match bundle::read::<PackRow>(target, name).await {
                Ok(listed) => packs.extend(listed),
                // Its packs are missed where a body is asked for that no other one has.
                Err(Error::BackupDamaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { target: target.clone(), id, row, passed_over, bodies: Lookup::new(target, packs) })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Newer points that cannot be read, in words, where none was asked for by name.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// The account whose primary address this was. Damage elsewhere in the list matters only where it may hide the account.
    pub async fn account(&self, address: &Address) -> Result<Option<AccountImage>, Error> {
        let wanted = address.key();
        let mut accounts = Accounts::of(&self.target, Some(self.row.clone()));
        let mut damaged = None;
        loop {
            let entry = match accounts.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(Error::BackupDamaged(reason)) => {
                    damaged = Some(reason);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if Address::parse(&entry.address).is_ok_and(|found| found.key() == wanted) {
                return AccountImage::load(&self.target, &entry).await.map(Some);
            }
        }
        let hides = |reason| Error::BackupDamaged(format!("what is left of its list has no {address}: {reason}"));
        damaged.map_or(Ok(None), |reason| Err(hides(reason)))
    }

    /// Proves that the backup is still there: what cannot be found in it then is lost, not away.
    pub async fn confirm(&self) -> Result<(), Error> {
        match self.target.place.size(&point::path(&self.id)).await? {
            Some(_) => Ok(()),
            None => Err(Error::Unavailable(format!("the point {} was taken away while it was read", self.id))),
        }
    }

    /// Stages a body of the point in a store.
    pub async fn stage(&mut self, store: &Store, blob: &BlobId) -> Result<StagedBody, Error> {
        let found = self.bodies.find(blob).await?;
        let id = &self.id;
        let missing =
            || Error::BackupDamaged(format!("point {id}: the body {blob} is in none of its packs that can be read"));
        let (index, body) = found.ok_or_else(missing)?;
        let mut writer = store.body_writer();
        let mut number = 0;
        while let Some(piece) = index.piece(&self.target, &body, number).await? {
            writer.write(&piece).await?;
            number += 1;
        }
        if writer.size() != body.size {
            return Err(Error::BackupDamaged(format!("{}: the body {blob} is cut short", index.name)));
        }
        writer.finish().await
    }
}

impl AccountImage {
    pub(crate) async fn load(target: &Target, entry: &AccountEntry) -> Result<Self, Error> {
        let head = account::head(target, entry).await?;
        let address = Address::parse(&entry.address)
            .map_err(|_| Error::BackupDamaged(format!("an account has the address {:?}", entry.address)))?;
        let (target, parts) = (target.clone(), VecDeque::new());
        let (mailboxes, live, damaged) = (Vec::new(), Vec::new(), Vec::new());
        let mut image = Self { target, head, address, mailboxes, live, parts, damaged };
        image.live = image.find_live().await?;
        image.mailboxes = image.list()?;
        Ok(image)
    }

    /// Its mailboxes by their paths, INBOX first.
    pub fn mailboxes(&self) -> &[MailboxImage] {
        &self.mailboxes
    }

    /// What of it cannot be read, in words. An older word on a message stands in for a newer one that is lost.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// PHC string of argon2id; `None`: no password opened it.
    pub fn password_hash(&self) -> Option<Secret<String>> {
        let row = self.head.credential.as_ref().filter(|row| !row.password_hash.is_empty());
        row.map(|row| Secret::new(row.password_hash.clone()))
    }

    /// `None` is no limit.
    pub fn quota_max(&self) -> Option<u64> {
        self.head.account.as_ref().map(|row| row.quota_max).filter(|max| *max != 0)
    }

    /// Nobody could log in.
    pub fn is_disabled(&self) -> bool {
        self.head.account.as_ref().is_some_and(|row| row.disabled)
    }

    pub fn is_admin(&self) -> bool {
        self.head.account.as_ref().is_some_and(|row| row.admin)
    }

    /// A message of a mailbox, by its place in the order of Uids.
    pub async fn message(&mut self, mailbox: MailboxId, place: usize) -> Result<Option<MessageImage>, Error> {
        let first = self.live.partition_point(|live| live.mailbox < mailbox.get());
        let Some(live) = self.live.get(first.saturating_add(place)).copied() else { return Ok(None) };
        if live.mailbox != mailbox.get() {
            return Ok(None);
        }
        let (part, at) = self.entry(live.email).await?;
        let entry = &part[at];
        let damaged = || Error::BackupDamaged(format!("a message of {} is cut short", self.address));
        let place = entry.places.iter().find(|place| (place.mailbox, place.uid) == (live.mailbox, live.uid));
        let membership = place.and_then(|place| place.row.as_ref()).ok_or_else(damaged)?;
        let row = entry.row.as_ref().ok_or_else(damaged)?;
        Ok(Some(MessageImage {
            flags: flag_bits::read(membership.flags, &membership.keywords),
            received_at: UnixMillis(row.received_at),
            prefix: row.prefix.clone(),
            structure: row.structure.clone().unwrap_or_default(),
            blob: row.body()?.blob,
        }))
    }

    /// Everything that is seen, by mailbox and Uid.
    pub(crate) fn live(&self) -> &[Live] {
        &self.live
    }

    /// The last word on an email: the part that has it, and where in that.
    pub(crate) async fn entry(&mut self, email: u64) -> Result<(Arc<Vec<MessageEntry>>, usize), Error> {
        for run in (0..self.head.runs.len()).rev() {
            let parts = &self.head.runs[run].parts;
            let Some(place) = parts.partition_point(|part| part.first <= email).checked_sub(1) else { continue };
            let name = parts[place].name.clone();
            let part = match self.part(name).await {
                Err(Error::BackupDamaged(_)) => continue,
                part => part?,
            };
            if let Ok(at) = part.binary_search_by_key(&email, |entry| entry.email) {
                return Ok((part, at));
            }
        }
        Err(Error::BackupDamaged(format!("a message of {} is missing", self.address)))
    }

    async fn part(&mut self, name: Vec<u8>) -> Result<Arc<Vec<MessageEntry>>, Error> {
        if let Some(place) = self.parts.iter().position(|(held, _)| *held == name) {
            let held = self.parts.remove(place).expect("the place was just found");
            self.parts.push_back(held.clone());
            return Ok(held.1);
        }
        let part = Arc::new(bundle::read::<MessageEntry>(&self.target, &name).await?);
        if self.parts.len() >= PARTS_MAX {
            self.parts.pop_front();
        }
        self.parts.push_back((name, part.clone()));
        Ok(part)
    }

    async fn find_live(&mut self) -> Result<Vec<Live>, Error> {
        let mailboxes: HashSet<u64> = self.head.mailboxes.iter().map(|mailbox| mailbox.id).collect();
        let gone = self.gone().await?;
        let is_gone = |mailbox, uid| gone.get(&mailbox).is_some_and(|uids| uids.contains(&uid));
        let mut told = HashSet::new();
        let mut live = Vec::new();
        for run in (0..self.head.runs.len()).rev() {
            for name in self.head.runs[run].parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>() {
                for entry in self.readable::<MessageEntry>(&name).await? {
                    // The first run has most of them, and nothing comes after it that could be told twice.
                    let is_new = if run == 0 { !told.contains(&entry.email) } else { told.insert(entry.email) };
                    if is_new {
                        let places = places_of(&entry, |mailbox| mailboxes.contains(&mailbox), is_gone);
                        let of = |place: &super::record::PlaceEntry| (place.mailbox, place.uid);
                        live.extend(places.into_iter().map(of).map(|(mailbox, uid)| Live {
                            mailbox,
                            uid,
                            email: entry.email,
                        }));
                    }
                }
            }
        }
        live.sort_unstable();
        Ok(live)
    }

    async fn gone(&mut self) -> Result<HashMap<u64, BTreeSet<u32>>, Error> {
        let mut gone: HashMap<u64, BTreeSet<u32>> = HashMap::new();
        for name in self.head.gone.clone() {
            for entry in self.readable::<GoneEntry>(&name).await? {
                let uids = entry.uids.iter().flat_map(|run| run.first..run.first.saturating_add(run.count));
                gone.entry(entry.mailbox).or_default().extend(uids);
            }
        }
        Ok(gone)
    }

    /// The records of an object; none, and a word about it, when it is damaged.
    async fn readable<T: prost::Message + Default>(&mut self, name: &[u8]) -> Result<Vec<T>, Error> {
        match bundle::read(&self.target, name).await {
            Err(Error::BackupDamaged(reason)) => {
                self.damaged.push(reason);
                Ok(Vec::new())
            }
            records => records,
        }
    }

    fn list(&self) -> Result<Vec<MailboxImage>, Error> {
        let rows: Vec<(u64, &MailboxRow)> =
            self.head.mailboxes.iter().filter_map(|entry| Some((entry.id, entry.row.as_ref()?))).collect();
        let by_id: HashMap<u64, &MailboxRow> = rows.iter().copied().collect();
        let subscribed: HashSet<&str> = self.head.subscriptions.iter().map(String::as_str).collect();
        let mut list = Vec::with_capacity(rows.len());
        for (id, row) in rows {
            let path = mailbox::path_of(row, &by_id)?;
            let from = self.live.partition_point(|live| live.mailbox < id);
            let to = self.live.partition_point(|live| live.mailbox <= id);
            let subscribed = subscribed.contains(path.as_str());
            let role = mailbox::role_of(row.role);
            list.push(MailboxImage { id: MailboxId::new(id), path, role, subscribed, messages: to - from });
        }
        list.sort_by(|a, b| (a.path != "INBOX").cmp(&(b.path != "INBOX")).then_with(|| a.path.cmp(&b.path)));
        Ok(list)
    }
}
