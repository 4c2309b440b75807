//! The snapshots of clients' transactions, held between one read and the next.
//!
//! They belong to the client, not to its connection: a transaction goes on over the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as Turn;

use super::super::protocol::{Incarnation, Reader};
use crate::engine::{EmbeddedTxn, MAX_AGE};
use crate::error::Error;

/// Beyond the engine's own limit, so that the engine is the one who says that a snapshot is too old.
const KEPT: Duration = MAX_AGE.saturating_add(Duration::from_secs(1));

type Name = (Incarnation, u64);

pub(super) struct Snapshots {
    table: Mutex<HashMap<Name, Held>>,
    max: usize,
}

/// A transaction that only reads until its commit takes it out.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) txn: Arc<Turn<Option<EmbeddedTxn>>>,
    since: Instant,
}

impl Snapshots {
    pub(super) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), max }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Name, Held>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot of a transaction. One that is unknown was dropped for its age, or with the server's last run.
    pub(super) fn open(
        &self,
        client: Incarnation,
        reader: Reader,
        begin: impl FnOnce() -> EmbeddedTxn,
    ) -> Result<Held, Error> {
        let mut table = self.table();
        if let Some(held) = table.get(&(client, reader.transaction)) {
            return Ok(held.clone());
        }
        if !reader.is_first {
            return Err(Error::TooOld);
        }
        if table.len() >= self.max {
            return Err(Error::Unavailable("storage.serve.snapshots_max transactions are open".to_owned()));
        }
        let held = Held { txn: Arc::new(Turn::new(Some(begin()))), since: Instant::now() };
        table.insert((client, reader.transaction), held.clone());
        Ok(held)
    }

    /// Takes the transaction out for its commit.
    pub(super) async fn take(&self, client: Incarnation, transaction: u64) -> Option<EmbeddedTxn> {
        let held = self.table().remove(&(client, transaction))?;
        held.txn.lock().await.take()
    }

    pub(super) fn forget(&self, client: Incarnation, transaction: u64) {
        self.table().remove(&(client, transaction));
    }

    pub(super) fn expire(&self) {
        self.table().retain(|_, held| held.since.elapsed() < KEPT);
    }
}
