//! The engine of a few nodes without a database cluster: one node's embedded engine, served to others over a connection.
//!
//! Same contract as every engine: a transaction's snapshot lies with the server, its writes stay with the client until the
//! commit sends them with its reads. What a connection adds is doubt, and the protocol takes it away again: a commit whose
//! answer was lost is asked for by its name, and applied once whatever happened to either side. This crate opens no socket:
//! streams come from a `Connector` and go to `Server::serve`.

use std::sync::Arc;
use std::time::Instant;

use posthouse_conf::storage::Served as Settings;
use tokio::task::AbortHandle;

use super::{Kv, Watch};
use crate::error::Error;

mod client;
mod draft;
mod failure;
mod fetch;
#[cfg(test)]
pub(crate) mod fixture;
mod link;
mod outcome;
mod protocol;
mod scan;
mod server;
#[cfg(test)]
mod tests;
mod translate;
mod txn;

use client::Client;
pub(crate) use fetch::Fetch;
pub use link::Connector;
pub use protocol::Stream;
pub use server::Server;
pub(crate) use txn::ServedTxn;

/// A handle; clones share one connection.
#[derive(Clone)]
pub(crate) struct Served {
    client: Arc<Client>,
    link: Arc<Link>,
}

/// The task that keeps the connection up; ends with the last handle.
struct Link {
    client: Arc<Client>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.client.close();
    }
}

impl Served {
    /// Connects; a server that is not there is waited for up to `open_timeout`.
    pub(crate) async fn open(connector: Box<dyn Connector>, settings: &Settings) -> Result<Self, Error> {
        let client = Arc::new(Client::new(settings.clone()));
        let task = tokio::spawn(link::run(client.clone(), connector)).abort_handle();
        let served = Self { client: client.clone(), link: Arc::new(Link { client, task }) };
        served.client.up(Instant::now() + settings.open_timeout.get()).await?;
        Ok(served)
    }

    /// Ends the connection. What is under way ends without an answer.
    pub(crate) fn close(&self) {
        self.link.task.abort();
        self.client.close();
    }
}

impl Kv for Served {
    type Txn = ServedTxn;

    fn begin(&self) -> ServedTxn {
        ServedTxn::new(self.clone())
    }

    /// Registered with the server before anything that is asked for later.
    async fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        self.client.watch(key)
    }
}
