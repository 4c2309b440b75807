//! What the distributors ask of the rest of the node: where a forward-path leads, and the delivery to an account.
//!
//! A trait, so that distribution can be tried with mailboxes that refuse, hang or panic.

use futures_util::future::BoxFuture;
use posthouse_mail::{AccountId, ForwardPath};
use posthouse_storage::Error;
use posthouse_storage::message::Append;

use crate::directory::{Directory, Resolution};
use crate::mailbox::Mailboxes;

/// Accounts and addresses, as distributors see them.
pub trait LocalDelivery: Send + Sync + 'static {
    fn resolve<'a>(&'a self, path: &'a ForwardPath) -> BoxFuture<'a, Result<Resolution, Error>>;

    /// Returns after the commit. Repeated under the same request it changes nothing.
    fn append(&self, account: AccountId, append: Append) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// Why an account did not get a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub try_again: bool,
    pub reason: String,
}

/// The node's own directory and mailbox actors.
#[derive(Clone)]
pub struct NodeDelivery {
    pub directory: Directory,
    pub mailboxes: Mailboxes,
}

impl LocalDelivery for NodeDelivery {
    fn resolve<'a>(&'a self, path: &'a ForwardPath) -> BoxFuture<'a, Result<Resolution, Error>> {
        Box::pin(self.directory.resolve(path))
    }

    fn append(&self, account: AccountId, append: Append) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let refusal = |error: crate::mailbox::MailboxError| Refusal {
                try_again: error.failure().try_again,
                reason: error.to_string(),
            };
            self.mailboxes.append(account, append).await.map(|_| ()).map_err(refusal)
        })
    }
}
