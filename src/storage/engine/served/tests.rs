//! What a connection may do to a commit, a read and a watch: cut anywhere, slow, replaced, or of another version.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use posthouse_conf::Storage;
use posthouse_conf::storage::Serve;
use prost::Message as _;
use tokio::io::DuplexStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::fixture::{Network, serve};
use super::protocol::{
    Answer, Call, Change, ChangeKind, Commit, Failed, Frames, Get, Hello, Operation, Reader, Request, Response, Row,
    Run, codec,
};
use super::{Served, Server};
use crate::engine::{Embedded, Isolation, Kv, KvTxn, RangeRequest};
use crate::error::Error;

async fn embedded() -> (Embedded, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    (Embedded::open(dir.path(), &Storage::default()).await.expect("an engine"), dir)
}

/// Reads, adds one, commits; runs again when told to. An unknown outcome is a failure here.
async fn increment(served: &Served) -> u64 {
    loop {
        let mut txn = served.begin();
        let outcome = async {
            let row = txn.get(b"count", Isolation::Serializable).await?;
            let count = row.map_or(0, |row| u64::from_be_bytes(row.as_ref().try_into().expect("eight octets"))) + 1;
            txn.set(b"count", &count.to_be_bytes());
            txn.commit().await.map(|_| count)
        };
        match outcome.await {
            Ok(count) => return count,
            Err(error) => assert!(matches!(error, Error::TooOld | Error::Conflict), "{error}"),
        }
    }
}

async fn count(engine: &Embedded) -> u64 {
    let row = engine.begin().get(b"count", Isolation::Snapshot).await.expect("a read");
    row.map_or(0, |row| u64::from_be_bytes(row.as_ref().try_into().expect("eight octets")))
}

/// Cuts the connection after each number of frames in turn: whatever is lost, each increment counts once.
async fn cut_everywhere(network: Network) {
    let mut frames = 0;
    let mut done = count(&network.engine()).await;
    loop {
        network.cut_after(frames);
        let served = network.client().await;
        done += 1;
        assert_eq!(increment(&served).await, done, "cut after {frames} frames");
        assert_eq!(count(&network.engine()).await, done, "cut after {frames} frames");
        let mut blind = served.begin();
        blind.atomic(b"sum", crate::engine::Atomic::Add, &1u64.to_le_bytes());
        blind.commit().await.expect("the outcome is made certain");
        let sum = network.engine().begin().get(b"sum", Isolation::Snapshot).await.expect("a read").expect("a row");
        assert_eq!(sum.as_ref(), done.to_le_bytes(), "cut after {frames} frames");
        if !network.was_cut() {
            assert!(frames > 6, "greeting, read and two commits are that many");
            return;
        }
        frames += 1;
    }
}

#[tokio::test]
async fn a_connection_cut_anywhere_applies_each_commit_once() {
    let (engine, _dir) = embedded().await;
    let network = Network::default();
    network.serve(engine).await;
    cut_everywhere(network).await;
}

#[tokio::test]
async fn a_server_restarted_anywhere_applies_each_commit_once() {
    let (engine, dir) = embedded().await;
    let network = Network::default();
    network.serve(engine).await;
    network.restart_in(dir.path().to_owned());
    cut_everywhere(network).await;
}

#[tokio::test]
async fn a_narrow_link_carries_large_transactions_in_pieces() {
    let (engine, _dir) = embedded().await;
    let network = Network::default();
    network.serve(engine).await;
    network.narrow(170);
    let served = network.client().await;
    let mut txn = served.begin();
    let value = vec![7; 50_000];
    (0..10u8).for_each(|row| txn.set(&[b'r', row], &value));
    txn.commit().await.expect("a commit");
    let page = served.begin().range(RangeRequest::new(b"r", b"s")).await.expect("a scan");
    assert_eq!((page.rows.len(), page.more), (10, false));
}

#[tokio::test]
async fn a_read_goes_on_over_the_next_connection() {
    let (engine, dir) = embedded().await;
    let (served, network) = serve(engine).await;
    increment(&served).await;
    let mut txn = served.begin();
    assert!(txn.get(b"count", Isolation::Serializable).await.expect("a read").is_some());
    network.cut_after(0);
    assert_eq!(txn.get(b"other", Isolation::Serializable).await, Ok(None));
    // The server's next run has not got this snapshot.
    network.sever();
    network.restart(dir.path()).await;
    assert_eq!(txn.get(b"other", Isolation::Serializable).await, Err(Error::TooOld));
    assert_eq!(increment(&served).await, 2);
}

#[tokio::test]
async fn watches_fire_after_a_reconnect() {
    let (engine, _dir) = embedded().await;
    let (served, network) = serve(engine).await;
    let watch = served.watch(b"w").await.expect("a watch");
    network.cut_after(0);
    increment(&served).await;
    watch.await.expect("nobody knows what changed meanwhile");
}

