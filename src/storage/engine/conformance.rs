//! What every engine must do, as one suite: each function is a rule, `suite!` runs them all on an engine.
//!
//! Apart from the engines so that the next one is held to the very same rules. The feature `conformance` brings them out of
//! this crate, for the served engine over connections that only others can make (`over_connections`).

mod history;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::served::{Connector, Served, Server};
use super::{Atomic, Embedded, Isolation, Kv, KvTxn, MAX_KEY, MAX_TXN, MAX_VALUE, RangeRequest, Versionstamp};
use crate::error::Error;

use Isolation::{Serializable, Snapshot};

/// Opens an engine for one test and keeps what it needs alive.
struct Rig<K> {
    kv: K,
    /// An engine whose transactions are too old at once.
    hasty: K,
    _alive: Box<dyn Any + Send>,
}

/// Names every rule, for each way to run them.
macro_rules! all_rules {
    ($with:ident! { $($before:tt)* }) => {
        $with! { $($before)*
            write_skew_aborts,
            a_phantom_aborts,
            a_limited_range_conflicts_only_up_to_its_last_row,
            snapshot_reads_and_blind_writes_never_conflict,
            a_read_conflict_can_be_added_by_hand,
            ten_thousand_concurrent_adds_sum_exactly,
            a_transaction_reads_its_own_writes,
            own_ranges_are_merged_in_both_directions,
            a_long_range_comes_in_pages,
            a_stamped_key_is_unreadable_before_its_commit,
            stamps_rise_in_commit_order,
            an_old_transaction_is_too_old,
            each_limit_is_enforced,
            a_watch_fires_after_the_commit_only,
            a_snapshot_does_not_move,
            a_concurrent_history_equals_its_serial_replay,
        }
    };
}

// Below the macro that it uses.
#[cfg(test)]
mod rigs;

/// Runs every rule on the served engine over connections of the caller's making, each in a folder of its own below `dir`.
/// Panics where a rule is broken. `carry` takes a server and makes the way to it.
pub async fn over_connections(dir: &Path, carry: impl AsyncFn(Server) -> Box<dyn Connector>) {
    macro_rules! each {
        ($($rule:ident),* $(,)?) => {
            $($rule(connected(&dir.join(stringify!($rule)), &carry).await).await;)*
        };
    }
    all_rules! { each! {} }
}

/// Two served engines, the second with transactions that are too old at once.
async fn connected(dir: &Path, carry: &impl AsyncFn(Server) -> Box<dyn Connector>) -> Rig<Served> {
    let settings = posthouse_conf::Storage::default();
    let client = async |engine: Embedded| {
        let server = Server::start(engine.clone(), settings.serve.clone()).await.expect("a server");
        let client = Served::open(carry(server).await, &settings.served).await.expect("a connection");
        (client, engine)
    };
    let first = Embedded::open(&dir.join("first"), &settings).await.expect("an engine");
    // A store gets its name with its first server, which is too much for a hasty one.
    let named = Embedded::open(&dir.join("second"), &settings).await.expect("an engine");
    drop(Server::start(named.clone(), settings.serve.clone()).await.expect("a server"));
    named.close().await.expect("closed");
    let second = Embedded::open_hasty(&dir.join("second"), &settings).await.expect("an engine");
    let ((kv, one), (hasty, two)) = (client(first).await, client(second).await);
    Rig { kv, hasty, _alive: Box::new((one, two)) }
}

async fn put<K: Kv>(kv: &K, rows: &[(&str, &str)]) {
    let mut txn = kv.begin();
    for (key, value) in rows {
        txn.set(key.as_bytes(), value.as_bytes());
    }
    txn.commit().await.expect("a blind write");
}

async fn get<K: Kv>(kv: &K, key: &str) -> Option<Bytes> {
    kv.begin().get(key.as_bytes(), Snapshot).await.expect("a read")
}

/// All keys between two, as text.
async fn keys<T: KvTxn>(txn: &mut T, request: RangeRequest<'_>) -> String {
    let page = txn.range(request).await.expect("a scan");
    let keys: Vec<_> = page.rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
    keys.join(" ")
}

