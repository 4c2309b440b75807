//! The way to every account's mailbox actor, for sessions, spool and queue.
//!
//! Each call has one deadline (`mailbox.request_timeout`), within which a request whose answer was lost is asked again.

use std::sync::Arc;
use std::time::Duration;

use posthouse_cluster::{Placement, Router};
use posthouse_conf::Settings;
use posthouse_mail::stage::StoredMessage;
use posthouse_mail::{AccountId, ModSeq, UnixMillis};
use posthouse_storage::Store;
use posthouse_storage::lock::Holder;
use posthouse_storage::mailbox::{Changed, Create, Delete, Rename};
use posthouse_storage::message::{Append, Copied, Copy, Expunge, Expunged, FlagsSet, SetFlags};
use posthouse_storage::sweep::Keep;
use ractor::{ActorCell, SpawnErr};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ledger, StoreLedger};
use super::request::{Answer, MailboxError, Request};
use super::{AccountKey, MailboxEntity, MailboxMsg};
use crate::notice::Notices;

/// All mailbox actors; a cheap clone.
pub struct Mailboxes<L: Ledger = StoreLedger> {
    router: Router<MailboxEntity<L>>,
    notices: Notices,
    request_timeout: Duration,
}

impl<L: Ledger> Clone for Mailboxes<L> {
    fn clone(&self) -> Self {
        Self { router: self.router.clone(), notices: self.notices.clone(), request_timeout: self.request_timeout }
    }
}

/// Takes the one kind of answer that a request can have.
macro_rules! answer {
    ($asked:expr, $kind:path) => {
        match $asked.await? {
            $kind(value) => Ok(value),
            other => Err(MailboxError::Unavailable(format!("an answer to another question: {other:?}"))),
        }
    };
}

impl Mailboxes {
    /// Starts the supervisor of mailbox actors under `parent`.
    pub async fn start(
        store: Store,
        placement: Placement,
        notices: Notices,
        settings: &Settings,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let keep = Keep { done: settings.storage.done_ttl.get(), changes: settings.storage.change_log_ttl.get() };
        Self::over(StoreLedger { store, keep }, placement, notices, settings, parent).await
    }
}

impl<L: Ledger> Mailboxes<L> {
    /// The same over any ledger.
    pub(crate) async fn over(
        ledger: L,
        placement: Placement,
        notices: Notices,
        settings: &Settings,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let entity = MailboxEntity { ledger, notices: notices.clone(), settings: settings.mailbox.clone() };
        let router = Router::start(entity, placement, settings.supervise.clone(), parent).await?;
        Ok(Self { router, notices, request_timeout: settings.mailbox.request_timeout.get() })
    }

    /// Delivers; returns after the commit.
    pub async fn append(&self, account: AccountId, append: Append) -> Result<StoredMessage, MailboxError> {
        answer!(self.ask(account, Request::Append(Arc::new(append))), Answer::Stored)
    }

    pub async fn set_flags(&self, account: AccountId, change: SetFlags) -> Result<FlagsSet, MailboxError> {
        answer!(self.ask(account, Request::SetFlags(Arc::new(change))), Answer::FlagsSet)
    }

    pub async fn expunge(&self, account: AccountId, expunge: Expunge) -> Result<Expunged, MailboxError> {
        answer!(self.ask(account, Request::Expunge(Arc::new(expunge))), Answer::Expunged)
    }

    pub async fn copy(&self, account: AccountId, copy: Copy) -> Result<Copied, MailboxError> {
        answer!(self.ask(account, Request::Copy(Arc::new(copy))), Answer::Copied)
    }

    pub async fn move_to(&self, account: AccountId, copy: Copy) -> Result<Copied, MailboxError> {
        answer!(self.ask(account, Request::Move(Arc::new(copy))), Answer::Copied)
    }

    pub async fn create(&self, account: AccountId, create: Create) -> Result<Changed, MailboxError> {
        answer!(self.ask(account, Request::Create(Arc::new(create))), Answer::Changed)
    }

    pub async fn rename(&self, account: AccountId, rename: Rename) -> Result<Changed, MailboxError> {
        answer!(self.ask(account, Request::Rename(Arc::new(rename))), Answer::Changed)
    }

    pub async fn delete(&self, account: AccountId, delete: Delete) -> Result<Changed, MailboxError> {
        answer!(self.ask(account, Request::Delete(Arc::new(delete))), Answer::Changed)
    }

    /// Adds a path to the subscriptions or removes it.
    pub async fn set_subscribed(&self, account: AccountId, path: &str, subscribed: bool) -> Result<(), MailboxError> {
        self.ask(account, Request::SetSubscribed { path: path.into(), subscribed }).await.map(drop)
    }

    /// Takes the POP3 lock, or renews it for its holder (RFC 1939 §4).
    pub async fn lock_maildrop(
        &self,
        account: AccountId,
        holder: Holder,
        expires_at: UnixMillis,
    ) -> Result<(), MailboxError> {
        self.ask(account, Request::LockMaildrop { holder, expires_at }).await.map(drop)
    }

    pub async fn unlock_maildrop(&self, account: AccountId, holder: Holder) -> Result<(), MailboxError> {
        self.ask(account, Request::UnlockMaildrop { holder }).await.map(drop)
    }

    /// Takes away what a deleted account or mailbox left, to the end.
    pub async fn tidy(&self, account: AccountId) -> Result<(), MailboxError> {
        while let Answer::Tidied { more: true } = self.ask(account, Request::Tidy).await? {}
        Ok(())
    }

    /// Wakes the receiver after each change of the account.
    pub fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>> {
        self.notices.subscribe(account)
    }

    /// What tells of changes.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Mailbox actors in memory.
    pub fn active(&self) -> usize {
        self.router.active()
    }

    async fn ask(&self, account: AccountId, request: Request) -> Result<Answer, MailboxError> {
        let deadline = Instant::now() + self.request_timeout;
        let make = |permit, answer| MailboxMsg::Ask { request: request.clone(), permit, answer };
        self.router.ask(&AccountKey(account), deadline, make).await?
    }
}
