//! The engine of a cluster: rows in FoundationDB, through its client library, which is opened only when this engine is
//! configured.
//!
//! The trait is shaped after FoundationDB, so most calls are handed on. What is added here: the prefix before every key,
//! limits told at the commit, the age of a snapshot, pages that end at a number of octets, and a time-out on everything,
//! since FoundationDB has none of its own. The library and its network thread are started once for a process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foundationdb::Database;
use foundationdb::options::DatabaseOption;
use posthouse_conf::storage::FoundationDb as Settings;
use tokio::sync::watch;

use super::{Kv, MAX_AGE, Watch};
use crate::error::Error;

mod fault;
mod stamped;
mod txn;

use fault::During;
pub(crate) use txn::FoundationDbTxn;

/// A handle; clones share one connection to the cluster.
#[derive(Clone)]
pub(crate) struct FoundationDb {
    core: Arc<Core>,
}

/// What the handles and their transactions share.
struct Core {
    database: Database,
    /// Before every key.
    prefix: Vec<u8>,
    max_age: Duration,
    closed: watch::Sender<bool>,
}

impl Core {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    fn begin(&self) -> Result<foundationdb::Transaction, Error> {
        if *self.closed.borrow() {
            return Err(closed());
        }
        self.database.create_trx().map_err(|fault| fault::error(fault, During::Reads))
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}

impl FoundationDb {
    /// Opens the client library, starts its network, and waits until the cluster answers.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Error> {
        Self::open_with(settings, MAX_AGE).await
    }

    /// An engine whose transactions are too old as soon as they have read.
    #[cfg(test)]
    pub(crate) async fn open_hasty(settings: &Settings) -> Result<Self, Error> {
        Self::open_with(settings, Duration::ZERO).await
    }

    async fn open_with(settings: &Settings, max_age: Duration) -> Result<Self, Error> {
        let settings = settings.clone();
        let connect = move || connect(&settings, max_age);
        let core = tokio::task::spawn_blocking(connect).await;
        let core = core.map_err(|error| Error::Unavailable(format!("opening the store ended early: {error}")))??;
        let version = core.begin()?.get_read_version().await;
        version.map_err(|fault| {
            let text =
                "the FoundationDB cluster does not answer; are its servers up, and of the client library's release?";
            Error::Unavailable(format!("{text} ({fault})"))
        })?;
        Ok(Self { core: Arc::new(core) })
    }

    /// Ends the library's network, for good: for a program that is about to end.
    pub(crate) fn finish() {
        foundationdb_sys::stop();
    }

    /// Later calls are refused, and who waits for a row is told. The library's network goes on until the process ends.
    pub(crate) fn close(&self) {
        self.core.closed.send_replace(true);
    }
}

impl Kv for FoundationDb {
    type Txn = FoundationDbTxn;

    fn begin(&self) -> FoundationDbTxn {
        FoundationDbTxn::new(self.core.clone())
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        let trx = self.core.begin()?;
        let changed = trx.watch(&self.core.key(key));
        // The commit arms the watch with the value of the version that it waits for, and that is older than whatever the
        // caller reads next.
        trx.commit().await.map_err(|error| fault::error(*error, During::Reads))?;
        let mut is_closed = self.core.closed.subscribe();
        Ok(Watch::new(async move {
            tokio::select! {
                fired = changed => fired.map_err(|fault| fault::error(fault, During::Reads)),
                _ = is_closed.wait_for(|is_closed| *is_closed) => Err(closed()),
            }
        }))
    }
}

fn connect(settings: &Settings, max_age: Duration) -> Result<Core, Error> {
    let unusable = |path: &Path, reason: &str| Error::Unavailable(format!("{}: {reason}", path.display()));
    let file = settings.cluster_file.as_path();
    // FoundationDB would wait for the file to appear.
    std::fs::metadata(file).map_err(|error| unusable(file, &format!("FoundationDB's cluster file: {error}")))?;
    let path = file.to_str().filter(|path| !path.contains('\0'));
    let path = path.ok_or_else(|| unusable(file, "the path of the cluster file is not plain text"))?;
    foundationdb_sys::start(&settings.library).map_err(|error| Error::Unavailable(error.to_string()))?;
    let set_up = || {
        let database = Database::from_path(path)?;
        let timeout = i32::try_from(settings.timeout.get().as_millis()).unwrap_or(i32::MAX);
        database.set_option(DatabaseOption::TransactionTimeout(timeout))?;
        let watches_max = i32::try_from(settings.watches_max).unwrap_or(i32::MAX);
        database.set_option(DatabaseOption::MaxWatches(watches_max))?;
        Ok(database)
    };
    let database = set_up().map_err(|fault: foundationdb::FdbError| unusable(file, &fault.to_string()))?;
    let prefix = settings.prefix.clone().into_bytes();
    Ok(Core { database, prefix, max_age, closed: watch::Sender::new(false) })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(settings: Settings) -> String {
        let outcome = FoundationDb::open(&settings).await.map(drop);
        outcome.expect_err("there is no cluster").to_string()
    }

    #[tokio::test]
    async fn a_missing_cluster_file_is_named() {
        let settings = Settings { cluster_file: "/nowhere/fdb.cluster".into(), ..Settings::default() };
        let text = open(settings).await;
        assert!(text.contains("/nowhere/fdb.cluster: FoundationDB's cluster file"), "{text}");
    }

    #[tokio::test]
    async fn a_missing_library_says_what_to_install() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let library = "/nowhere/libfdb_c.so".into();
        let text = open(Settings { cluster_file: file.path().into(), library, ..Settings::default() }).await;
        assert!(
            text.contains("/nowhere/libfdb_c.so") && text.contains("install FoundationDB's client package"),
            "{text}"
        );
    }
}
