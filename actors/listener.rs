//! One bound address: takes connections, admits or refuses them before a byte is read, starts a session for each.
//!
//! Owns: the accept loop of one socket, and the loop that keeps its sleeping sessions (`listener/keeper.rs`); the socket itself
//! is shared with whoever starts it again.
//! Receives: Start, Keep, their ends; the ends of its sessions as supervision events; sessions of another process, and those that
//! go to sleep, by channels.   Sends: sessions their connection.
//! Bounds: limits.* through `Admission`; the kernel's queue holds limits.accept_backlog.
//! On failure: a session that dies is counted and takes no other with it; a loop that dies is started again with the back-off of
//! supervise.*; the sessions stay, but those asleep whose keeper dies are closed;
//! one that dies when it is woken dies alone.
//! Standards: RFC 5321 §3.8 and RFC 9051 §7.1.5 for refusals before the greeting, worded by the protocol's factory.

#[cfg(test)]
pub(crate) mod fixture;
mod keeper;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use posthouse_conf::Supervise;
use posthouse_filter::rate::{Admission, ConnectionGuard, Refusal};
use posthouse_net::{LineStream, Listener, Transport};
use posthouse_obs::emit;
use posthouse_obs::event::net::ConnectionRefused;
use posthouse_obs::event::session::SessionFailed;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;

use crate::notice::Notices;
use crate::session::home::Lodging;
use crate::session::{Calls, Home, Parked, Protocol, ResumeError, Resumed};
use crate::supervise::Restarts;

/// Longest wait for a refused client to take its refusal; a fresh socket takes it at once.
const REFUSAL_LIMIT: Duration = Duration::from_millis(200);

/// An admitted connection on its way to a session.
pub struct Accepted {
    pub transport: Transport,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// `limits.exempt` names the client.
    pub exempt: bool,
    /// The connection's place; the session holds it until it ends.
    pub guard: ConnectionGuard,
}

/// Makes the sessions of one protocol.
pub trait SessionFactory: Send + Sync + 'static {
    fn protocol(&self) -> Protocol;

    /// Starts a session's actor at its listener. TLS handshakes are the session's own.
    fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>>;

    /// Reads a session that was parked, and checks all of it. Starts nothing, and sends nothing to the client.
    fn resume(&self, parked: Parked, admission: &Admission) -> Result<Resumed, ResumeError>;

    /// What a client hears that is not admitted. Not sent where TLS comes first: the client could not read it.
    fn refusal(&self, why: Refusal) -> Vec<u8>;
}

/// Everything a listener needs. Cheap to clone, so that its supervisor can start it again on the same socket.
#[derive(Clone)]
pub struct ListenerArguments {
    pub socket: Arc<Listener>,
    pub admission: Arc<Admission>,
    pub factory: Arc<dyn SessionFactory>,
    /// Sessions of another process, to go on here.
    pub arrivals: Arc<Mutex<UnboundedReceiver<Resumed>>>,
    /// Its sessions, awake and asleep.
    pub lodging: Lodging,
    /// What wakes those in IDLE.
    pub notices: Notices,
    pub calls: Calls,
    pub supervise: Supervise,
}

/// Starts a listener under `supervisor`. When the node wants no more sessions it ends by itself, once its last session is
/// over or parked.
pub async fn start(
    arguments: ListenerArguments,
    supervisor: ActorCell,
) -> Result<(ActorRef<ListenerMsg>, tokio::task::JoinHandle<()>), SpawnErr> {
    Actor::spawn_linked(None, ListenerActor, arguments, supervisor).await
}

pub enum ListenerMsg {
    Start,
    /// `None`: by the node's call; else a bug's words.
    AcceptEnded(Option<String>),
    Keep,
    /// By a bug, whose words these are.
    KeeperEnded(String),
    /// Sessions that slept have left.
    SleepersLeft,
}

impl ractor::Message for ListenerMsg {}

struct ListenerActor;

struct ListenerState {
    arguments: ListenerArguments,
    restarts: Restarts,
    accept_loop: Option<AbortHandle>,
    keeper: Option<AbortHandle>,
    draining: bool,
}

