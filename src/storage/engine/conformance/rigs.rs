//! The engines on which the tests of this crate run the suite.

#[path = "../../../../chaos/foundationdb.rs"]
mod foundationdb;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Rig;
use crate::engine::served::{Served, fixture};
use crate::engine::{Embedded, FoundationDb};
use foundationdb::Cluster;

/// Runs every rule on an engine, each test with the attributes given.
macro_rules! suite {
    ($attributes:tt $open:ident) => {
        all_rules! { rules! { $attributes $open: } }
    };
}

macro_rules! rules {
    ($attributes:tt $open:ident: $($rule:ident),* $(,)?) => {
        mod $open {
            $(rule! { $attributes $open $rule })*
        }
    };
}

macro_rules! rule {
    ([$($attribute:tt)*] $open:ident $rule:ident) => {
        $($attribute)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            super::super::$rule(super::$open().await).await;
        }
    };
}

suite! { [] embedded }
suite! { [] embedded_with_a_full_journal }
suite! { [] served }
suite! { [#[ignore = "needs a FoundationDB server"]] fdb_cluster }

async fn embedded() -> Rig<Embedded> {
    open_embedded(posthouse_conf::Storage::default()).await
}

/// Every group fills the journal, so that rows move on into the index all the time.
async fn embedded_with_a_full_journal() -> Rig<Embedded> {
    open_embedded(posthouse_conf::Storage { journal_max: posthouse_conf::Size::kib(1), ..Default::default() }).await
}

async fn open_embedded(settings: posthouse_conf::Storage) -> Rig<Embedded> {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let kv = Embedded::open(dirs[0].path(), &settings).await.expect("an engine");
    let hasty = Embedded::open_hasty(dirs[1].path(), &settings).await.expect("an engine");
    Rig { kv, hasty, _alive: Box::new(dirs) }
}

/// The same two behind connections in memory.
async fn served() -> Rig<Served> {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let settings = posthouse_conf::Storage::default();
    let [first, second] = [&dirs[0], &dirs[1]].map(|dir| Embedded::open(dir.path(), &settings));
    let (kv, server) = fixture::serve(first.await.expect("an engine")).await;
    // A store gets its name with its first server, which is too much for a hasty one.
    let named = second.await.expect("an engine");
    fixture::serve(named.clone()).await;
    named.close().await.expect("closed");
    let hasty = Embedded::open_hasty(dirs[1].path(), &settings).await.expect("an engine");
    let (hasty, other) = fixture::serve(hasty).await;
    Rig { kv, hasty, _alive: Box::new((dirs, server, other)) }
}

/// Each test has key spaces of its own in a cluster that all tests of this moment share.
async fn fdb_cluster() -> Rig<FoundationDb> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let cluster = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            println!("{}", foundationdb::version().expect("FoundationDB's server"));
            let started = Arc::new(Cluster::start(1).expect("a FoundationDB cluster"));
            *shared = Arc::downgrade(&started);
            started
        })
    };
    let settings = |prefix: char| posthouse_conf::storage::FoundationDb {
        cluster_file: cluster.cluster_file(),
        library: foundationdb::client_library().expect("FoundationDB's client library"),
        prefix: format!("{prefix}{:016x}/", rand::random::<u64>()),
        ..Default::default()
    };
    let kv = FoundationDb::open(&settings('k')).await.expect("an engine");
    let hasty = FoundationDb::open_hasty(&settings('h')).await.expect("an engine");
    Rig { kv, hasty, _alive: Box::new(cluster) }
}
