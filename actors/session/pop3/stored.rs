//! The maildrops of the store: reads come from snapshots, changes go through the account's mailbox actor.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use posthouse_mail::{AccountId, MailboxId, SpecialUse, Uid};
use posthouse_storage::lock::Holder;
use posthouse_storage::message::{self, Expunge, ExpungeWhich, Octets};
use posthouse_storage::{Error, Store, mailbox};
use posthouse_wire::pop3::{Entry, Maildrop};
use posthouse_wire::sasl::Credentials;
use tokio::time::Instant;

use super::maildrops::{Maildrops, Opened, Trouble};
use crate::auth::{AuthRefusal, Authenticator};
use crate::clock;
use crate::mailbox::Mailboxes;

/// Rows of the inbox read at once, and messages removed with one request.
const PAGE: usize = 1000;

/// The maildrops of the store.
#[derive(Clone)]
pub struct StoredMaildrops {
    store: Store,
    mailboxes: Mailboxes,
    auth: Authenticator,
    lock_lease: Duration,
    maildrop_max: usize,
}

impl StoredMaildrops {
    pub fn new(store: Store, mailboxes: Mailboxes, auth: Authenticator, settings: &posthouse_conf::Pop3) -> Self {
        let (lock_lease, maildrop_max) = (settings.lock_lease.get(), settings.maildrop_max);
        Self { store, mailboxes, auth, lock_lease, maildrop_max }
    }
}

impl Maildrops for StoredMaildrops {
    async fn log_in(&self, credentials: &Credentials, client: IpAddr) -> Result<AccountId, AuthRefusal> {
        let Credentials { authorization, authentication, password } = credentials;
        // RFC 4616 §2: acting as another is a right that nobody has here.
        if authorization.as_ref().is_some_and(|other| !other.eq_ignore_ascii_case(authentication)) {
            return Err(AuthRefusal::Wrong);
        }
        self.auth.check(authentication, password, client).await.map(|login| login.account)
    }

    async fn open(&self, account: AccountId) -> Result<(Opened, Maildrop), Trouble> {
        let asked_at = Instant::now();
        let holder: Holder = rand::random();
        self.lock(account, holder).await?;
        match self.snapshot(account).await {
            Ok((inbox, maildrop)) => {
                let mut opened = Opened::new(account, inbox, holder, self.lock_lease);
                opened.renewed(asked_at);
                Ok((opened, maildrop))
            }
            Err(_) => {
                self.unlock(account, holder).await;
                Err(Trouble::Temporary)
            }
        }
    }

    async fn renew(&self, opened: &mut Opened) -> Result<(), Trouble> {
        let asked_at = Instant::now();
        self.lock(opened.account, opened.holder).await?;
        opened.renewed(asked_at);
        Ok(())
    }

    async fn release(&self, opened: &Opened) {
        self.unlock(opened.account, opened.holder).await;
    }

    async fn find(&self, opened: &Opened, uid: Uid) -> Result<Option<Octets>, Trouble> {
        let found = message::memberships_of(&self.store, opened.account, opened.inbox, &[uid]).await;
        let Some(membership) = found.map_err(trouble)?.into_iter().next() else {
            return Ok(None);
        };
        let email = message::email(&self.store, opened.account, membership.email).await.map_err(trouble)?;
        Ok(email.map(|email| email.octets()))
    }

    async fn read(&self, message: &Octets, range: Range<u64>) -> Result<Bytes, Trouble> {
        message::octets(&self.store, message, range).await.map_err(trouble)
    }

    async fn remove(&self, opened: &Opened, uids: Vec<Uid>) -> Result<(), Trouble> {
        // The lock once more: a session that lost it must not remove what another was shown.
        self.lock(opened.account, opened.holder).await?;
        for uids in uids.chunks(PAGE) {
            let request = clock::ingest_id(clock::now());
            let expunge = Expunge { request, mailbox: opened.inbox, uids: uids.to_vec(), which: ExpungeWhich::All };
            self.mailboxes.expunge(opened.account, expunge).await.map_err(|_| Trouble::Temporary)?;
        }
        Ok(())
    }
}

impl StoredMaildrops {
    async fn lock(&self, account: AccountId, holder: Holder) -> Result<(), Trouble> {
        let expires_at = clock::now().after(self.lock_lease);
        self.mailboxes
            .lock_maildrop(account, holder, expires_at)
            .await
            .map_err(|error| if error.is_in_use() { Trouble::InUse } else { Trouble::Temporary })
    }

    async fn unlock(&self, account: AccountId, holder: Holder) {
        // Where it fails, the lease ends it.
        let _ = self.mailboxes.unlock_maildrop(account, holder).await;
    }

    /// The inbox, the oldest messages first, as many as one session shows.
    async fn snapshot(&self, account: AccountId) -> Result<(MailboxId, Maildrop), Error> {
        let inbox = mailbox::by_role(&self.store, account, SpecialUse::Inbox).await?.ok_or(Error::NotFound)?;
        let mut entries = Vec::new();
        let mut next = Some(Uid::FIRST);
        while let Some(from) = next.filter(|_| entries.len() < self.maildrop_max) {
            let limit = PAGE.min(self.maildrop_max - entries.len());
            let page = message::memberships(&self.store, account, inbox.id, from, limit).await?;
            entries.extend(page.messages.iter().map(|shown| Entry { uid: shown.uid, size: shown.size }));
            next = page.next;
        }
        Ok((inbox.id, Maildrop::new(inbox.uid_validity, entries)))
    }
}

fn trouble(error: Error) -> Trouble {
    if error == Error::Busy { Trouble::InUse } else { Trouble::Temporary }
}
