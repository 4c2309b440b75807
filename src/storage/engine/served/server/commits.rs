//! Commits of clients: each applied at most once, its outcome the same however often it is asked for.
//!
//! Three things make it so. The row of the outcome is written by the transaction itself, so that it is there exactly when
//! the commit is. A client has one connection: what a connection sent that a later one has replaced is not begun any more. A
//! repeat joins the first one that is still under way, or reads its row; where neither is there it closes the
//! door with a row of its own before it says that nothing was applied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::super::outcome::{self, Outcome, OutcomeKey};
use super::super::protocol::{ChangeKind, Commit as Request, Incarnation};
use super::super::translate;
use super::snapshots::Snapshots;
use crate::engine::{Commit, Embedded, EmbeddedTxn, Kv as _, KvTxn as _};
use crate::error::Error;

/// How often the door is tried while others stand in it.
const SETTLE_TRIES: u32 = 20;
/// The wait between: about that of a sync.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// One of a client's connections; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionNumber(u64);

/// A commit as its client numbers it.
type Name = (Incarnation, u64);
/// Holds the outcome once it is known.
type Pending = watch::Receiver<Option<Result<Commit, Error>>>;

#[derive(Clone)]
pub(super) struct Commits {
    engine: Embedded,
    snapshots: Arc<Snapshots>,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    last_session: u64,
    sessions: HashMap<Incarnation, SessionNumber>,
    under_way: HashMap<Name, Pending>,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) client: Incarnation,
    pub(super) session: SessionNumber,
}

/// Takes a commit off the table when it ended, however it did.
struct UnderWay {
    table: Arc<Mutex<Table>>,
    name: Name,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.table).under_way.remove(&self.name);
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commits {
    pub(super) fn new(engine: Embedded, snapshots: Arc<Snapshots>) -> Self {
        Self { engine, snapshots, table: Arc::default() }
    }

    /// From now on only this connection of the client may begin commits.
    pub(super) fn enter(&self, client: Incarnation) -> Asker {
        let mut table = lock(&self.table);
        table.last_session += 1;
        let session = SessionNumber(table.last_session);
        table.sessions.insert(client, session);
        Asker { client, session }
    }

    pub(super) fn leave(&self, asker: Asker) {
        let mut table = lock(&self.table);
        if table.sessions.get(&asker.client) == Some(&asker.session) {
            table.sessions.remove(&asker.client);
        }
    }

    /// Begins a commit, or joins it when it is under way. It goes on when nobody waits for it any more.
    pub(super) fn begin(&self, asker: Asker, request: Request, place: OwnedSemaphorePermit) -> Result<Pending, Error> {
        let name = (asker.client, request.counter);
        let mut table = lock(&self.table);
        if table.sessions.get(&asker.client) != Some(&asker.session) {
            return Err(Error::Unavailable("a later connection of this client took over".to_owned()));
        }
        if let Some(pending) = table.under_way.get(&name) {
            return Ok(pending.clone());
        }
        let (sender, pending) = watch::channel(None);
        table.under_way.insert(name, pending.clone());
        drop(table);
        let (commits, under_way) = (self.clone(), UnderWay { table: self.table.clone(), name });
        tokio::spawn(async move {
            let outcome = commits.apply(asker.client, request).await;
            sender.send_replace(Some(outcome));
            drop((under_way, place));
        });
        Ok(pending)
    }

    async fn apply(&self, client: Incarnation, request: Request) -> Result<Commit, Error> {
        let key = OutcomeKey { bucket: request.bucket, client, counter: request.counter };
        let txn = match request.snapshot {
            Some(transaction) => self.snapshots.take(client, transaction).await,
            None => Some(self.engine.begin()),
        };
        if !request.is_repeat {
            return commit(txn.ok_or(Error::TooOld)?, request, &key).await;
        }
        if let Some(outcome) = outcome::read(&mut self.engine.begin(), &key).await? {
            return outcome.result();
        }
        let repeated = match txn {
            Some(txn) => repeat(txn, request, &key).await,
            None => Err(Error::TooOld),
        };
        match repeated {
            Err(error) => self.settle(&key, error).await,
            committed => committed,
        }
    }

    /// Says that a commit was not applied only once it never can be.
    async fn settle(&self, key: &OutcomeKey, error: Error) -> Result<Commit, Error> {
        for _ in 0..SETTLE_TRIES {
            let mut txn = self.engine.begin();
            match outcome::read(&mut txn, key).await {
                Ok(Some(Outcome::Refused)) => return Err(error),
                Ok(Some(outcome)) => return outcome.result(),
                Ok(None) => outcome::refuse(&mut txn, key),
                Err(_) => break,
            }
            match txn.commit().await {
                Ok(_) => return Err(error),
                // The first one is being written this instant.
                Err(Error::Conflict) => tokio::time::sleep(SETTLE_PAUSE).await,
                Err(_) => break,
            }
        }
        Err(Error::MaybeCommitted)
    }
}

/// Applies what may have been applied: its own row stands in the way of a second time.
async fn repeat(mut txn: EmbeddedTxn, request: Request, key: &OutcomeKey) -> Result<Commit, Error> {
    match outcome::read(&mut txn, key).await? {
        Some(outcome) => outcome.result(),
        None => commit(txn, request, key).await,
    }
}

async fn commit(mut txn: EmbeddedTxn, request: Request, key: &OutcomeKey) -> Result<Commit, Error> {
    for read in &request.read_keys {
        txn.add_read_conflict(read, &[read, &[0][..]].concat());
    }
    for range in &request.read_ranges {
        txn.add_read_conflict(&range.begin, &range.end);
    }
    for change in request.changes {
        let kind: ChangeKind =
            change.kind.ok_or(Error::Invalid("a change of a kind that this server does not know"))?;
        translate::apply(kind, &mut txn)?;
    }
    for range in &request.write_ranges {
        txn.add_write_conflict(&range.begin, &range.end);
    }
    outcome::note(&mut txn, key);
    txn.commit().await
}
