//! One account or one mailbox comes back from a backup: as new mailboxes, so that nothing that is there is written over.
//!
//! Everything goes through the account's mailbox actor, in the order in which it stood: Uids are fresh, and a client sees
//! the messages come as it sees any other. Quotas are not asked: what is restored was there before.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use posthouse_mail::{AccountId, Failure, IngestId, MailboxId, SpecialUse};
use posthouse_storage::account::{self, NewAccount};
use posthouse_storage::backup::Target;
use posthouse_storage::backup::image::{AccountImage, MailboxImage, MessageImage, OpenPoint};
use posthouse_storage::mailbox::{self, Create, NameLimits};
use posthouse_storage::message::{self, Append, AppendBody, QuotaRule};
use posthouse_storage::{Error, StagedBody, Writer, domain, keys};

use super::super::account::parse;
use super::super::{Progress, RestoreOrder, RestoreView, words};
use crate::clock;
use crate::mailbox::{MailboxError, Mailboxes};
use crate::node::Services;

/// Times that a delivery is tried when the account is busy.
const TRIES: u32 = 6;
/// The first wait between them; doubles.
const WAIT: Duration = Duration::from_millis(100);

/// Things left out that are told.
const LEFT_OUT_MAX: usize = 1000;

/// A mailbox of the backup and where it goes.
struct Move {
    from: MailboxImage,
    to: String,
    role: Option<SpecialUse>,
}

/// Brings back what the order names.
pub(super) async fn run(
    services: &Services,
    target: &Target,
    order: &RestoreOrder,
    progress: Progress<'_>,
) -> Result<RestoreView, String> {
    let address = order.account.as_deref().unwrap_or_default();
    let mut point = OpenPoint::open(target, order.point.as_deref()).await.map_err(words)?;
    let image = point.account(&parse(address)?).await.map_err(words)?;
    let mut image = image.ok_or_else(|| format!("point {} has no account {address}", point.id()))?;
    let existing = account::by_address(&services.store, &image.address).await.map_err(words)?;
    let moves = plan(services, order, &image, existing.as_ref().map(|account| account.id)).await?;
    let id = match existing {
        Some(account) => account.id,
        None => found(services, &image).await?,
    };
    let total: usize = moves.iter().map(|one| one.from.messages).sum();
    let mut left_out = point.passed_over().to_vec();
    for reason in image.damaged() {
        left_out.push(format!("messages: {reason}"));
    }
    let mut work = Work { services, id, total, done: 0, left_out, progress };
    for one in &moves {
        work.mailbox((&mut point, &mut image), one).await?;
    }
    Ok(RestoreView {
        point: point.id().to_owned(),
        accounts: u64::from(order.mailbox.is_none()),
        mailboxes: moves.into_iter().map(|one| one.to).collect(),
        messages: u64::try_from(work.done).unwrap_or(u64::MAX),
        under_way: 0,
        left_out: work.left_out,
    })
}

/// Which mailboxes go where. Nothing is touched before all of this is known to fit.
async fn plan(
    services: &Services,
    order: &RestoreOrder,
    image: &AccountImage,
    existing: Option<AccountId>,
) -> Result<Vec<Move>, String> {
    let address = &image.address;
    let chosen = match (&order.mailbox, existing) {
        (Some(_), None) => return Err(format!("there is no account {address}: restore it without --mailbox")),
        (None, None) if order.into.is_some() => {
            return Err(format!("there is no account {address}: restore it without --into"));
        }
        (None, Some(_)) if order.into.is_none() => {
            return Err(format!("{address} exists: name a mailbox under which the restored ones go, with --into"));
        }
        (Some(path), Some(_)) => {
            let wanted = mailbox::canonical(path).unwrap_or_default();
            let one = image.mailboxes().iter().find(|mailbox| mailbox.path == wanted).cloned();
            vec![one.ok_or_else(|| format!("the backup has no mailbox {path} of {address}"))?]
        }
        (None, _) => image.mailboxes().to_vec(),
    };
    let to = |path: &str| match (&order.mailbox, &order.into) {
        (Some(_), Some(into)) => into.clone(),
        (None, Some(into)) => format!("{into}{}{path}", mailbox::SEPARATOR),
        (_, None) => path.to_owned(),
    };
    if let Some(id) = existing {
        let top = order.into.as_ref().or(order.mailbox.as_ref()).map(String::as_str).unwrap_or_default();
        if mailbox::by_path(&services.store, id, top).await.map_err(words)?.is_some() {
            return Err(format!("{address} has a mailbox {top}: name another with --into"));
        }
    }
    let role = |from: &MailboxImage| from.role.filter(|_| existing.is_none());
    Ok(chosen.into_iter().map(|from| Move { to: to(&from.path), role: role(&from), from }).collect())
}

