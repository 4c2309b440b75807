//! The replay of the change log: rounds that catch up, and the last one, whose snapshot is the image's.

use std::collections::{BTreeMap, BTreeSet};

use posthouse_mail::{AccountId, ModSeq};

use super::message::{RunWriter, Shown, email_at};
use super::{Closing, Taking, alive};
use crate::backup::bundle::BundleWriter;
use crate::backup::damage::{Damage, readable};
use crate::backup::record::{GoneEntry, MessageEntry, RunRow};
use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::{AccountRow, ChangeRow, EmailRow};
use crate::transaction::Transaction;

/// Rows of the change log read at once.
const CHANGES_STEP: usize = 500;

/// Places that changes name.
#[derive(Default)]
pub(super) struct Touched {
    /// Mailbox and Uid.
    places: BTreeSet<(u64, u32)>,
    /// Everything up to this ModSeq was named.
    up_to: u64,
    /// The log goes on.
    more: bool,
}

/// What the rounds have added so far.
pub(super) struct Rounds<'a, 't> {
    taking: &'a Taking<'t>,
    id: AccountId,
    /// Changes up to this ModSeq are told.
    up_to: u64,
    runs: Vec<RunRow>,
    /// What the image began with, and what left since.
    gone_before: Vec<Vec<u8>>,
    gone: BTreeMap<u64, BTreeSet<u32>>,
    written: u64,
    pub damaged: Damage,
}

impl<'a, 't> Rounds<'a, 't> {
    /// Goes on from what was read at a ModSeq or later.
    pub fn onto(
        taking: &'a Taking<'t>,
        id: AccountId,
        up_to: u64,
        runs: Vec<RunRow>,
        gone_before: Vec<Vec<u8>>,
    ) -> Self {
        Self { taking, id, up_to, runs, gone_before, gone: BTreeMap::new(), written: 0, damaged: Damage::default() }
    }

    /// Catches up, then reads the rest in one snapshot; `None` when the account was deleted meanwhile.
    pub async fn close(&mut self) -> Result<Option<Closing>, Error> {
        let settings = &self.taking.target.settings;
        for _ in 0..settings.rounds_max {
            let mut txn = self.taking.store.snapshot();
            let Some(row) = alive(&mut txn, self.id).await? else { return Ok(None) };
            let touched = self.touched(&mut txn, &row).await?;
            if touched.more || touched.places.len() > settings.replay_max {
                self.catch_up(touched).await?;
                continue;
            }
            match self.last(&mut txn, &touched, row).await {
                // A slow store: what was read so far is read again, and there is less of it then.
                Err(Error::TooOld) => self.catch_up(touched).await?,
                closing => return closing.map(Some),
            }
        }
        Err(Error::Unavailable(format!("account {} changes faster than it can be read", self.id)))
    }

    /// What the log names after `up_to`.
    async fn touched(&self, txn: &mut Transaction<'_>, row: &AccountRow) -> Result<Touched, Error> {
        if self.up_to < row.change_floor {
            return Err(Error::Unavailable(format!("the change log of account {} was swept meanwhile", self.id)));
        }
        let mut range = keys::changes(self.id);
        if let Some(up_to) = ModSeq::new(self.up_to) {
            range.begin = keys::after(&keys::change(self.id, up_to));
        }
        let (rows, more) = codec::scan::<ChangeRow>(txn, &range, CHANGES_STEP).await?;
        let mut touched = Touched { up_to: row.modseq, more, ..Touched::default() };
        for (key, row) in rows {
            if more {
                touched.up_to = crate::change_log::modseq_of(&key)?.get();
            }
            for change in &row.mailboxes {
                let ranges = change.added.iter().chain(&change.flags).chain(&change.expunged);
                let uids = ranges.flat_map(|run| run.first..run.first.saturating_add(run.count));
                touched.places.extend(uids.map(|uid| (change.mailbox, uid)));
            }
        }
        Ok(touched)
    }

    /// A round that need not fit in one snapshot: what it reads may be newer than `up_to`, and is then named again.
    async fn catch_up(&mut self, touched: Touched) -> Result<(), Error> {
        let places: Vec<(u64, u32)> = touched.places.into_iter().collect();
        let mut found = BTreeMap::new();
        for step in places.chunks(self.taking.target.settings.rows_at_once.max(1)) {
            self.taking.lock.renew().await?;
            let mut txn = self.taking.store.snapshot();
            self.look(&mut txn, step, &mut found).await?;
        }
        self.add(found).await?;
        self.up_to = touched.up_to;
        Ok(())
    }

    async fn last(&mut self, txn: &mut Transaction<'_>, touched: &Touched, row: AccountRow) -> Result<Closing, Error> {
        let places: Vec<(u64, u32)> = touched.places.iter().copied().collect();
        let mut found = BTreeMap::new();
        self.look(txn, &places, &mut found).await?;
        let closing = Closing::read(txn, self.id, row, &mut self.damaged).await?;
        self.add(found).await?;
        self.up_to = touched.up_to;
        Ok(closing)
    }

    /// What stands at these places now.
    async fn look(
        &mut self,
        txn: &mut Transaction<'_>,
        places: &[(u64, u32)],
        found: &mut BTreeMap<u64, MessageEntry>,
    ) -> Result<(), Error> {
        let mut emails = BTreeSet::new();
        for place in places {
            let what = || format!("mailbox {} under Uid {}", place.0, place.1);
            let Some(found) = readable(email_at(txn, self.id, *place).await, what, &mut self.damaged)? else {
                continue;
            };
            match found {
                Some(email) => {
                    emails.insert(email);
                }
                // Uids are never given twice (RFC 9051 §2.3.1.1): what left stays away.
                None => {
                    self.gone.entry(place.0).or_default().insert(place.1);
                }
            }
        }
        for email in emails {
            let row = codec::expect::<EmailRow>(txn, &keys::email(self.id, email), "the email").await;
            let what = || format!("the message {email}");
            if let Some(row) = readable(row, what, &mut self.damaged)? {
                let entry = Shown::new(&mut self.damaged).entry(txn, self.id, email, row).await?;
                found.insert(email.get(), entry);
            }
        }
        Ok(())
    }

    async fn add(&mut self, found: BTreeMap<u64, MessageEntry>) -> Result<(), Error> {
        if found.is_empty() {
            return Ok(());
        }
        let mut writer = RunWriter::new(self.taking.target);
        for entry in found.values() {
            writer.push(entry).await?;
        }
        let (run, written) = writer.finish().await?;
        self.runs.push(run);
        self.written += written;
        Ok(())
    }

    /// Every run, every bundle of Uids that left, and the octets that this wrote.
    pub async fn finish(self) -> Result<(Vec<RunRow>, Vec<Vec<u8>>, u64), Error> {
        let mut writer = BundleWriter::new(self.taking.target);
        for (mailbox, uids) in self.gone {
            let uids: Vec<u32> = uids.into_iter().collect();
            writer.push(&GoneEntry { mailbox, uids: crate::writer::ranges(&uids) }).await?;
        }
        let bundle = writer.finish().await?;
        let gone = self.gone_before.into_iter().chain(bundle.names).collect();
        Ok((self.runs, gone, self.written + bundle.written))
    }
}
