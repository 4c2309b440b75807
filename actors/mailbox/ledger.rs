//! Where a mailbox actor writes: one trait, so that tests can hold a write back, count it or make it fail.

use std::sync::Arc;

use posthouse_storage::message::{self, Append, Appended};
use posthouse_storage::sweep::{self, Keep};
use posthouse_storage::{Error, Store, Writer, lock, mailbox};

use super::request::{Answer, Request};

/// Carries out changes of one account; each call returns after its commit.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Stores a batch of messages in one transaction.
    fn append(&self, writer: &Writer, batch: &[Arc<Append>]) -> impl Future<Output = Result<Appended, Error>> + Send;

    /// Carries out any other request.
    fn perform(&self, writer: &Writer, request: &Request) -> impl Future<Output = Result<Answer, Error>> + Send;
}

/// The store.
#[derive(Clone)]
pub struct StoreLedger {
    pub store: Store,
    /// `storage.done_ttl` and `storage.change_log_ttl`.
    pub keep: Keep,
}

impl Ledger for StoreLedger {
    async fn append(&self, writer: &Writer, batch: &[Arc<Append>]) -> Result<Appended, Error> {
        message::append(&self.store, writer, batch).await
    }

    async fn perform(&self, writer: &Writer, request: &Request) -> Result<Answer, Error> {
        let store = &self.store;
        match request {
            Request::Append(append) => {
                let mut stored = message::append(store, writer, std::slice::from_ref(append)).await?;
                stored.pop().ok_or(Error::NotFound)?.map(Answer::Stored)
            }
            Request::SetFlags(change) => message::set_flags(store, writer, change).await.map(Answer::FlagsSet),
            Request::Expunge(expunge) => message::expunge(store, writer, expunge).await.map(Answer::Expunged),
            Request::Copy(copy) => message::copy(store, writer, copy).await.map(Answer::Copied),
            Request::Move(copy) => message::move_to(store, writer, copy).await.map(Answer::Copied),
            Request::Create(create) => mailbox::create(store, writer, create).await.map(Answer::Changed),
            Request::Rename(rename) => mailbox::rename(store, writer, rename).await.map(Answer::Changed),
            Request::Delete(delete) => mailbox::delete(store, writer, delete).await.map(Answer::Changed),
            Request::SetSubscribed { path, subscribed } => {
                mailbox::set_subscribed(store, writer, path, *subscribed).await.map(|()| Answer::Done)
            }
            Request::LockMaildrop { holder, expires_at } => {
                lock::take(store, writer, *holder, *expires_at).await.map(|()| Answer::Done)
            }
            Request::UnlockMaildrop { holder } => lock::release(store, writer, *holder).await.map(|()| Answer::Done),
            Request::Tidy => {
                let more = sweep::account_step(store, writer, self.keep).await?;
                Ok(Answer::Tidied { more })
            }
        }
    }
}
