//! One spooled message handed on: to the mailboxes of local recipients, into the queue for others, back to the sender for
//! those who do not exist.
//!
//! Apart from the actors, since this is the flow that the 250 stands for. Deliveries come first, each proved by its own
//! `done` row; one transaction then ends all recipients that are through, with their queue rows and the report. A crash
//! between the two repeats the deliveries, which changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{
    AccountId, Domain, DsnNotify, FlagSet, ForwardPath, IngestId, OriginalRecipient, Recipient, SpecialUse, UnixMillis,
};
use posthouse_obs::emit;
use posthouse_obs::event::queue::{DeliveredLocally, MessageHandedOn};
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target};
use posthouse_storage::spool::{self, Finish, Queued, SpoolMessage};
use posthouse_storage::{Error, keys};
use posthouse_wire::dsn::ReportAction;
use posthouse_wire::mime::{Limits, StructureBuilder};
use posthouse_wire::smtp::trace::return_path_field;

use super::{Refusal, SpoolServices};
use crate::clock;
use crate::directory::{Resolution, Target as AddressTarget};
use crate::queue::bounce::{Fate, own_finding};

/// How far a message came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Finished,
    /// Some recipients are left.
    Again {
        open: usize,
        reason: String,
    },
}

/// Hands on what is left of a message.
pub(super) async fn distribute(services: &SpoolServices, id: IngestId) -> Result<End, Error> {
    let Some(message) = spool::get(&services.store, id).await? else { return Ok(End::Finished) };
    let now = clock::now();
    let mut round = Round { now, ..Round::default() };
    for (number, entry) in message.recipients.iter().enumerate().filter(|(_, entry)| !entry.finished) {
        round.sort(services, number, &entry.recipient).await;
    }
    round.deliver(services, &message).await?;
    round.settle(services, &message);
    round.finish(services, &message).await
}

/// What one recipient needs.
#[derive(Debug)]
struct Open {
    number: usize,
    recipient: Recipient,
    accounts: Vec<AccountId>,
    remote: Vec<posthouse_mail::Address>,
    verdict: Option<Refusal>,
}

#[derive(Debug)]
struct Round {
    now: UnixMillis,
    open: Vec<Open>,
    delivered: BTreeMap<AccountId, Result<(), Refusal>>,
    finished: Vec<usize>,
    queue: BTreeMap<Domain, Vec<Recipient>>,
    fates: Vec<Fate>,
    told: Vec<(ForwardPath, AccountId)>,
    refused: usize,
    left: Vec<String>,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            now: UnixMillis(0),
            open: Vec::new(),
            delivered: BTreeMap::new(),
            finished: Vec::new(),
            queue: BTreeMap::new(),
            fates: Vec::new(),
            told: Vec::new(),
            refused: 0,
            left: Vec::new(),
        }
    }
}

impl Round {
    /// Finds out where a recipient's mail goes.
    async fn sort(&mut self, services: &SpoolServices, number: usize, recipient: &Recipient) {
        let mut open =
            Open { number, recipient: recipient.clone(), accounts: Vec::new(), remote: Vec::new(), verdict: None };
        match services.local.resolve(&recipient.path).await {
            Ok(Resolution::Local { targets }) => {
                for target in targets {
                    match target {
                        AddressTarget::Account { id, .. } => open.accounts.push(id),
                        AddressTarget::Remote(address) => open.remote.push(address),
                    }
                }
            }
            Ok(Resolution::NotLocal) => open.remote.extend(recipient.path.address().cloned()),
            Ok(Resolution::NoSuchUser) => {
                open.verdict = Some(Refusal { try_again: false, reason: "there is no such user here".to_owned() });
            }
            Err(error) => {
                open.verdict = Some(Refusal { try_again: error.failure().try_again, reason: error.to_string() });
            }
        }
        self.open.push(open);
    }