/// Makes the account anew, under an id of its own: the old one may still be on its way out.
async fn found(services: &Services, image: &AccountImage) -> Result<AccountId, String> {
    let home = domain::by_name(&services.store, &image.address.domain).await.map_err(words)?;
    let home = home.ok_or_else(|| format!("{} is not a domain of this site: create it first", image.address.domain))?;
    let new = NewAccount {
        address: image.address.clone(),
        password_hash: image.password_hash(),
        quota_max: image.quota_max(),
        admin: image.is_admin(),
        disabled: image.is_disabled(),
    };
    let id = AccountId::new(rand::random());
    let fence = services.placement.fence(keys::account_shard(id));
    let writer = Writer { fence, account: id, now: clock::now() };
    let domain_fence = services.placement.fence(keys::domain_shard(home.id));
    match account::create(&services.store, &writer, domain_fence, &new).await {
        Ok(account) => Ok(account.id),
        Err(Error::Exists) => Err(format!("{} is an alias now: delete that first", image.address)),
        Err(error) => Err(words(error)),
    }
}

struct Work<'a> {
    services: &'a Services,
    id: AccountId,
    total: usize,
    done: usize,
    /// What the backup can no longer tell.
    left_out: Vec<String>,
    progress: Progress<'a>,
}

impl Work<'_> {
    async fn mailbox(&mut self, (point, image): (&mut OpenPoint, &mut AccountImage), one: &Move) -> Result<(), String> {
        let target = self.target(one).await?;
        if one.from.subscribed {
            self.services.mailboxes.set_subscribed(self.id, &one.to, true).await.map_err(words)?;
        }
        // Deliveries wait beside each other, so that the actor makes one transaction of many.
        let settings = &self.services.settings.mailbox;
        let window = settings.merge_max.min(settings.inbox_max / 2).max(1);
        let mut under_way = FuturesOrdered::new();
        for place in 0..one.from.messages {
            let Some(message) = image.message(one.from.id, place).await.map_err(words)? else { break };
            let staged = match point.stage(&self.services.store, &message.blob).await {
                Err(Error::BackupDamaged(reason)) => {
                    point.confirm().await.map_err(words)?;
                    if self.left_out.len() < LEFT_OUT_MAX {
                        self.left_out.push(format!("a message of {}: {reason}", one.from.path));
                    }
                    continue;
                }
                staged => staged.map_err(words)?,
            };
            // A body that is there and damaged would be taken for this one.
            self.services.store.heal(&staged).await.map_err(words)?;
            under_way.push_back(deliver(self.services.mailboxes.clone(), self.id, append(target, message, staged)));
            if under_way.len() >= window {
                self.note(under_way.next().await)?;
            }
        }
        while !under_way.is_empty() {
            self.note(under_way.next().await)?;
        }
        Ok(())
    }

    /// The mailbox that takes the messages: a default one of a new account, or one made now.
    async fn target(&self, one: &Move) -> Result<MailboxId, String> {
        let store = &self.services.store;
        // A level above one that was made before is there already.
        if let Some(there) = mailbox::by_path(store, self.id, &one.to).await.map_err(words)? {
            return Ok(there.id);
        }
        let role = match one.role {
            Some(role) if mailbox::by_role(store, self.id, role).await.map_err(words)?.is_none() => Some(role),
            _ => None,
        };
        let settings = &self.services.settings.mailbox;
        let limits = NameLimits {
            mailboxes_max: settings.mailboxes_max,
            name_max: settings.name_max,
            depth_max: settings.depth_max,
        };
        let create = Create { request: new_request(), path: one.to.clone(), role, limits };
        let made = self.services.mailboxes.create(self.id, create).await;
        Ok(made.map_err(|error| format!("{}: {error}", one.to))?.mailbox)
    }

    fn note(&mut self, delivered: Option<Result<(), MailboxError>>) -> Result<(), String> {
        delivered.unwrap_or(Ok(())).map_err(words)?;
        self.done += 1;
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        (self.progress)(number(self.done), number(self.total), &format!("{} of {} messages", self.done, self.total));
        Ok(())
    }
}

/// Delivers one message; asked again under its own id, it comes once.
async fn deliver(mailboxes: Mailboxes, account: AccountId, append: Append) -> Result<(), MailboxError> {
    let mut wait = WAIT;
    for _ in 1..TRIES {
        match mailboxes.append(account, append.clone()).await {
            Err(error) if error.failure() == Failure::OURS => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            outcome => return outcome.map(drop),
        }
    }
    mailboxes.append(account, append).await.map(drop)
}

fn append(target: MailboxId, message: MessageImage, staged: StagedBody) -> Append {
    Append {
        request: new_request(),
        item: 0,
        target: message::Target::Mailbox(target),
        flags: message.flags,
        received_at: message.received_at,
        prefix: message.prefix,
        body: AppendBody::Staged(staged),
        structure: message.structure,
        quota: QuotaRule::Tolerate,
    }
}

fn new_request() -> IngestId {
    IngestId::from_parts(clock::now().0, rand::random())
}
