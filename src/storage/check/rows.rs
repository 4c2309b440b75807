//! Every row as it lies: its key is one of ours, its seal is right, its record can be read, and what it belongs to exists.
//!
//! Apart from the walks that compare rows: those read through the seals and end at the first row that is damaged; this one
//! gets past it and names each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthouse_mail::{AccountId, DomainId};

use super::{Progress, Report, Rule, STEP, Walked};
use crate::codec;
use crate::engine::{KEYS_END, Page, RangeRequest};
use crate::error::Error;
use crate::keys::{self, Key, Place, Subspace};
use crate::record::account::IdRow;
use crate::record::{
    AccountRow, AddressRow, ChangeRow, CredentialRow, DkimKeyRow, DomainRow, DoneRow, EmailRow, GateRow, LockRow,
    MailboxRow, MembershipRow, NodeRow, QueueMessageRow, QueueWorkRow, SpoolRow,
};
use crate::seal;
use crate::shard::ShardId;
use crate::store::Store;
use crate::transaction::Transaction;

/// Whose rows there are.
#[derive(Default)]
pub(crate) struct Entities {
    pub accounts: BTreeSet<AccountId>,
    pub domains: BTreeSet<DomainId>,
    /// Shards with work of the queue.
    pub queues: BTreeSet<u16>,
}

impl Entities {
    pub(crate) fn note(&mut self, key: &[u8], place: &Place) {
        self.accounts.extend(place.account);
        self.domains.extend(place.domain);
        let queue = keys::shard_of(key).filter(|_| place.subspace == Subspace::QueueWork);
        self.queues.extend(queue.map(ShardId::get));
    }
}

pub(super) async fn walk(store: &Store, report: &mut Report, progress: Progress<'_>) -> Result<Entities, Error> {
    let mut entities = Entities::default();
    let mut begin = Vec::new();
    loop {
        let mut step = Step::new(store);
        let page = step.page(RangeRequest::new(&begin, KEYS_END).limit(STEP)).await?;
        for (key, octets) in &page.rows {
            report.walked.rows += 1;
            step.row(key, octets, &mut entities, report).await?;
        }
        let Some((last, _)) = page.rows.last().filter(|_| page.more) else { return Ok(entities) };
        // Owned rows come first, in the order of their shards.
        let shard = last.get(1..3).map_or(0, |shard| usize::from(shard[0]) << 8 | usize::from(shard[1]));
        let shard = if keys::is_owned(last) { shard } else { usize::from(ShardId::COUNT) };
        report.walked.at(0, Walked::ROWS_DONE, (shard, usize::from(ShardId::COUNT)));
        progress(&report.walked);
        begin = keys::after(last);
    }
}

/// One page and what belongs to it, read in one snapshot.
pub(crate) struct Step {
    txn: Transaction<'static>,
    /// Whether accounts and domains are there, by the keys of their rows.
    owners: BTreeMap<Vec<u8>, bool>,
}

impl Step {
    pub(crate) fn new(store: &Store) -> Self {
        Self { txn: store.snapshot(), owners: BTreeMap::new() }
    }

    /// Rows as they lie.
    pub(crate) async fn page(&mut self, request: RangeRequest<'_>) -> Result<Page, Error> {
        self.txn.range_sealed(request).await
    }

    async fn row(
        &mut self,
        key: &Bytes,
        octets: &Bytes,
        entities: &mut Entities,
        report: &mut Report,
    ) -> Result<(), Error> {
        let Some(place) = keys::place(key) else {
            report.add(Rule::Row, keys::describe(key), "no row of this version lies under such a key");
            return Ok(());
        };
        entities.note(key, &place);
        report.walked.laid_aside += u64::from(place.subspace == Subspace::Lost);
        let read = self.open(key, octets, &place).await;
        if let Err(Error::Corrupt(_)) = &read {
            report.note(Rule::Row, finding_remedy(place.subspace), &place.words, "it is not what was written there");
        } else {
            report.absorb(&place.words, read)?;
        }
        if !self.belongs(&place).await? {
            report.add(Rule::Row, &place.words, "what it belongs to is gone");
        }
        Ok(())
    }

