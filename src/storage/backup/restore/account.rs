//! One account comes back: its messages in batches, then its mailboxes, and last the row that makes it be there.
//!
//! Everything but ids and contents is made anew: references, threads' rows, counters, names. Repeating a batch writes the
//! same rows again, so an account that was cut short is simply begun anew.

use std::collections::{BTreeMap, HashMap};

use posthouse_mail::stage::BodyRef;
use posthouse_mail::{AccountId, Address, BlobId, DomainId, EmailId, IngestId, MailboxId, ThreadId};

use super::site::found_domain;
use super::{Restored, Rights};
use crate::address;
use crate::backup::image::{AccountImage, OpenPoint};
use crate::backup::record::{AccountEntry, DoneEntry, PlaceEntry};
use crate::blob;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::message::read::{is_deleted, is_seen};
use crate::message::{AppendBody, CHUNK};
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, CredentialRow, DomainRow, EmailMailbox, EmailRow, MailboxRow};
use crate::shard::Fence;
use crate::store::Store;
use crate::thread;
use crate::transaction::{Transaction, check_fence};
use crate::writer::{AccountState, Writer, boxed};

/// Octets of rows in one transaction: well under the budget of every engine.
const BATCH_OCTETS: usize = 512 * 1024;
/// What a row costs besides its value, at most: its key, several times.
const ROW_OCTETS: usize = 256;
/// Bodies whose new ids are remembered, so that one which many emails share is fetched once.
const BODIES_MAX: usize = 10_000;