impl Actor for ListenerActor {
    type Msg = ListenerMsg;
    type State = ListenerState;
    type Arguments = ListenerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ListenerMsg>,
        arguments: ListenerArguments,
    ) -> Result<ListenerState, ActorProcessingErr> {
        let name = format!("{} {}", arguments.factory.protocol().as_str(), arguments.socket.local_addr());
        let restarts = Restarts::new("listener", name, arguments.supervise.clone());
        myself.cast(ListenerMsg::Start)?;
        myself.cast(ListenerMsg::Keep)?;
        Ok(ListenerState { arguments, restarts, accept_loop: None, keeper: None, draining: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<ListenerMsg>,
        message: ListenerMsg,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMsg::Start => state.accept_loop = Some(start_accepting(&myself, state.arguments.clone())),
            ListenerMsg::AcceptEnded(None) => {
                state.draining = true;
                state.stop_if_done(&myself);
            }
            ListenerMsg::AcceptEnded(Some(reason)) => {
                let wait = state.restarts.next_start(reason);
                myself.send_after(wait, || ListenerMsg::Start);
            }
            ListenerMsg::Keep => state.keeper = Some(start_keeping(&myself, state.arguments.clone())),
            ListenerMsg::KeeperEnded(reason) => {
                let wait = state.restarts.next_start(reason);
                myself.send_after(wait, || ListenerMsg::Keep);
                state.stop_if_done(&myself);
            }
            ListenerMsg::SleepersLeft => state.stop_if_done(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ListenerMsg>,
        event: SupervisionEvent,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => state.stop_if_done(&myself),
            SupervisionEvent::ActorFailed(_, error) => {
                let protocol = state.arguments.factory.protocol().as_str();
                emit(SessionFailed { protocol, reason: error.to_string() });
                state.stop_if_done(&myself);
            }
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ListenerMsg>,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        [state.accept_loop.take(), state.keeper.take()].into_iter().flatten().for_each(|task| task.abort());
        Ok(())
    }
}

impl ListenerState {
    fn stop_if_done(&self, myself: &ActorRef<ListenerMsg>) {
        if self.draining && self.arguments.lodging.guests() == 0 {
            myself.stop(None);
        }
    }
}

/// Runs the loop beside the actor, whose own loop must stay free for the ends of sessions; reports how it ended.
fn start_accepting(myself: &ActorRef<ListenerMsg>, arguments: ListenerArguments) -> AbortHandle {
    let accepting = tokio::spawn(accept_until_the_end(arguments, myself.get_cell()));
    let handle = accepting.abort_handle();
    let myself = myself.clone();
    tokio::spawn(async move {
        let reason = accepting.await.err().map(|error| error.to_string());
        // An actor that is gone needs no report.
        let _ = myself.cast(ListenerMsg::AcceptEnded(reason));
    });
    handle
}

/// As `start_accepting`; this loop ends with the actor.
fn start_keeping(myself: &ActorRef<ListenerMsg>, arguments: ListenerArguments) -> AbortHandle {
    let keeping = tokio::spawn(keeper::keep(arguments, myself.clone()));
    let handle = keeping.abort_handle();
    let myself = myself.clone();
    tokio::spawn(async move {
        match keeping.await {
            Ok(never) => match never {},
            // An actor that is gone needs no report.
            Err(error) => drop(myself.cast(ListenerMsg::KeeperEnded(error.to_string()))),
        }
    });
    handle
}

async fn accept_until_the_end(arguments: ListenerArguments, supervisor: ActorCell) {
    let mut calls = arguments.calls.clone();
    let _door = calls.door();
    let home = arguments.lodging.home(supervisor);
    let mut arrivals = arguments.arrivals.lock().await;
    loop {
        tokio::select! {
            biased;
            () = calls.ended() => break,
            Some(session) = arrivals.recv() => go_on(&arguments, session, &home).await,
            transport = arguments.socket.accept() => admit(&arguments, transport, &home).await,
        }
    }
    // Whoever has come from another process and has not begun leaves as all the others do.
    arrivals.close();
    while let Some(session) = arrivals.recv().await {
        go_on(&arguments, session, &home).await;
    }
}

async fn go_on(arguments: &ListenerArguments, session: Resumed, home: &Home) {
    if let Err(error) = session.start(home.clone()).await {
        emit(SessionFailed { protocol: arguments.factory.protocol().as_str(), reason: error.to_string() });
    }
}

async fn admit(arguments: &ListenerArguments, transport: Transport, home: &Home) {
    let ListenerArguments { admission, factory, .. } = arguments;
    let protocol = factory.protocol();
    let client = transport.peer_ip();
    let guard = match admission.connect(client) {
        Ok(guard) => guard,
        Err(refusal) => {
            emit(ConnectionRefused { protocol: protocol.as_str(), client, reason: refusal.reason() });
            return refuse(factory.as_ref(), transport, refusal).await;
        }
    };
    let accepted = Accepted {
        peer: transport.peer_addr(),
        local: transport.local_addr(),
        exempt: admission.is_exempt(client),
        transport,
        guard,
    };
    if let Err(error) = factory.spawn(accepted, home.clone()).await {
        emit(SessionFailed { protocol: protocol.as_str(), reason: error.to_string() });
    }
}

async fn refuse(factory: &dyn SessionFactory, transport: Transport, refusal: Refusal) {
    if factory.protocol().is_implicit_tls() {
        return;
    }
    let mut stream = LineStream::new(transport, 1);
    if stream.write_all(&factory.refusal(refusal), REFUSAL_LIMIT).await.is_ok() {
        stream.close(REFUSAL_LIMIT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Idle;
    use super::*;
    use crate::session::{self, Call, Session, Switch};
    use futures_util::FutureExt as _;
    use posthouse_conf::{Limits, Submission};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    /// Greets, then waits for the end or, where the factory says so, dies.
    struct Greeter {
        accepted: Accepted,
        calls: Calls,
        dies: bool,
    }

    impl Session for Greeter {
        fn protocol(&self) -> Protocol {
            Protocol::Pop3
        }

        fn calls(&self) -> &Calls {
            &self.calls
        }

        async fn run(self) -> Option<Parked> {
            let Self { accepted, mut calls, dies } = self;
            let mut stream = LineStream::new(accepted.transport, 10);
            assert!(!dies, "a bug");
            stream.write_all(b"hello", REFUSAL_LIMIT).await.expect("a write");
            calls.ended().await;
            drop(accepted.guard);
            None
        }
    }

    struct Greeters {
        calls: Calls,
        dies: bool,
    }

    impl SessionFactory for Greeters {
        fn protocol(&self) -> Protocol {
            Protocol::Pop3
        }

        fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>> {
            let greeter = Greeter { accepted, calls: self.calls.clone(), dies: self.dies };
            async move { session::spawn(greeter, home).await.map(drop) }.boxed()
        }

        fn resume(&self, _: Parked, _: &Admission) -> Result<Resumed, ResumeError> {
            Err(ResumeError::Protocol("greetings"))
        }

        fn refusal(&self, why: Refusal) -> Vec<u8> {
            why.reason().as_bytes().to_vec()
        }
    }

    struct Case {
        address: SocketAddr,
        admission: Arc<Admission>,
        switch: Switch,
        ended: tokio::task::JoinHandle<()>,
    }

    async fn case(dies: bool, change: impl FnOnce(&mut Limits)) -> Case {
        let mut limits = Limits::default();
        change(&mut limits);
        let admission = Arc::new(Admission::new(&limits, &Submission::default()));
        let switch = Switch::new();
        let socket = Listener::bind("127.0.0.1:0".parse().expect("an address"), 8).expect("a free port");
        let address = socket.local_addr();
        let arguments = ListenerArguments {
            socket: Arc::new(socket),
            admission: admission.clone(),
            factory: Arc::new(Greeters { calls: switch.calls(), dies }),
            arrivals: Arc::new(Mutex::new(tokio::sync::mpsc::unbounded_channel().1)),
            lodging: Lodging::open().expect("an epoll"),
            notices: Notices::new(),
            calls: switch.calls(),
            supervise: Supervise::default(),
        };
        let (supervisor, _) = Actor::spawn(None, Idle, ()).await.expect("a supervisor");
        let (_, ended) = start(arguments, supervisor.get_cell()).await.expect("a listener");
        Case { address, admission, switch, ended }
    }

    async fn connect(case: &Case) -> (TcpStream, String) {
        let mut client = TcpStream::connect(case.address).await.expect("a connection");
        let mut first = [0; 64];
        let count = client.read(&mut first).await.expect("a greeting");
        (client, String::from_utf8_lossy(&first[..count]).into_owned())
    }

    #[tokio::test]
    async fn a_client_over_a_limit_hears_why_and_the_others_stay() {
        let case = case(false, |limits| limits.connections_per_ip_max = 2).await;
        let (first, second) = (connect(&case).await, connect(&case).await);
        assert_eq!((first.1.as_str(), second.1.as_str()), ("hello", "hello"));
        assert_eq!(connect(&case).await.1, "connections_per_address");
        assert_eq!(case.admission.connections_open(), 2);
    }

    #[tokio::test]
    async fn when_the_node_leaves_the_listener_ends_with_its_last_session() {
        let case = case(false, |_| {}).await;
        let _client = connect(&case).await;
        case.switch.set(Call::Leave);
        case.switch.vacated().await;
        case.ended.await.expect("no panic");
        assert_eq!(case.admission.connections_open(), 0);
    }

    #[tokio::test]
    async fn a_session_that_dies_takes_no_other_and_gives_its_place_back() {
        let case = case(true, |limits| limits.connections_per_ip_max = 1).await;
        for _ in 0..3 {
            // Each finds the only place free again: the session before is dead, the listener alive.
            while case.admission.connections_open() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(connect(&case).await.1, "");
        }
    }
}
