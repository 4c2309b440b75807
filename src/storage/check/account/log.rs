//! What an account remembers of its past: the change log, and the proofs of requests that were done.

use std::collections::HashMap;

use posthouse_mail::{IngestId, MailboxId, ModSeq, Uid};

use super::Walk;
use crate::check::{Rule, STEP, Source};
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts};
use crate::record::{ChangeRow, DoneRow, UidRange};
use crate::transaction::Transaction;

impl Walk<'_> {
    /// The change log names a message under its ModSeq, unless that is below the floor.
    pub(super) async fn told(
        &mut self,
        txn: &mut Transaction<'_>,
        (id, uid): (MailboxId, Uid),
        modseq: u64,
    ) -> Result<(), Error> {
        if modseq <= self.row.change_floor {
            return Ok(());
        }
        let row = match ModSeq::new(modseq) {
            Some(modseq) => codec::get::<ChangeRow>(txn, &keys::change(self.id, modseq)).await?,
            None => None,
        };
        let change = row.and_then(|row| row.mailboxes.into_iter().find(|change| change.mailbox == id.get()));
        let is_in =
            |runs: &[UidRange]| runs.iter().any(|run| uid.get() >= run.first && uid.get() - run.first < run.count);
        if !change.is_some_and(|change| is_in(&change.added) || is_in(&change.flags)) {
            self.find(Rule::ChangeLog, format!("{id} uid {uid}"), format!("no change {modseq} tells of it"));
        }
        Ok(())
    }

    pub(super) async fn changes(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::changes(self.id);
        let mut highest: HashMap<u64, u64> = HashMap::new();
        let mut last = self.row.change_floor;
        loop {
            let txn = source.step();
            let (rows, more) = codec::scan::<ChangeRow>(txn, &range, STEP).await?;
            for (key, row) in &rows {
                let modseq = crate::change_log::modseq_of(key)?.get();
                if modseq != last + 1 || modseq > self.row.modseq {
                    self.find(
                        Rule::ChangeLog,
                        format!("change {modseq}"),
                        format!("follows {last}, of {}", self.row.modseq),
                    );
                }
                last = modseq;
                for change in &row.mailboxes {
                    highest.insert(change.mailbox, modseq);
                    self.expunged(txn, MailboxId::new(change.mailbox), &change.expunged).await?;
                }
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        if last != self.row.modseq {
            self.find(Rule::ChangeLog, "", format!("the log ends at {last}, the account is at {}", self.row.modseq));
        }
        let told: Vec<(u64, u64)> = highest.into_iter().collect();
        for (id, modseq) in told {
            let row = self.mailboxes.get(&id).filter(|row| row.deleted_at.is_none());
            if row.is_some_and(|row| row.highest_modseq != modseq) {
                self.find(Rule::ChangeLog, MailboxId::new(id), format!("its last change is {modseq}"));
            }
        }
        Ok(())
    }

    async fn expunged(&mut self, txn: &mut Transaction<'_>, id: MailboxId, runs: &[UidRange]) -> Result<(), Error> {
        for uid in runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count)) {
            let uid = crate::message::uid(uid)?;
            if txn.get(&keys::membership(self.id, id, uid)).await?.is_some() {
                self.find(Rule::ChangeLog, format!("{id} uid {uid}"), "it was expunged and is there");
            }
        }
        Ok(())
    }

    pub(super) async fn proofs(&mut self, source: &mut Source) -> Result<(), Error> {
        let mut range = keys::dones(self.id);
        let mut count = 0_u64;
        loop {
            let (rows, more) = codec::scan::<DoneRow>(source.step(), &range, STEP).await?;
            for (key, row) in &rows {
                count += 1;
                let late = row.modseq > self.row.modseq;
                if late || (!row.target_uids.is_empty() && row.target_uids.len() != row.uids.len()) {
                    let mut parts = KeyParts::of(key);
                    let item = parts.u32().unwrap_or(0);
                    let request = IngestId::new(parts.u128().unwrap_or(0));
                    self.find(Rule::Done, format!("request {request} item {item}"), "it proves what cannot have been");
                }
            }
            match rows.last() {
                Some((key, _)) if more => range.begin = keys::after(key),
                _ => break,
            }
        }
        if count != self.row.done_count {
            let detail = format!(
                "{} proofs of requests counted, {count} present: a repeat of a lost one is done again",
                self.row.done_count
            );
            self.lost(Rule::Done, "", detail);
        }
        Ok(())
    }
}
