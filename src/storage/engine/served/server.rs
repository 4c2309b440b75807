//! Serves an embedded engine: takes accepted connections, answers each request in a task of its own.
//!
//! Every request has its place in the connection's window, counted in octets of what it brought and of what it may answer,
//! before it runs; a connection over its window is not read from. What outlives a connection are the snapshots of its
//! client's transactions, for the few seconds that they may be read, and commits under way, whose outcome the client asks
//! for over its next connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthouse_conf::storage::Serve;
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::outcome;
use super::protocol::Stream;
use crate::engine::{Embedded, Kv as _, KvTxn as _};
use crate::error::Error;

mod commits;
mod session;
mod snapshots;

use commits::Commits;
use snapshots::Snapshots;

/// How often snapshots that nobody may read any more are dropped.
const TICK: Duration = Duration::from_secs(1);
/// How many of those pass between two looks at old outcomes.
const TICKS_PER_SWEEP: u32 = 60;

/// A server; clones share one. The last one gone, its housekeeping ends.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    _keeper: Arc<Keeper>,
}

/// What all connections share.
struct Shared {
    engine: Embedded,
    settings: Serve,
    store: Bytes,
    snapshots: Arc<Snapshots>,
    commits: Commits,
    connections: Semaphore,
}

struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    pub(crate) async fn start(engine: Embedded, settings: Serve) -> Result<Self, Error> {
        let store = outcome::store_name(engine.begin()).await?;
        let snapshots = Arc::new(Snapshots::new(settings.snapshots_max));
        let shared = Arc::new(Shared {
            store,
            commits: Commits::new(engine.clone(), snapshots.clone()),
            snapshots,
            connections: Semaphore::new(settings.connections_max),
            engine,
            settings,
        });
        let keeper = tokio::spawn(keep(shared.clone())).abort_handle();
        Ok(Self { shared, _keeper: Arc::new(Keeper(keeper)) })
    }

    /// Serves one connection until its end. Dropped, the connection ends; commits under way go on.
    pub async fn serve(&self, stream: impl Stream) -> Result<(), Error> {
        let Ok(_place) = self.shared.connections.try_acquire() else {
            return Err(Error::Limit { what: "connections to the store" });
        };
        session::run(self.shared.clone(), stream).await
    }
}

/// Drops what is too old.
async fn keep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    let mut count = 0;
    loop {
        ticks.tick().await;
        shared.snapshots.expire();
        if count % TICKS_PER_SWEEP == 0
            && let Err(error) = forget_outcomes(&shared).await
        {
            emit(event::SweepFailed { what: "outcomes of commits", reason: error.to_string() });
        }
        count += 1;
    }
}

async fn forget_outcomes(shared: &Shared) -> Result<(), Error> {
    let minutes = u32::try_from(shared.settings.outcome_ttl.get().as_secs() / 60).unwrap_or(u32::MAX);
    let mut txn = shared.engine.begin();
    outcome::forget_before(&mut txn, outcome::bucket().saturating_sub(minutes.max(1)));
    txn.commit().await.map(drop)
}