/// Two transactions begin; the first writes `a` and commits; how the second ends.
async fn second_of_two<K: Kv>(
    kv: &K,
    first: impl AsyncFnOnce(&mut K::Txn),
    second: impl AsyncFnOnce(&mut K::Txn),
) -> Result<(), Error> {
    let (mut one, mut two) = (kv.begin(), kv.begin());
    second(&mut two).await;
    first(&mut one).await;
    one.commit().await.expect("the first commits");
    two.commit().await.map(drop)
}

async fn write_skew_aborts<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("a", "1"), ("b", "1")]).await;
    let (mut one, mut two) = (rig.kv.begin(), rig.kv.begin());
    for txn in [&mut one, &mut two] {
        txn.get(b"a", Serializable).await.expect("a read");
        txn.get(b"b", Serializable).await.expect("a read");
    }
    one.set(b"a", b"0");
    two.set(b"b", b"0");
    let outcomes = (one.commit().await.is_ok(), two.commit().await);
    assert_eq!(outcomes, (true, Err(Error::Conflict)));
}

async fn a_phantom_aborts<K: Kv>(rig: Rig<K>) {
    let scan_and_write = async |txn: &mut K::Txn| {
        keys(txn, RangeRequest::new(b"p", b"q")).await;
        txn.set(b"x", b"");
    };
    let insert = async |txn: &mut K::Txn| txn.set(b"p5", b"");
    assert_eq!(second_of_two(&rig.kv, insert, scan_and_write).await, Err(Error::Conflict));
    let clear = async |txn: &mut K::Txn| txn.clear_range(b"o", b"p1");
    assert_eq!(second_of_two(&rig.kv, clear, scan_and_write).await, Err(Error::Conflict));
    let beside = async |txn: &mut K::Txn| {
        txn.set(b"q", b"");
        txn.clear_range(b"a", b"p");
    };
    assert_eq!(second_of_two(&rig.kv, beside, scan_and_write).await, Ok(()));
}

async fn a_limited_range_conflicts_only_up_to_its_last_row<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("r1", ""), ("r3", ""), ("r5", ""), ("r7", "")]).await;
    let forward = async |txn: &mut K::Txn| {
        assert_eq!(keys(txn, RangeRequest::new(b"r", b"s").limit(2)).await, "r1 r3");
        txn.set(b"x", b"");
    };
    let backward = async |txn: &mut K::Txn| {
        assert_eq!(keys(txn, RangeRequest::new(b"r", b"s").limit(2).reverse()).await, "r7 r5");
        txn.set(b"x", b"");
    };
    let write = |key: &'static [u8]| async move |txn: &mut K::Txn| txn.set(key, b"");
    assert_eq!(second_of_two(&rig.kv, write(b"r4"), forward).await, Ok(()));
    assert_eq!(second_of_two(&rig.kv, write(b"r3"), forward).await, Err(Error::Conflict));
    assert_eq!(second_of_two(&rig.kv, write(b"r0"), forward).await, Err(Error::Conflict));
    let clear = async |txn: &mut K::Txn| txn.clear_range(b"r0", b"r05");
    assert_eq!(second_of_two(&rig.kv, clear, backward).await, Ok(()));
    assert_eq!(second_of_two(&rig.kv, write(b"r6"), backward).await, Err(Error::Conflict));
}

async fn snapshot_reads_and_blind_writes_never_conflict<K: Kv>(rig: Rig<K>) {
    let write = async |txn: &mut K::Txn| txn.set(b"a", b"1");
    let read_in_snapshot = async |txn: &mut K::Txn| {
        txn.get(b"a", Snapshot).await.expect("a read");
        keys(txn, RangeRequest::new(b"a", b"z").snapshot()).await;
        txn.set(b"b", b"");
    };
    assert_eq!(second_of_two(&rig.kv, write, read_in_snapshot).await, Ok(()));
    assert_eq!(second_of_two(&rig.kv, write, write).await, Ok(()));
    let add = async |txn: &mut K::Txn| txn.atomic(b"a", Atomic::Add, &[1]);
    assert_eq!(second_of_two(&rig.kv, add, add).await, Ok(()));
    let read_only = async |txn: &mut K::Txn| drop(txn.get(b"a", Serializable).await.expect("a read"));
    assert_eq!(second_of_two(&rig.kv, write, read_only).await, Ok(()));
}

