//! The desk of a running node: each question goes to the actor that knows, each error becomes its reply here.

use std::net::IpAddr;
use std::sync::Arc;

use posthouse_filter::rate::Admission;
use posthouse_mail::stage::{BodyRef, ReceivedMessage, SignedMessage, VettedMessage};
use posthouse_mail::{AccountId, Address, ForwardPath, Reply, UnixMillis};
use posthouse_storage::blob::{BodyWriter, StagedBody};
use posthouse_storage::message::Append;
use posthouse_storage::{Error as StoreError, Store};
use posthouse_wire::sasl::Credentials;
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::Login;

use crate::auth::{AuthRefusal, Authenticator};
use crate::directory::{Directory, Resolution, Target};
use crate::domain::signer::Signer;
use crate::filter::{FilterRefusal, Filters};
use crate::mailbox::{MailboxError, Mailboxes};
use crate::session::smtp::desk::{Desk, Route};
use crate::spool::Spool;

/// The handles that SMTP sessions use.
#[derive(Clone)]
pub struct NodeDesk {
    pub store: Store,
    pub directory: Directory,
    pub auth: Authenticator,
    pub admission: Arc<Admission>,
    pub filters: Filters,
    pub mailboxes: Mailboxes,
    pub spool: Spool,
    pub signer: Signer,
}

impl Desk for NodeDesk {
    async fn log_in(&self, credentials: Credentials, client: IpAddr) -> Result<Login, Reply> {
        let Credentials { authorization, authentication, password } = credentials;
        // RFC 4616 §2: acting as another is a right that nobody has here.
        if authorization.is_some_and(|other| !other.eq_ignore_ascii_case(&authentication)) {
            return Err(reply::credentials_invalid());
        }
        match self.auth.check(&authentication, &password, client).await {
            Ok(login) => Ok(Login { account: login.account, address: login.address }),
            Err(AuthRefusal::Wrong) => Err(reply::credentials_invalid()),
            Err(refusal) => Err(reply::authentication_unavailable(&refusal.to_string())),
        }
    }

    fn admit_message(&self, client: IpAddr, login: Option<&Login>) -> Result<(), Reply> {
        match login {
            Some(login) => self.admission.submission(login.account).map_err(|_| reply::too_many_messages_of_account()),
            None => self.admission.message(client).map_err(|_| reply::too_many_messages_from_address()),
        }
    }

    async fn owns(&self, account: AccountId, address: &Address) -> Result<bool, Reply> {
        self.directory.owns(account, address).await.map_err(|error| of_store(&error))
    }

    async fn route(&self, path: &ForwardPath, size: Option<u64>) -> Result<Route, Reply> {
        let resolution = self.directory.resolve(path).await.map_err(|error| of_store(&error))?;
        let targets = match resolution {
            Resolution::NotLocal => return Ok(Route::NotLocal),
            Resolution::NoSuchUser => return Err(reply::no_such_user()),
            Resolution::Local { targets } => targets,
        };
        let [Target::Account { id, over_quota, .. }] = targets.as_slice() else {
            return Ok(Route::Several);
        };
        // RFC 5321 §4.5.1: postmaster is reached, however full the mailbox.
        if !path.is_postmaster() {
            self.check_room(*id, *over_quota, size).await?;
        }
        Ok(Route::Account(*id))
    }

    fn body_writer(&self) -> BodyWriter {
        self.store.body_writer()
    }

    async fn vet(&self, message: ReceivedMessage) -> Result<VettedMessage, Reply> {
        self.filters.vet(message).await.map_err(FilterRefusal::reply)
    }

    async fn append(&self, account: AccountId, append: Append) -> Result<(), Reply> {
        match self.mailboxes.append(account, append).await {
            Ok(_) => Ok(()),
            Err(MailboxError::OverQuota) => Err(reply::mailbox_full()),
            Err(_) => Err(reply::local_error()),
        }
    }

    async fn spool(&self, message: VettedMessage, body: StagedBody) -> Result<(), Reply> {
        self.spool.receive(message, body).await.map_err(|error| of_store(&error))
    }

    async fn sign(&self, author: &Address, body: BodyRef, now: UnixMillis) -> Result<Vec<u8>, Reply> {
        self.signer.sign(author, body, now).await.map_err(|_| reply::local_error())
    }

    async fn submit(&self, message: SignedMessage, body: StagedBody) -> Result<(), Reply> {
        self.spool.submit(message, body).await.map_err(|error| of_store(&error))
    }
}

impl NodeDesk {
    /// Quota at RCPT: room is made by the user, so a full mailbox is temporary; a message larger than the whole mailbox is
    /// not (RFC 3463 §3.3 X.2.2).
    async fn check_room(&self, id: AccountId, over_quota: bool, size: Option<u64>) -> Result<(), Reply> {
        if let Some(size) = size {
            let account = self.directory.account(id).await.map_err(|error| of_store(&error))?;
            if account.and_then(|account| account.quota_max).is_some_and(|max| size > max) {
                return Err(reply::larger_than_quota());
            }
        }
        if over_quota { Err(reply::mailbox_full()) } else { Ok(()) }
    }
}

/// Whatever is wrong on our side, the client keeps its message and tries again: only what is said about the message itself
/// is permanent.
fn of_store(error: &StoreError) -> Reply {
    if *error == StoreError::Full { reply::storage_unavailable() } else { reply::local_error() }
}