/// Brings an account back, unless it is there.
pub(super) async fn restore(
    store: &Store,
    (point, entry): (&mut OpenPoint, &AccountEntry),
    rights: &Rights<'_>,
    restored: &mut Restored,
) -> Result<(), Error> {
    let id = AccountId::new(entry.id);
    restored.accounts += 1;
    if let Some(row) = codec::get::<AccountRow>(&mut store.snapshot(), &keys::account(id)).await? {
        restored.messages += row.email_count;
        return Ok(());
    }
    let image = match AccountImage::load(&point.target, entry).await {
        Err(Error::BackupDamaged(reason)) => {
            restored.leave_out(point, format!("the account {}: {reason}", entry.address)).await?;
            return Ok(());
        }
        image => image?,
    };
    for reason in image.damaged() {
        restored.leave_out(point, format!("messages of {}: {reason}", entry.address)).await?;
    }
    let writer = Writer { fence: (rights.fences)(keys::account_shard(id)), account: id, now: rights.now };
    let row = image.head.account.clone().unwrap_or_default();
    let domain_fence = (rights.fences)(keys::domain_shard(DomainId::new(row.domain)));
    if rights.founds_domains {
        match found_domain(store, domain_fence, DomainId::new(row.domain), &row.address).await {
            // Where it cannot be, the account finds no place.
            Ok(()) | Err(Error::BackupDamaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    // Asked before anything is written: what belongs to no account would be damage.
    let place = place(&mut store.snapshot(), id, &row).await?;
    if let Err(reason) = place {
        restored.leave_out(point, format!("the account {}: {reason}", entry.address)).await?;
        return Ok(());
    }
    let mut work = Work { store, point, image, writer, sums: Sums::default(), bodies: HashMap::new() };
    work.messages(restored).await?;
    restored.messages += work.sums.emails;
    if let Err(reason) = work.account(row, domain_fence).await? {
        restored.leave_out(work.point, format!("the account {}: {reason}", entry.address)).await?;
    }
    Ok(())
}

/// Whether the address of an account has its row already; `Err` with a reason when there is no place for the account.
async fn place(
    txn: &mut Transaction<'_>,
    id: AccountId,
    row: &AccountRow,
) -> Result<Result<(Address, bool), &'static str>, Error> {
    let domain = DomainId::new(row.domain);
    if codec::get::<DomainRow>(txn, &keys::domain(domain)).await?.is_none() {
        return Ok(Err("its domain was deleted while the backup was taken"));
    }
    let address = Address::parse(&row.address)
        .map_err(|_| Error::BackupDamaged(format!("an account has the address {:?}", row.address)))?;
    let found = codec::get::<AddressRow>(txn, &keys::address(domain, &address::folded(&address))).await?;
    match found {
        Some(found) if found.account != Some(id.get()) => {
            Ok(Err("its address had gone to another while the backup was taken"))
        }
        found => Ok(Ok((address, found.is_some()))),
    }
}

struct Work<'a> {
    store: &'a Store,
    point: &'a mut OpenPoint,
    image: AccountImage,
    writer: Writer,
    sums: Sums,
    bodies: HashMap<BlobId, BodyRef>,
}

/// What the messages add up to.
#[derive(Default)]
struct Sums {
    emails: u64,
    octets: u64,
    mailboxes: HashMap<u64, MailboxSums>,
}

#[derive(Default)]
struct MailboxSums {
    messages: u32,
    unseen: u32,
    deleted: u32,
    size: u64,
    modseq: u64,
}

/// One email, ready to be written.
struct Ready {
    email: EmailId,
    row: EmailRow,
    places: Vec<PlaceEntry>,
    from: BlobId,
    body: AppendBody,
}

impl Work<'_> {
    async fn messages(&mut self, restored: &mut Restored) -> Result<(), Error> {
        let mut places: BTreeMap<u64, Vec<(u64, u32)>> = BTreeMap::new();
        for live in self.image.live() {
            places.entry(live.email).or_default().push((live.mailbox, live.uid));
        }
        let mut batch: Vec<Ready> = Vec::new();
        let mut weight = 0;
        for (email, places) in places {
            let ready = match self.ready(email, &places).await {
                Err(Error::BackupDamaged(reason)) => {
                    restored.leave_out(self.point, format!("a message of {}: {reason}", self.image.address)).await?;
                    continue;
                }
                ready => ready?,
            };
            let octets = prost::Message::encoded_len(&ready.row);
            if !batch.is_empty() && (batch.len() >= CHUNK || weight + octets > BATCH_OCTETS) {
                self.write(std::mem::take(&mut batch)).await?;
                weight = 0;
            }
            weight += octets;
            batch.push(ready);
        }
        self.write(batch).await
    }

    async fn ready(&mut self, email: u64, live: &[(u64, u32)]) -> Result<Ready, Error> {
        let (part, at) = self.image.entry(email).await?;
        let entry = part[at].clone();
        let mut row = entry.row.ok_or_else(|| Error::BackupDamaged("an email is empty".to_owned()))?;
        let mut places = entry.places;
        places.retain(|place| live.contains(&(place.mailbox, place.uid)));
        let from = row.body()?.blob;
        let body = match self.bodies.get(&from) {
            Some(held) => AppendBody::Held(*held),
            None => AppendBody::Staged(self.point.stage(self.store, &from).await?),
        };
        row.blob = body.body().blob.as_bytes().to_vec();
        row.mailboxes = places.iter().map(|p| EmailMailbox { mailbox: p.mailbox, uid: p.uid }).collect();
        Ok(Ready { email: EmailId::new(email), row, places, from, body })
    }

    async fn write(&mut self, batch: Vec<Ready>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (writer, rows) = (&self.writer, batch.as_slice());
        self.store.transact(|txn| boxed(put_emails(txn, writer, rows))).await?;
        for ready in batch {
            self.sums.add(&ready)?;
            if self.bodies.len() >= BODIES_MAX {
                self.bodies.clear();
            }
            self.bodies.insert(ready.from, ready.body.body());
        }
        Ok(())
    }

    /// Everything but the messages; `Err` with a reason when there is no place for the account.
    async fn account(&mut self, mut row: AccountRow, domain_fence: Fence) -> Result<Result<(), &'static str>, Error> {
        // A number that the old store had not yet given when it was lost.
        let seconds = u32::try_from(self.writer.now.seconds()).unwrap_or(1);
        row.uid_validity = row.uid_validity.max(seconds);
        let mut mailboxes = Vec::with_capacity(self.image.head.mailboxes.len());
        for entry in &self.image.head.mailboxes {
            let validity = row.uid_validity.checked_add(1).ok_or(Error::Limit { what: "UidValidity" })?;
            row.uid_validity = validity;
            let of = entry.row.clone().unwrap_or_default();
            let sums = self.sums.mailboxes.remove(&entry.id).unwrap_or_default();
            mailboxes.push((MailboxId::new(entry.id), sums.onto(MailboxRow { uid_validity: validity, ..of })));
        }
        for part in mailboxes.chunks(CHUNK) {
            let writer = &self.writer;
            self.store.transact(|txn| boxed(put_mailboxes(txn, writer, part))).await?;
        }
        row.mailbox_count = u32::try_from(mailboxes.len()).unwrap_or(u32::MAX);
        row.roles.retain(|entry| mailboxes.iter().any(|(id, _)| id.get() == entry.mailbox));
        row.quota_used = self.sums.octets;
        row.email_count = self.sums.emails;
        // Nobody can ask what changed before: the log is not part of a backup.
        row.change_floor = row.modseq;
        row.generation = row.generation.saturating_add(1);
        row.pending_copy = None;
        row.sweeping.clear();
        row.locked = false;
        row.subscription_count = u32::try_from(self.image.head.subscriptions.len()).unwrap_or(u32::MAX);
        row.done_count = u64::try_from(self.image.head.dones.len()).unwrap_or(u64::MAX);
        self.subscriptions_and_proofs().await?;
        let (writer, credential, row) = (&self.writer, &self.image.head.credential, &row);
        self.store.transact(|txn| boxed(put_account(txn, writer, (credential, row), domain_fence))).await
    }

    /// There may be more of them than one transaction takes, and like messages they are nobody's before the account is there.
    async fn subscriptions_and_proofs(&self) -> Result<(), Error> {
        let writer = &self.writer;
        for part in self.image.head.subscriptions.chunks(CHUNK) {
            self.store.transact(|txn| boxed(put_subscriptions(txn, writer, part))).await?;
        }
        let mut rest = self.image.head.dones.as_slice();
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(fitting(rest));
            rest = behind;
            self.store.transact(|txn| boxed(put_dones(txn, writer, part))).await?;
        }
        Ok(())
    }
}