    /// Whether the seal is right and the record can be read.
    pub(crate) async fn open(&mut self, key: &Bytes, octets: &Bytes, place: &Place) -> Result<(), Error> {
        let value = match keys::is_sealed(key) {
            true => seal::open(key, octets)?,
            false => octets.clone(),
        };
        self.read(key, place, &value).await
    }

    /// Whether the record can be read.
    async fn read(&mut self, key: &Bytes, place: &Place, value: &Bytes) -> Result<(), Error> {
        use Subspace as S;
        match place.subspace {
            S::Account => self.decode::<AccountRow>(key, value).await,
            S::Credential => self.decode::<CredentialRow>(key, value).await,
            S::Mailbox => self.decode::<MailboxRow>(key, value).await,
            S::MailboxName | S::Thread | S::ThreadIndex | S::DomainName => self.decode::<IdRow>(key, value).await,
            S::Email => self.decode::<EmailRow>(key, value).await,
            S::Membership => self.decode::<MembershipRow>(key, value).await,
            S::Change => self.decode::<ChangeRow>(key, value).await,
            S::Done => self.decode::<DoneRow>(key, value).await,
            S::Lock => self.decode::<LockRow>(key, value).await,
            S::Domain => self.decode::<DomainRow>(key, value).await,
            S::DkimKey => self.decode::<DkimKeyRow>(key, value).await,
            S::Address => self.decode::<AddressRow>(key, value).await,
            S::QueueWork => self.decode::<QueueWorkRow>(key, value).await,
            S::Node => self.decode::<NodeRow>(key, value).await,
            S::Gate => self.decode::<GateRow>(key, value).await,
            S::Spool => self.decode::<SpoolRow>(key, value).await,
            S::QueueMessage => self.decode::<QueueMessageRow>(key, value).await,
            S::Fence | S::Counter | S::QueueCount | S::Segment if value.len() != 8 => {
                Err(Error::Corrupt("a number has eight octets".to_owned()))
            }
            S::Subscription | S::Admin | S::BlobTombstone | S::BlobStaged if !value.is_empty() => {
                Err(Error::Corrupt("nothing stands in such a row".to_owned()))
            }
            // What a body's rows say is proved where bodies are read; the others are octets as they come.
            _ => Ok(()),
        }
    }

    async fn decode<R: codec::Record>(&mut self, key: &Bytes, value: &Bytes) -> Result<(), Error> {
        codec::decode::<R>(&mut self.txn, key, value).await.map(|_| ())
    }

    /// Whether the account, the domain or the split row that it is part of is there.
    pub(crate) async fn belongs(&mut self, place: &Place) -> Result<bool, Error> {
        if let (Some(whole), Some(number)) = (&place.whole, place.piece) {
            return Ok(match self.txn.get(whole).await {
                Ok(value) => value.and_then(|value| codec::pieces(&value)).is_some_and(|count| number < count),
                // A finding of its own.
                Err(Error::Corrupt(_)) => true,
                Err(error) => return Err(error),
            });
        }
        match (place.subspace, place.account, place.domain) {
            (Subspace::Account | Subspace::Domain, ..) => Ok(true),
            (_, Some(account), _) => self.exists(keys::account(account)).await,
            (_, _, Some(domain)) => self.exists(keys::domain(domain)).await,
            _ => Ok(true),
        }
    }

    async fn exists(&mut self, key: Key) -> Result<bool, Error> {
        if let Some(known) = self.owners.get(&*key) {
            return Ok(*known);
        }
        let exists = match self.txn.get(&key).await {
            Ok(value) => value.is_some(),
            Err(Error::Corrupt(_)) => true,
            Err(error) => return Err(error),
        };
        self.owners.insert(key.to_vec(), exists);
        Ok(exists)
    }
}

/// Whether other rows tell what a row of this kind said.
fn finding_remedy(subspace: Subspace) -> super::Remedy {
    use Subspace as S;
    match subspace {
        S::Credential | S::DkimKey | S::Address | S::QueueWork | S::QueueMessage | S::Spool | S::BlobState => {
            super::Remedy::Restore
        }
        S::Secret | S::Meta | S::Subscription | S::Done | S::Email => super::Remedy::Restore,
        _ => super::Remedy::Repair,
    }
}