#[tokio::test]
async fn a_closed_store_ends_calls_and_watches() {
    let (engine, _dir) = embedded().await;
    let (served, _network) = serve(engine).await;
    let watch = served.watch(b"w").await.expect("a watch");
    let mut txn = served.begin();
    served.close();
    assert!(matches!(watch.await, Err(Error::Unavailable(_))));
    assert!(matches!(txn.get(b"a", Isolation::Snapshot).await, Err(Error::Unavailable(_))));
    txn.set(b"a", b"");
    assert!(matches!(txn.commit().await, Err(Error::Unavailable(_))));
}

/// A client that says what it is told to.
struct Raw(Framed<DuplexStream, LengthDelimitedCodec>);

impl Raw {
    fn connect(server: &Server) -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        let server = server.clone();
        tokio::spawn(async move { server.serve(far).await });
        Self(Framed::new(near, codec()))
    }

    async fn greeted(server: &Server) -> Self {
        let mut raw = Self::connect(server);
        let hello = Hello { version_min: 1, version_max: 1, features: 0, incarnation: Bytes::from_static(&[9; 16]) };
        assert!(matches!(raw.ask(Call::Hello(hello)).await, Answer::Welcome(_)));
        raw
    }

    async fn ask(&mut self, call: Call) -> Answer {
        let request = Request { id: 1, call: Some(call) };
        self.0.send(Bytes::from(request.encode_to_vec())).await.expect("sent");
        self.next().await
    }

    async fn next(&mut self) -> Answer {
        let frame = self.0.next().await.expect("an answer").expect("a frame");
        Response::decode(frame).expect("a response").answer.expect("an answer")
    }

    async fn fails(&mut self, call: Call) -> Error {
        match self.ask(call).await {
            Answer::Failed(failed) => failed.into(),
            answer => panic!("{answer:?}"),
        }
    }
}

/// The minute in which every commit of a test began: a client keeps it for its repeats.
static BUCKET: std::sync::LazyLock<u32> = std::sync::LazyLock::new(super::outcome::bucket);

fn add(counter: u64, is_repeat: bool, snapshot: Option<u64>) -> Call {
    let argument = Bytes::copy_from_slice(&1u64.to_le_bytes());
    let kind = Some(ChangeKind::Atomic(Operation { key: Bytes::from("sum"), operation: 0, argument }));
    let bucket = *BUCKET;
    let (changes, read_keys) = (vec![Change { kind }], snapshot.map(|_| Bytes::from("sum")).into_iter().collect());
    Call::Commit(Box::new(Commit { counter, bucket, is_repeat, snapshot, read_keys, changes, ..Commit::default() }))
}

fn get(transaction: u64) -> Call {
    Call::Get(Get { reader: Reader { transaction, is_first: true }, key: Bytes::from("sum") })
}

async fn server() -> (Server, Embedded, tempfile::TempDir) {
    let (engine, dir) = embedded().await;
    let settings = Serve { connections_max: 3, snapshots_max: 2, watches_max: 1, ..Serve::default() };
    (Server::start(engine.clone(), settings).await.expect("a server"), engine, dir)
}

async fn sum(engine: &Embedded) -> Option<u64> {
    let row = engine.begin().get(b"sum", Isolation::Snapshot).await.expect("a read");
    row.map(|row| u64::from_le_bytes(row.as_ref().try_into().expect("eight octets")))
}

#[tokio::test]
async fn a_commit_repeated_tells_the_first_ones_outcome() {
    let (server, engine, _dir) = server().await;
    let mut raw = Raw::greeted(&server).await;
    let first = raw.ask(add(1, false, None)).await;
    assert!(matches!(first, Answer::Committed(_)), "{first:?}");
    assert_eq!(raw.ask(add(1, true, None)).await, first);
    drop(server);
    let server = Server::start(engine.clone(), Serve::default()).await.expect("a server");
    assert_eq!(Raw::greeted(&server).await.ask(add(1, true, None)).await, first);
    assert_eq!(sum(&engine).await, Some(1));
}

#[tokio::test]
async fn a_commit_told_to_be_lost_is_never_applied_later() {
    let (server, engine, _dir) = server().await;
    let mut raw = Raw::greeted(&server).await;
    // Its snapshot is gone, and nobody knows of a first try.
    assert_eq!(raw.fails(add(1, true, Some(7))).await, Error::TooOld);
    assert_eq!(raw.fails(add(1, true, None)).await, Error::TooOld);
    assert_eq!(sum(&engine).await, None);
    assert!(matches!(raw.ask(get(7)).await, Answer::Value(_)));
    assert!(matches!(raw.ask(add(2, true, Some(7))).await, Answer::Committed(_)));
    assert_eq!(sum(&engine).await, Some(1));
}

