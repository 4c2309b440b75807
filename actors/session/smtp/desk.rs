//! What an SMTP session asks of the rest of the node, as one trait.
//!
//! Apart so that the dialogue, the flow of data and every refusal can be tried without a node. Each method answers in time
//! by itself, and says its refusal in SMTP's words: this is the edge where errors become replies.

use std::net::IpAddr;

use posthouse_mail::stage::{BodyRef, ReceivedMessage, SignedMessage, VettedMessage};
use posthouse_mail::{AccountId, Address, ForwardPath, Reply, UnixMillis};
use posthouse_storage::blob::{BodyWriter, StagedBody};
use posthouse_storage::message::Append;
use posthouse_wire::sasl::Credentials;
use posthouse_wire::smtp::server::Login;

/// Where a forward-path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// One account of ours, and nobody else.
    Account(AccountId),
    /// Several targets, or one beyond an alias elsewhere.
    Several,
    /// The domain is not ours.
    NotLocal,
}

/// The node as a session sees it.
pub trait Desk: Clone + Send + Sync + 'static {
    /// Checks a password; a wrong one is answered late.
    fn log_in(&self, credentials: Credentials, client: IpAddr) -> impl Future<Output = Result<Login, Reply>> + Send;

    /// Whether a client or an account may send one more message now.
    fn admit_message(&self, client: IpAddr, login: Option<&Login>) -> Result<(), Reply>;

    /// Whether the account may send as this address.
    fn owns(&self, account: AccountId, address: &Address) -> impl Future<Output = Result<bool, Reply>> + Send;

    /// Where a forward-path leads; refuses an unknown user, a full mailbox, and a message of a declared `size` that could
    /// never fit.
    fn route(&self, path: &ForwardPath, size: Option<u64>) -> impl Future<Output = Result<Route, Reply>> + Send;

    /// A place for the body of one message.
    fn body_writer(&self) -> BodyWriter;

    /// Asks the filter.
    fn vet(&self, message: ReceivedMessage) -> impl Future<Output = Result<VettedMessage, Reply>> + Send;

    /// Delivers to one account; returns after the commit.
    fn append(&self, account: AccountId, append: Append) -> impl Future<Output = Result<(), Reply>> + Send;

    /// Takes responsibility for a received message; returns after the commit of its spool row.
    fn spool(&self, message: VettedMessage, body: StagedBody) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The DKIM-Signature fields of a message, each ending in CRLF; empty where the author's domain has no key.
    fn sign(
        &self,
        author: &Address,
        body: BodyRef,
        now: UnixMillis,
    ) -> impl Future<Output = Result<Vec<u8>, Reply>> + Send;

    /// Takes responsibility for a submitted message; returns after the commit of its spool row.
    fn submit(&self, message: SignedMessage, body: StagedBody) -> impl Future<Output = Result<(), Reply>> + Send;
}