async fn a_read_conflict_can_be_added_by_hand<K: Kv>(rig: Rig<K>) {
    let write = async |txn: &mut K::Txn| txn.set(b"c5", b"");
    let with_read_conflict = async |txn: &mut K::Txn| {
        txn.read_version().await.expect("a version");
        txn.add_read_conflict(b"c", b"d");
        txn.set(b"x", b"");
    };
    assert_eq!(second_of_two(&rig.kv, write, with_read_conflict).await, Err(Error::Conflict));
    let with_write_conflict = async |txn: &mut K::Txn| txn.add_write_conflict(b"c", b"d");
    let read = async |txn: &mut K::Txn| {
        txn.get(b"c5", Serializable).await.expect("a read");
        txn.set(b"x", b"");
    };
    assert_eq!(second_of_two(&rig.kv, with_write_conflict, read).await, Err(Error::Conflict));
}

async fn ten_thousand_concurrent_adds_sum_exactly<K: Kv>(rig: Rig<K>) {
    let tasks = (0..100).map(|_| {
        let kv = rig.kv.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                let mut txn = kv.begin();
                txn.atomic(b"sum", Atomic::Add, &3u64.to_le_bytes());
                txn.commit().await.expect("an add never conflicts");
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|done| done.expect("no panic"));
    assert_eq!(get(&rig.kv, "sum").await.as_deref(), Some(30_000u64.to_le_bytes().as_slice()));
}

async fn a_transaction_reads_its_own_writes<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("a", "old"), ("b", "old"), ("n", "\x05")]).await;
    let mut txn = rig.kv.begin();
    txn.set(b"a", b"new");
    assert_eq!(txn.get(b"a", Serializable).await.expect("a read").as_deref(), Some(b"new".as_slice()));
    txn.clear(b"a");
    assert_eq!(txn.get(b"a", Serializable).await, Ok(None));
    txn.clear_range(b"a", b"c");
    txn.set(b"b", b"again");
    assert_eq!(txn.get(b"b", Serializable).await.expect("a read").as_deref(), Some(b"again".as_slice()));
    txn.atomic(b"n", Atomic::Add, &[2]);
    txn.atomic(b"n", Atomic::Add, &[3]);
    assert_eq!(txn.get(b"n", Snapshot).await.expect("a read").as_deref(), Some([10].as_slice()));
    txn.atomic(b"a", Atomic::Add, &[1]);
    assert_eq!(txn.get(b"a", Serializable).await.expect("a read").as_deref(), Some([1].as_slice()));
    txn.set_stamped_value(b"v", b"", b"");
    assert_eq!(txn.get(b"v", Serializable).await, Err(Error::Unreadable));
    let commit = txn.commit().await.expect("a commit");
    let stamp = commit.stamp.expect("something was written");
    assert_eq!(get(&rig.kv, "v").await.as_deref(), Some(stamp.0.as_slice()));
    assert_eq!(get(&rig.kv, "n").await.as_deref(), Some([10].as_slice()));
    assert_eq!(get(&rig.kv, "b").await.as_deref(), Some(b"again".as_slice()));
}

