//! The router's promises, with an entity that counts, dies and sleeps on command.

use std::sync::atomic::{AtomicUsize, Ordering};

use posthouse_storage::Store;
use ractor::{ActorProcessingErr, SupervisionEvent};

use super::*;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Name(&'static str);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl EntityKey for Name {
    fn shard_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
}

enum ProbeMsg {
    Life { _permit: Permit, answer: RpcReplyPort<usize> },
    DieInLife { life: usize, _permit: Permit, answer: RpcReplyPort<usize> },
    Hold { permit: Permit, answer: RpcReplyPort<usize> },
}

impl ractor::Message for ProbeMsg {}

/// Each life of the entity has a number, from 1.
struct Probe {
    lives: Arc<AtomicUsize>,
    inbox_max: usize,
}

struct ProbeActor;

struct ProbeState {
    life: usize,
    held: Vec<(Permit, RpcReplyPort<usize>)>,
}

impl Actor for ProbeActor {
    type Msg = ProbeMsg;
    type State = ProbeState;
    type Arguments = usize;

    async fn pre_start(&self, _: ActorRef<ProbeMsg>, life: usize) -> Result<ProbeState, ActorProcessingErr> {
        Ok(ProbeState { life, held: Vec::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<ProbeMsg>,
        message: ProbeMsg,
        state: &mut ProbeState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProbeMsg::Life { answer, .. } => answer.send(state.life)?,
            ProbeMsg::DieInLife { life, answer, .. } => {
                assert!(state.life > life, "told to die in life {life}");
                answer.send(state.life)?;
            }
            ProbeMsg::Hold { permit, answer } => state.held.push((permit, answer)),
        }
        Ok(())
    }
}

impl Entity for Probe {
    type Key = Name;
    type Msg = ProbeMsg;
    const KIND: &'static str = "probe";

    fn inbox_max(&self) -> usize {
        self.inbox_max
    }

    async fn spawn(&self, _: Name, _: Fence, supervisor: ActorCell) -> Result<ActorRef<ProbeMsg>, SpawnErr> {
        let life = self.lives.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Actor::spawn_linked(None, ProbeActor, life, supervisor).await?.0)
    }
}

/// Stands for the node: it outlives its children.
struct Parent;

struct NoMsg;

impl ractor::Message for NoMsg {}

impl Actor for Parent {
    type Msg = NoMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<NoMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<NoMsg>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Rig {
    router: Router<Probe>,
    lives: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

async fn rig(inbox_max: usize) -> Rig {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path(), &posthouse_conf::Storage::default()).await.expect("a store");
    let lives = Arc::new(AtomicUsize::new(0));
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("a parent");
    let probe = Probe { lives: lives.clone(), inbox_max };
    let settings = Supervise::default();
    let router = Router::start(probe, Placement::local(store), settings, parent.get_cell()).await.expect("a router");
    Rig { router, lives, _dir: dir }
}

const KEY: Name = Name("one");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn life(router: &Router<Probe>) -> Result<usize, RouteError> {
    router.ask(&KEY, soon(), |permit, answer| ProbeMsg::Life { _permit: permit, answer }).await
}

#[tokio::test]
async fn the_first_message_brings_an_entity_to_life_once() {
    let rig = rig(64).await;
    let ask = |router: Router<Probe>| tokio::spawn(async move { life(&router).await });
    let asks: Vec<_> = (0..50).map(|_| ask(rig.router.clone())).collect();
    for answer in asks {
        assert_eq!(answer.await.expect("no panic"), Ok(1));
    }
    assert_eq!(rig.router.active(), 1);
}

#[tokio::test]
async fn an_answer_lost_with_its_actor_is_asked_for_again() {
    let rig = rig(4).await;
    let die = |permit, answer| ProbeMsg::DieInLife { life: 2, _permit: permit, answer };
    assert_eq!(rig.router.ask(&KEY, soon(), die).await, Ok(3));
}

#[tokio::test]
async fn an_entity_that_keeps_failing_is_parked() {
    let rig = rig(4).await;
    let die = |permit, answer| ProbeMsg::DieInLife { life: usize::MAX, _permit: permit, answer };
    assert_eq!(rig.router.ask(&KEY, soon(), die).await, Err(RouteError::Parked));
    assert_eq!(rig.lives.load(Ordering::SeqCst), Supervise::default().restarts_max);
}

#[tokio::test]
async fn a_full_inbox_refuses() {
    let rig = rig(2).await;
    // It lives: what is asked is in its inbox at once.
    assert_eq!(life(&rig.router).await, Ok(1));
    let hold = |permit, answer| ProbeMsg::Hold { permit, answer };
    for _ in 0..2 {
        let brief = Instant::now() + Duration::from_millis(50);
        assert_eq!(rig.router.ask(&KEY, brief, hold).await, Err(RouteError::TimedOut));
    }
    assert_eq!(life(&rig.router).await, Err(RouteError::Busy));
}

#[tokio::test]
async fn a_passivated_entity_comes_back_on_its_next_message() {
    let rig = rig(4).await;
    assert_eq!(life(&rig.router).await, Ok(1));
    let actor = rig.router.slot(&KEY, soon()).await.expect("alive").actor;
    rig.router.passivate(KEY, &actor);
    let mut latest = 1;
    while latest == 1 {
        latest = life(&rig.router).await.expect("an answer");
    }
    assert_eq!(latest, 2);
}