#[tokio::test]
async fn a_replaced_connection_begins_no_commit() {
    let (server, engine, _dir) = server().await;
    let mut old = Raw::greeted(&server).await;
    let mut new = Raw::greeted(&server).await;
    assert!(matches!(old.fails(add(1, false, None)).await, Error::Unavailable(_)));
    assert_eq!(sum(&engine).await, None);
    assert!(matches!(new.ask(add(1, true, None)).await, Answer::Committed(_)));
}

#[tokio::test]
async fn each_bound_of_the_server_is_refused_by_name() {
    let (server, ..) = server().await;
    let mut raw = Raw::greeted(&server).await;
    for transaction in [1, 2] {
        assert!(matches!(raw.ask(get(transaction)).await, Answer::Value(_)));
    }
    let words = raw.fails(get(3)).await.to_string();
    assert!(words.contains("snapshots_max"), "{words}");
    let watch = |key: &'static str| Call::Watch(super::protocol::Watch { key: Bytes::from(key) });
    let asked = Request { id: 2, call: Some(watch("a")) };
    raw.0.send(Bytes::from(asked.encode_to_vec())).await.expect("sent");
    let words = raw.fails(watch("b")).await.to_string();
    assert!(words.contains("watches_max"), "{words}");
    let _more = [Raw::greeted(&server).await, Raw::greeted(&server).await];
    let mut fourth = Raw::connect(&server);
    assert!(fourth.0.next().await.is_none(), "connections_max");
}

#[tokio::test]
async fn a_watch_that_fired_makes_room_for_the_next() {
    let (server, ..) = server().await;
    let mut raw = Raw::greeted(&server).await;
    let watch = |key: &'static str| Call::Watch(super::protocol::Watch { key: Bytes::from(key) });
    for counter in 1..4 {
        let asked = Request { id: 2, call: Some(watch("sum")) };
        raw.0.send(Bytes::from(asked.encode_to_vec())).await.expect("sent");
        let answers = [raw.ask(add(counter, false, None)).await, raw.next().await];
        assert!(answers.iter().any(|answer| matches!(answer, Answer::Fired(_))), "{answers:?}");
        assert!(answers.iter().any(|answer| matches!(answer, Answer::Committed(_))), "{answers:?}");
    }
}

#[tokio::test]
async fn frames_are_read_within_bounds_and_damage_is_told() {
    let (server, _, dir) = server().await;
    let mut raw = Raw::greeted(&server).await;
    std::fs::write(dir.path().join("segments/00000001.seg"), b"0123456789").expect("written");
    let run = |segment, offset, length| Run { segment, offset, length };
    let frames = |runs: Vec<Run>| Call::Frames(Frames { runs });
    let answer = raw.ask(frames(vec![run(1, 7, 3), run(1, 0, 2)])).await;
    assert_eq!(answer, Answer::Frames(Bytes::from_static(b"78901")));
    assert!(matches!(raw.fails(frames(vec![run(1, 9, 2)])).await, Error::Corrupt(_)));
    assert!(matches!(raw.fails(frames(vec![run(77, 0, 1)])).await, Error::Corrupt(_)));
    for runs in [vec![run(1, 0, u32::MAX)], vec![run(1, 0, 1); 1000]] {
        let words = raw.fails(frames(runs)).await.to_string();
        assert!(words.contains("beyond the bound"), "{words}");
    }
}

#[tokio::test]
async fn a_newer_client_is_refused_with_the_versions() {
    let (server, ..) = server().await;
    let hello = Hello { version_min: 2, version_max: 3, features: 0, incarnation: Bytes::from_static(&[9; 16]) };
    let words = Raw::connect(&server).fails(Call::Hello(hello)).await.to_string();
    assert!(words.contains("the peer speaks 2 to 3, this program 1 to 1; upgrade this program"), "{words}");
    let words = Raw::connect(&server).fails(get(1)).await.to_string();
    assert!(words.contains("no hello"), "{words}");
}

#[tokio::test]
async fn another_store_behind_the_same_name_is_refused() {
    let (engine, _dir) = embedded().await;
    let (served, network) = serve(engine).await;
    increment(&served).await;
    let (other, _other_dir) = embedded().await;
    network.serve(other).await;
    network.cut_after(0);
    let error = served.begin().get(b"count", Isolation::Snapshot).await.expect_err("another store");
    assert!(error.to_string().contains("another store"), "{error}");
}

#[tokio::test]
async fn the_engines_own_rows_are_out_of_reach() {
    let (server, ..) = server().await;
    let mut raw = Raw::greeted(&server).await;
    let kind = Some(ChangeKind::Set(Row { key: Bytes::from_static(&[0xff, b'i']), value: Bytes::new() }));
    let commit = Commit { counter: 1, changes: vec![Change { kind }], ..Commit::default() };
    let answer = raw.ask(Call::Commit(Box::new(commit))).await;
    assert!(matches!(answer, Answer::Failed(Failed { code: 7, .. })), "{answer:?}");
}