/// How many of the first records go into one transaction together: one at least.
fn fitting(records: &[DoneEntry]) -> usize {
    let mut octets = 0;
    let fits = |record: &&DoneEntry| {
        octets += prost::Message::encoded_len(*record) + ROW_OCTETS;
        octets <= BATCH_OCTETS
    };
    records.iter().take_while(fits).count().max(1)
}

impl Sums {
    fn add(&mut self, ready: &Ready) -> Result<(), Error> {
        self.emails += 1;
        self.octets += ready.row.size();
        for place in &ready.places {
            let row = place.row.as_ref().ok_or_else(|| Error::BackupDamaged("a message is empty".to_owned()))?;
            let sums = self.mailboxes.entry(place.mailbox).or_default();
            sums.messages += 1;
            sums.unseen += u32::from(!is_seen(row));
            sums.deleted += u32::from(is_deleted(row));
            sums.size += row.size;
            sums.modseq = sums.modseq.max(row.modseq);
        }
        Ok(())
    }
}

impl MailboxSums {
    fn onto(self, row: MailboxRow) -> MailboxRow {
        let Self { messages, unseen, deleted, size, modseq } = self;
        MailboxRow { messages, unseen, deleted, size, highest_modseq: row.highest_modseq.max(modseq), ..row }
    }
}

async fn put_emails(txn: &mut Transaction<'_>, writer: &Writer, batch: &[Ready]) -> Result<(), Error> {
    check_fence(txn, writer.fence).await?;
    let account = AccountState::new(writer, AccountRow::default());
    for ready in batch {
        if let AppendBody::Staged(staged) = &ready.body {
            txn.attach(staged);
        }
        let owner = BlobOwner::Email { account: account.id, email: ready.email };
        blob::reference(txn, ready.body.body(), owner).await?;
        codec::put(txn, &keys::email(account.id, ready.email), &ready.row)?;
        for place in &ready.places {
            let row = place.row.as_ref().ok_or_else(|| Error::BackupDamaged("a message is empty".to_owned()))?;
            let uid = crate::message::uid(place.uid)?;
            codec::put(txn, &keys::membership(account.id, MailboxId::new(place.mailbox), uid), row)?;
        }
        let structure = ready.row.structure.clone().unwrap_or_default();
        thread::enter(txn, &account, (ThreadId::new(ready.row.thread), ready.email), &structure)?;
    }
    Ok(())
}

async fn put_mailboxes(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    mailboxes: &[(MailboxId, MailboxRow)],
) -> Result<(), Error> {
    check_fence(txn, writer.fence).await?;
    for (id, row) in mailboxes {
        let parent = Some(MailboxId::new(row.parent)).filter(|parent| parent.get() != 0);
        codec::put(txn, &keys::mailbox(writer.account, *id), row)?;
        codec::put(txn, &keys::mailbox_name(writer.account, parent, &row.name), &IdRow { id: id.get() })?;
    }
    Ok(())
}

async fn put_subscriptions(txn: &mut Transaction<'_>, writer: &Writer, paths: &[String]) -> Result<(), Error> {
    check_fence(txn, writer.fence).await?;
    for path in paths {
        txn.set(&keys::subscription(writer.account, path), &[]);
    }
    Ok(())
}

async fn put_dones(txn: &mut Transaction<'_>, writer: &Writer, dones: &[DoneEntry]) -> Result<(), Error> {
    check_fence(txn, writer.fence).await?;
    for done in dones {
        let request = done.request.as_slice().try_into().map(u128::from_be_bytes).unwrap_or_default();
        let key = keys::done(writer.account, IngestId::new(request), done.item);
        codec::put(txn, &key, &done.row.clone().unwrap_or_default())?;
    }
    Ok(())
}

/// The account itself with its address: from now on it is there.
async fn put_account(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    (credential, row): (&Option<CredentialRow>, &AccountRow),
    domain_fence: Fence,
) -> Result<Result<(), &'static str>, Error> {
    check_fence(txn, writer.fence).await?;
    let (address, is_there) = match place(txn, writer.account, row).await? {
        Ok(place) => place,
        Err(reason) => return Ok(Err(reason)),
    };
    if !is_there {
        let account = Some(writer.account.get());
        let of_address = AddressRow { address: row.address.clone(), account, targets: Vec::new() };
        address::claim(txn, domain_fence, DomainId::new(row.domain), &address, &of_address).await?;
    }
    codec::put(txn, &keys::credential(writer.account), &credential.clone().unwrap_or_default())?;
    if row.admin {
        txn.set(&keys::admin(writer.account), &[]);
    }
    codec::put(txn, &keys::account(writer.account), row).map(Ok)
}
