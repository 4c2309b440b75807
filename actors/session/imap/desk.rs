//! What an IMAP session asks of the rest of the node, as one trait.
//!
//! Apart so that every command can be tried against a store without a node. Changes go to the account's mailbox actor;
//! reads come from store snapshots. Refusals are in IMAP's words already.

use std::net::IpAddr;

use posthouse_mail::{AccountId, ModSeq, StoredMessage};
use posthouse_storage::Store;
use posthouse_storage::mailbox::{Changed, Create, Delete, Rename};
use posthouse_storage::message::{Append, Copied, Copy, Expunge, Expunged, FlagsSet, SetFlags};
use posthouse_wire::imap::response::status::Status;
use posthouse_wire::sasl::Credentials;
use tokio::sync::watch;

/// The node as a session sees it. Each method answers in time by itself.
pub trait Desk: Clone + Send + Sync + 'static {
    /// For reads.
    fn store(&self) -> &Store;

    /// Checks a password; a wrong one is answered late.
    fn log_in(
        &self,
        credentials: Credentials,
        client: IpAddr,
    ) -> impl Future<Output = Result<AccountId, Status>> + Send;

    /// Wakes its holder after each change of the account, on whatever node it was made.
    fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>>;

    fn append(&self, account: AccountId, append: Append) -> impl Future<Output = Result<StoredMessage, Status>> + Send;

    fn set_flags(&self, account: AccountId, change: SetFlags) -> impl Future<Output = Result<FlagsSet, Status>> + Send;

    fn expunge(&self, account: AccountId, expunge: Expunge) -> impl Future<Output = Result<Expunged, Status>> + Send;

    fn copy(&self, account: AccountId, copy: Copy) -> impl Future<Output = Result<Copied, Status>> + Send;

    fn move_to(&self, account: AccountId, copy: Copy) -> impl Future<Output = Result<Copied, Status>> + Send;

    fn create(&self, account: AccountId, create: Create) -> impl Future<Output = Result<Changed, Status>> + Send;

    fn rename(&self, account: AccountId, rename: Rename) -> impl Future<Output = Result<Changed, Status>> + Send;

    fn delete(&self, account: AccountId, delete: Delete) -> impl Future<Output = Result<Changed, Status>> + Send;

    fn set_subscribed(
        &self,
        account: AccountId,
        path: String,
        subscribed: bool,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}