async fn own_ranges_are_merged_in_both_directions<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("k1", ""), ("k2", ""), ("k3", ""), ("k4", ""), ("k5", ""), ("k6", "\x01")]).await;
    let mut txn = rig.kv.begin();
    txn.clear_range(b"k2", b"k4");
    txn.set(b"k3", b"back");
    txn.set(b"k35", b"new");
    txn.clear(b"k5");
    txn.atomic(b"k6", Atomic::CompareAndClear, &[1]);
    txn.atomic(b"k7", Atomic::Add, &[1]);
    let all = RangeRequest::new(b"k", b"l");
    assert_eq!(keys(&mut txn, all).await, "k1 k3 k35 k4 k7");
    assert_eq!(keys(&mut txn, all.reverse()).await, "k7 k4 k35 k3 k1");
    assert_eq!(keys(&mut txn, all.limit(3)).await, "k1 k3 k35");
    assert_eq!(keys(&mut txn, all.limit(2).reverse()).await, "k7 k4");
    assert_eq!(keys(&mut txn, all.bytes(4)).await, "k1 k3");
    assert_eq!(keys(&mut txn, RangeRequest::new(b"l", b"k")).await, "");
    txn.commit().await.expect("a commit");
    assert_eq!(keys(&mut rig.kv.begin(), all).await, "k1 k3 k35 k4 k7");
}

async fn a_long_range_comes_in_pages<K: Kv>(rig: Rig<K>) {
    // Longer than what any engine reads at once.
    let value = vec![7; 1000];
    for part in 0..3 {
        let mut txn = rig.kv.begin();
        (0..1000).for_each(|row| txn.set(format!("p{part}{row:03}").as_bytes(), &value));
        txn.commit().await.expect("a commit");
    }
    let mut txn = rig.kv.begin();
    let all = RangeRequest::new(b"p", b"q").bytes(usize::MAX);
    let page = txn.range(all).await.expect("a scan");
    assert_eq!((page.rows.len(), page.more), (3000, false));
    assert!(page.rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let page = txn.range(all.reverse().limit(2500)).await.expect("a scan");
    assert_eq!((page.rows.len(), page.more), (2500, true));
    assert!(page.rows.windows(2).all(|pair| pair[0].0 > pair[1].0));
    let page = txn.range(RangeRequest::new(b"p", b"q").bytes(10_051)).await.expect("a scan");
    assert_eq!((page.rows.len(), page.more), (11, true), "ten rows of 1 005 octets leave room for one more");
}

async fn a_stamped_key_is_unreadable_before_its_commit<K: Kv>(rig: Rig<K>) {
    let mut txn = rig.kv.begin();
    txn.set_stamped_key(b"log/", b"/x", b"entry");
    assert_eq!(txn.range(RangeRequest::new(b"log/", b"log0")).await, Err(Error::Unreadable));
    assert_eq!(txn.get(b"log/0123456789/x", Snapshot).await, Err(Error::Unreadable));
    assert_eq!(txn.get(b"other", Snapshot).await, Ok(None));
    let stamp = txn.commit().await.expect("a commit").stamp.expect("something was written");
    let key = [b"log/".as_slice(), &stamp.0, b"/x"].concat();
    assert_eq!(rig.kv.begin().get(&key, Snapshot).await.expect("a read").as_deref(), Some(b"entry".as_slice()));
}

async fn stamps_rise_in_commit_order<K: Kv>(rig: Rig<K>) {
    let tasks = (0..20).map(|_| {
        let kv = rig.kv.clone();
        tokio::spawn(async move {
            let mut stamps: Vec<Versionstamp> = Vec::new();
            for _ in 0..20 {
                let mut txn = kv.begin();
                txn.set_stamped_key(b"s", b"", b"");
                stamps.extend(txn.commit().await.expect("a commit").stamp);
            }
            assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "a later commit has a greater stamp");
            stamps
        })
    });
    let mut all: Vec<_> = join_all(tasks).await.into_iter().flat_map(|done| done.expect("no panic")).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 400);
    let rows = rig.kv.begin().range(RangeRequest::new(b"s", b"t")).await.expect("a scan").rows;
    assert!(rows.iter().map(|(key, _)| &key[1..]).eq(all.iter().map(|stamp| &stamp.0[..])));
}

async fn an_old_transaction_is_too_old<K: Kv>(rig: Rig<K>) {
    let mut txn = rig.hasty.begin();
    txn.get(b"a", Snapshot).await.expect("the first read takes the snapshot");
    assert_eq!(txn.get(b"a", Snapshot).await, Err(Error::TooOld));
    let mut writer = rig.hasty.begin();
    writer.get(b"a", Serializable).await.expect("a read");
    writer.set(b"b", b"");
    assert_eq!(writer.commit().await, Err(Error::TooOld));
    put(&rig.hasty, &[("blind", "writes have no age")]).await;
}

