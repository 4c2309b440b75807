//! The desk of a running node: reads from its store, asks its mailbox actors and its authenticator.

use std::net::IpAddr;

use posthouse_mail::{AccountId, ModSeq, StoredMessage};
use posthouse_storage::Store;
use posthouse_storage::mailbox::{Changed, Create, Delete, Rename};
use posthouse_storage::message::{Append, Copied, Copy, Expunge, Expunged, FlagsSet, SetFlags};
use posthouse_wire::imap::response::status::{Code, Status};
use posthouse_wire::sasl::Credentials;
use tokio::sync::watch;

use super::desk::Desk;
use crate::auth::{AuthRefusal, Authenticator};
use crate::mailbox::{MailboxError, Mailboxes};

/// What an IMAP session uses of a node.
#[derive(Clone)]
pub struct NodeDesk {
    pub store: Store,
    pub mailboxes: Mailboxes,
    pub auth: Authenticator,
}

impl Desk for NodeDesk {
    fn store(&self) -> &Store {
        &self.store
    }

    async fn log_in(&self, credentials: Credentials, client: IpAddr) -> Result<AccountId, Status> {
        let checked = self.auth.check(&credentials.authentication, &credentials.password, client).await;
        checked.map(|login| login.account).map_err(refused_login)
    }

    fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>> {
        self.mailboxes.subscribe(account)
    }

    async fn append(&self, account: AccountId, append: Append) -> Result<StoredMessage, Status> {
        self.mailboxes.append(account, append).await.map_err(refused)
    }

    async fn set_flags(&self, account: AccountId, change: SetFlags) -> Result<FlagsSet, Status> {
        self.mailboxes.set_flags(account, change).await.map_err(refused)
    }

    async fn expunge(&self, account: AccountId, expunge: Expunge) -> Result<Expunged, Status> {
        self.mailboxes.expunge(account, expunge).await.map_err(refused)
    }

    async fn copy(&self, account: AccountId, copy: Copy) -> Result<Copied, Status> {
        self.mailboxes.copy(account, copy).await.map_err(refused)
    }

    async fn move_to(&self, account: AccountId, copy: Copy) -> Result<Copied, Status> {
        self.mailboxes.move_to(account, copy).await.map_err(refused)
    }

    async fn create(&self, account: AccountId, create: Create) -> Result<Changed, Status> {
        self.mailboxes.create(account, create).await.map_err(refused)
    }

    async fn rename(&self, account: AccountId, rename: Rename) -> Result<Changed, Status> {
        self.mailboxes.rename(account, rename).await.map_err(refused)
    }

    async fn delete(&self, account: AccountId, delete: Delete) -> Result<Changed, Status> {
        self.mailboxes.delete(account, delete).await.map_err(refused)
    }

    async fn set_subscribed(&self, account: AccountId, path: String, subscribed: bool) -> Result<(), Status> {
        self.mailboxes.set_subscribed(account, &path, subscribed).await.map_err(refused)
    }
}

/// RFC 5530 §3: a wrong password is AUTHENTICATIONFAILED, everything else passes with time.
fn refused_login(refusal: AuthRefusal) -> Status {
    let code = match refusal {
        AuthRefusal::Wrong => Code::AuthenticationFailed,
        AuthRefusal::Limited => Code::Limit,
        AuthRefusal::Busy | AuthRefusal::Unavailable => Code::Unavailable,
    };
    Status::no(refusal.to_string()).code(code)
}

/// A change that the mailbox actor did not make.
fn refused(error: MailboxError) -> Status {
    let code = match &error {
        MailboxError::OverQuota => Code::OverQuota,
        MailboxError::NoSuchMailbox => Code::NonExistent,
        MailboxError::Exists => Code::AlreadyExists,
        MailboxError::HasChildren | MailboxError::Invalid(_) => Code::Cannot,
        MailboxError::Limit { .. } => Code::Limit,
        MailboxError::InUse => Code::InUse,
        MailboxError::Busy | MailboxError::TimedOut => Code::Unavailable,
        // What went wrong inside is for the log of whoever it happened to.
        MailboxError::Unavailable(_) => {
            return Status::no("not possible at the moment, please try again").code(Code::Unavailable);
        }
    };
    Status::no(error.to_string()).code(code)
}
