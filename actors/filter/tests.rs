//! The pool with stages that panic or hang, entered through the trait of all stages.

use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use posthouse_conf::Filter as Settings;
use posthouse_filter::{Context, Cost, Error, FinalWord, OnFailure, Stage};
use posthouse_mail::stage::Origin;
use posthouse_mail::{Action, Envelope, IngestId, ReversePath, UnixMillis};
use posthouse_storage::StagedBody;
use ractor::ActorProcessingErr;

use super::*;

/// A stage that panics, or hangs, so many times.
struct Bomb {
    name: &'static str,
    left: AtomicUsize,
    hangs: bool,
}

impl Bomb {
    fn new(name: &'static str, times: usize) -> Self {
        Self { name, left: AtomicUsize::new(times), hangs: false }
    }
}

impl Stage for Bomb {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cost(&self) -> Cost {
        Cost::Content
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Open
    }

    fn examine<'a>(&'a self, _context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>> {
        async {
            let armed = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if armed && self.hangs {
                std::future::pending::<()>().await;
            }
            assert!(!armed, "the bomb of a test");
            Ok(None)
        }
        .boxed()
    }
}

/// Keeps the pool alive whatever its workers do.
struct Parent;

struct Nothing;

impl ractor::Message for Nothing {}

impl Actor for Parent {
    type Msg = Nothing;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Nothing>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Bench {
    filters: Filters,
    parent: ActorRef<Nothing>,
    store: Store,
    body: StagedBody,
    _dir: tempfile::TempDir,
}

async fn bench(bomb: Bomb, settings: Settings) -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), &posthouse_conf::Storage::default()).await.expect("a store");
    let body = stage(&store, "From: a@x.test\r\nSubject: hello\r\n\r\nbody\r\n").await;
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("a parent");
    let pipeline = Pipeline::new(vec![Arc::new(bomb)], &settings);
    let started = Filters::start(store.clone(), pipeline, "mx.test".to_owned(), &settings, parent.get_cell()).await;
    Bench { filters: started.expect("a pool"), parent, store, body, _dir: dir }
}

async fn stage(store: &Store, message: &str) -> StagedBody {
    let mut writer = store.body_writer();
    writer.write(message.as_bytes()).await.expect("written");
    writer.finish().await.expect("staged")
}

impl Bench {
    fn message(&self) -> ReceivedMessage {
        ReceivedMessage {
            envelope: Envelope::new(IngestId::new(1), ReversePath::Null),
            origin: Origin {
                client_ip: [192, 0, 2, 1].into(),
                hello: "client.test".into(),
                protocol: "ESMTP",
                tls: None,
                account: None,
            },
            body: self.body.body,
            received_at: UnixMillis(0),
        }
    }

    async fn end(self) {
        self.parent.stop(None);
        self.store.close().await.expect("closed");
    }
}

fn kills(stage: &str) -> u64 {
    let line = format!("filter_kills_total{{stage=\"{stage}\"}} ");
    let metrics = posthouse_obs::encode();
    metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_panic_in_a_stage_kills_one_actor_and_the_message_is_filtered_all_the_same() {
    let bench = bench(Bomb::new("bomb_once", 1), Settings { workers: 1, ..Settings::default() }).await;
    let vetted = bench.filters.vet(bench.message()).await.expect("a verdict from the actor that took its place");
    assert_eq!(vetted.verdict.action, Action::Accept);
    assert!(vetted.added_headers.starts_with(b"Authentication-Results: mx.test;"));
    assert_eq!(kills("bomb_once"), 1);
    assert!(bench.filters.vet(bench.message()).await.is_ok(), "the pool goes on");
    bench.end().await;
}

#[tokio::test]
async fn a_message_that_kills_two_actors_is_put_off_and_its_repeat_quarantined() {
    let bench = bench(Bomb::new("bomb_always", usize::MAX), Settings { workers: 2, ..Settings::default() }).await;
    let refusal = bench.filters.vet(bench.message()).await.expect_err("two kills");
    assert_eq!(refusal, FilterRefusal::Killed);
    assert_eq!(refusal.reply().code, 451);
    assert_eq!(kills("bomb_always"), 2);
    let vetted = bench.filters.vet(bench.message()).await.expect("the deadly stage is left out");
    assert_eq!(vetted.verdict.action, Action::Quarantine);
    let headers = String::from_utf8(vetted.added_headers).expect("text");
    assert!(headers.contains("X-Spam-Flag: YES") && headers.contains("bomb_always=skipped"), "{headers}");
    assert_eq!(kills("bomb_always"), 2, "nobody died this time");
    bench.end().await;
}

#[tokio::test]
async fn kills_do_not_use_up_restarts() {
    let bench = bench(Bomb::new("bomb_many", 40), Settings { workers: 1, ..Settings::default() }).await;
    for n in 0..20 {
        let body = stage(&bench.store, &format!("Subject: {n}\r\n\r\n")).await;
        let message = ReceivedMessage { body: body.body, ..bench.message() };
        assert_eq!(bench.filters.vet(message).await.expect_err("two kills"), FilterRefusal::Killed);
    }
    assert_eq!(kills("bomb_many"), 40);
    assert_eq!(bench.filters.vet(bench.message()).await.expect("a verdict").verdict.action, Action::Accept);
    bench.end().await;
}

#[tokio::test]
async fn a_full_queue_answers_busy_and_a_hung_stage_is_left_in_time() {
    let bomb = Bomb { hangs: true, ..Bomb::new("bomb_hang", 1) };
    let settings =
        Settings { workers: 1, waiting_max: 0, wait_max: posthouse_conf::Span::secs(3), ..Settings::default() };
    let bench = bench(bomb, settings).await;
    // The first is sent before the second: `join!` polls in order.
    let (hung, busy) = tokio::join!(bench.filters.vet(bench.message()), bench.filters.vet(bench.message()));
    assert_eq!(hung.expect_err("it hangs"), FilterRefusal::TimedOut);
    assert_eq!(busy.expect_err("nobody is free and nothing may wait"), FilterRefusal::Busy);
    bench.end().await;
}

#[tokio::test]
async fn a_message_that_the_store_cannot_give_is_put_off() {
    let bench = bench(Bomb::new("bomb_never", 0), Settings::default()).await;
    let mut message = bench.message();
    message.body.blob = posthouse_mail::BlobId::new([9; 32]);
    assert_eq!(bench.filters.vet(message).await.expect_err("no such body"), FilterRefusal::Unreadable);
    bench.end().await;
}