async fn each_limit_is_enforced<K: Kv>(rig: Rig<K>) {
    let check = async |work: &dyn Fn(&mut K::Txn), expect: Option<&str>| {
        let mut txn = rig.kv.begin();
        work(&mut txn);
        let what = match txn.commit().await {
            Err(Error::TooLarge { what, .. }) => Some(what),
            outcome => outcome.map(|_| None).expect("only limits fail"),
        };
        assert_eq!(what, expect);
    };
    let (long, longer) = (vec![b'k'; MAX_KEY], vec![b'k'; MAX_KEY + 1]);
    check(&|txn| txn.set(&long, b""), None).await;
    check(&|txn| txn.set(&longer, b""), Some("a key")).await;
    check(&|txn| txn.clear(&longer), Some("a key")).await;
    check(&|txn| txn.atomic(&longer, Atomic::Add, &[1]), Some("a key")).await;
    let (big, bigger) = (vec![0; MAX_VALUE], vec![0; MAX_VALUE + 1]);
    check(&|txn| txn.set(b"k", &big), None).await;
    check(&|txn| txn.set(b"k", &bigger), Some("a value")).await;
    let fill = |txn: &mut K::Txn, octets: usize| {
        let rows = octets / 50_000;
        (0..rows).for_each(|row| txn.set(format!("{row:010}").as_bytes(), &big[..50_000 - 10]));
    };
    // FoundationDB counts a little more for each row.
    check(&|txn| fill(txn, MAX_TXN - 50_000), None).await;
    check(&|txn| fill(txn, MAX_TXN + 50_000), Some("a transaction")).await;
}

async fn a_watch_fires_after_the_commit_only<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("other", "0")]).await;
    let mut watch = Box::pin(rig.kv.watch(b"w").await.expect("a watch"));
    let other = rig.kv.watch(b"other").await.expect("a watch");
    let mut txn = rig.kv.begin();
    txn.set(b"w", b"1");
    assert!(watch.as_mut().now_or_never().is_none(), "nothing is committed");
    txn.commit().await.expect("a commit");
    watch.await.expect("it fired");
    let watch = rig.kv.watch(b"w").await.expect("a watch");
    let mut txn = rig.kv.begin();
    txn.clear_range(b"a", b"z");
    txn.commit().await.expect("a commit");
    watch.await.expect("a cleared range fires too");
    other.await.expect("and so for each watcher of a row in it");
}

async fn a_snapshot_does_not_move<K: Kv>(rig: Rig<K>) {
    put(&rig.kv, &[("a", "1")]).await;
    let mut reader = rig.kv.begin();
    let version = reader.read_version().await.expect("a version");
    put(&rig.kv, &[("a", "2"), ("b", "2")]).await;
    assert_eq!(reader.get(b"a", Serializable).await.expect("a read").as_deref(), Some(b"1".as_slice()));
    assert_eq!(keys(&mut reader, RangeRequest::new(b"a", b"z")).await, "a");
    assert!(rig.kv.begin().read_version().await.expect("a version") > version);
}

async fn a_concurrent_history_equals_its_serial_replay<K: Kv>(rig: Rig<K>) {
    for seed in 0..4 {
        let mut txn = rig.kv.begin();
        txn.clear_range(b"", b"\xff");
        txn.commit().await.expect("a commit");
        let tasks = (0..8).map(|task| history::worker(rig.kv.clone(), seed * 100 + task));
        let mut history: Vec<_> =
            join_all(tasks.map(tokio::spawn)).await.into_iter().flat_map(|h| h.expect("no panic")).collect();
        history.sort_by_key(|entry| entry.stamp);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for entry in &history {
            entry.replay(&mut model, seed);
        }
        let rows = rig.kv.begin().range(RangeRequest::new(b"", b"\xff")).await.expect("a scan").rows;
        let stored: Vec<_> = rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(stored, model.into_iter().collect::<Vec<_>>(), "seed {seed}");
    }
}