    /// Delivers to each account once, whichever and however many of its addresses were named.
    async fn deliver(&mut self, services: &SpoolServices, message: &SpoolMessage) -> Result<(), Error> {
        let mut accounts: Vec<_> = self.open.iter().flat_map(|open| open.accounts.iter().copied()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        if accounts.is_empty() {
            return Ok(());
        }
        let append = append_of(services, message).await?;
        for group in accounts.chunks(APPENDS_AT_ONCE) {
            let deliveries = group.iter().map(|account| services.local.append(*account, append.clone()));
            let results = join_all(deliveries).await;
            self.delivered.extend(group.iter().copied().zip(results));
        }
        Ok(())
    }

    /// Decides for each recipient: through, refused for ever, or left for the next round.
    fn settle(&mut self, services: &SpoolServices, message: &SpoolMessage) {
        let expired = self.now.since(message.transit.received_at) >= services.settings.queue.expire_after.get();
        for open in std::mem::take(&mut self.open) {
            let refusals = open.accounts.iter().filter_map(|account| self.delivered.get(account)?.as_ref().err());
            let refusal = open.verdict.iter().chain(refusals).max_by_key(|refusal| refusal.try_again).cloned();
            match refusal {
                // A failure that passes holds the recipient back as a whole; what was delivered is not delivered again.
                Some(refusal) if refusal.try_again && !expired => self.left.push(refusal.reason),
                Some(refusal) => self.refuse(open, &refusal, message.junk),
                None => self.pass(open, message.junk),
            }
        }
    }

    fn refuse(&mut self, open: Open, refusal: &Refusal, junk: bool) {
        self.finished.push(open.number);
        self.refused += 1;
        if !junk {
            let status = if open.accounts.is_empty() && !refusal.try_again { (5, 1, 1) } else { (5, 3, 0) };
            self.fates.push(own_finding(open.recipient, ReportAction::Failed, status, &refusal.reason));
        }
    }

    fn pass(&mut self, open: Open, junk: bool) {
        self.finished.push(open.number);
        for address in &open.remote {
            let recipient = forwarded(&open.recipient, address, junk);
            self.queue.entry(address.domain.clone()).or_default().push(recipient);
        }
        self.told.extend(open.accounts.iter().map(|account| (open.recipient.path.clone(), *account)));
        if !open.accounts.is_empty() && !junk {
            let reason = "delivered to the recipient's mailbox";
            self.fates.push(own_finding(open.recipient, ReportAction::Delivered, (2, 1, 5), reason));
        }
    }

    /// Makes the round durable, then tells everyone who is concerned.
    async fn finish(self, services: &SpoolServices, message: &SpoolMessage) -> Result<End, Error> {
        let transit = &message.transit;
        let open = self.left.len();
        if !self.finished.is_empty() || open == 0 {
            let report = services.reports.write(&services.store, transit, &self.fates, self.now).await?;
            let report_id = report.as_ref().map(|report| report.message.transit.id);
            let expires_at = transit.received_at.after(services.settings.queue.expire_after.get());
            let queued = |(destination, recipients): (Domain, Vec<Recipient>)| Queued {
                destination,
                recipients,
                due: self.now,
                expires_at,
            };
            let queue: Vec<_> = self.queue.into_iter().map(queued).collect();
            let destinations: Vec<_> = queue.iter().map(|entry| entry.destination.clone()).collect();
            let fence = services.placement.fence(keys::spool_shard(transit.id));
            let finish = Finish { recipients: self.finished, queue, report };
            spool::finish(&services.store, fence, transit.id, &finish, self.now).await?;
            for (recipient, account) in &self.told {
                let transit_seconds = clock::now().since(transit.received_at).as_secs_f64();
                let (message, recipient, account) = (transit.id, recipient.clone(), *account);
                emit(DeliveredLocally { message, recipient, account, transit_seconds });
            }
            let (local, refused) = (self.told.len(), self.refused);
            if open == 0 {
                emit(MessageHandedOn { message: transit.id, local, queued: destinations.len(), refused });
            }
            report_id.into_iter().for_each(|id| services.nudge.nudge(id));
            for destination in &destinations {
                services.queues.nudge(destination).await;
            }
        }
        match self.left.into_iter().next() {
            None => Ok(End::Finished),
            Some(reason) => Ok(End::Again { open, reason }),
        }
    }
}

/// A recipient at an alias's target keeps the address that the sender wrote (RFC 3461 §5.2.7). Junk causes no reports.
fn forwarded(recipient: &Recipient, address: &posthouse_mail::Address, junk: bool) -> Recipient {
    let path = ForwardPath::Address(address.clone());
    let original = recipient.original.clone().or_else(|| {
        let was_alias = recipient.path != path;
        was_alias.then(|| OriginalRecipient { address_type: "rfc822".to_owned(), address: recipient.path.to_string() })
    });
    Recipient { path, notify: if junk { DsnNotify::NEVER } else { recipient.notify }, original }
}

/// The append that every account of the message gets.
async fn append_of(services: &SpoolServices, message: &SpoolMessage) -> Result<Append, Error> {
    let transit = &message.transit;
    // RFC 5321 §4.4: Return-Path is added at final delivery, above everything else.
    let mut prefix = return_path_field(&transit.reverse_path).into_bytes();
    prefix.extend_from_slice(&transit.added_headers);
    let structure = structure(services, message, &prefix).await?;
    Ok(Append {
        request: transit.id,
        item: 0,
        target: Target::Role(if message.junk { SpecialUse::Junk } else { SpecialUse::Inbox }),
        flags: FlagSet::default(),
        received_at: transit.received_at,
        prefix: Bytes::from(prefix),
        body: AppendBody::Held(transit.body),
        structure,
        quota: QuotaRule::Tolerate,
    })
}

/// Scans the message as a client will see it, without ever holding it whole.
async fn structure(services: &SpoolServices, message: &SpoolMessage, prefix: &[u8]) -> Result<MessageStructure, Error> {
    let body = &message.transit.body;
    let mut builder = StructureBuilder::new(Limits::default());
    builder.push(prefix);
    let mut offset = 0;
    while offset < body.size {
        let end = (offset + SCAN_CHUNK).min(body.size);
        builder.push(&services.store.body_read(body, offset..end).await?);
        offset = end;
    }
    let total = body.size.saturating_add(u64::try_from(prefix.len()).unwrap_or(u64::MAX));
    Ok(builder.finish(total))
}

/// Mailboxes that are written to at once for one message.
const APPENDS_AT_ONCE: usize = 16;
const SCAN_CHUNK: u64 = 256 * 1024;
