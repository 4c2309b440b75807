//! A listener at work with the sessions of one protocol, for tests of what happens to them when they sleep.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use posthouse_conf::{Settings, Supervise};
use posthouse_filter::rate::Admission;
use posthouse_net::Listener;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{ListenerArguments, ListenerMsg, SessionFactory};
use crate::notice::Notices;
use crate::session::home::Lodging;
use crate::session::{Parked, Resumed, Switch};

const SOON: Duration = Duration::from_secs(60);

/// An address of loopback at which nobody listens now. Not one of those that the system gives away by itself, which another test
/// may get before it is used.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 5000).expect("below 5000");
    let port = || 15_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 15_000;
    let addresses = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], port())));
    addresses.take(15_000).find(|address| std::net::TcpListener::bind(address).is_ok()).expect("a free port")
}

/// A supervisor that lets things be.
pub struct Idle;

impl Actor for Idle {
    type Msg = ListenerMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<ListenerMsg>, _: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub struct Inn {
    pub admission: Arc<Admission>,
    pub lodging: Lodging,
    pub switch: Switch,
    factory: Arc<dyn SessionFactory>,
    address: SocketAddr,
    arrivals: UnboundedSender<Resumed>,
    ended: tokio::task::JoinHandle<()>,
}

impl Inn {
    pub async fn open(settings: &Settings, notices: Notices, switch: Switch, factory: Arc<dyn SessionFactory>) -> Self {
        let admission = Arc::new(Admission::new(&settings.limits, &settings.submission));
        let socket = Listener::bind("127.0.0.1:0".parse().expect("an address"), 8).expect("a free port");
        let (address, (arrivals, receiver)) = (socket.local_addr(), unbounded_channel());
        let lodging = Lodging::open().expect("an epoll");
        let arguments = ListenerArguments {
            socket: Arc::new(socket),
            admission: admission.clone(),
            factory: factory.clone(),
            arrivals: Arc::new(Mutex::new(receiver)),
            lodging: lodging.clone(),
            notices,
            calls: switch.calls(),
            supervise: Supervise::default(),
        };
        let (supervisor, _) = Actor::spawn(None, Idle, ()).await.expect("a supervisor");
        let (_, ended) = super::start(arguments, supervisor.get_cell()).await.expect("a listener");
        Self { admission, lodging, switch, factory, address, arrivals, ended }
    }

    pub async fn connect(&self) -> Guest {
        Guest(BufReader::new(TcpStream::connect(self.address).await.expect("a connection")))
    }

    /// Returns once so many sessions sleep.
    pub async fn asleep(&self, count: usize) {
        let reached = async {
            while self.lodging.asleep() != count {
                tokio::task::yield_now().await;
            }
        };
        let words = || format!("{} of {} sleep, not {count}", self.lodging.asleep(), self.lodging.guests());
        assert!(tokio::time::timeout(SOON, reached).await.is_ok(), "{}", words());
    }

    /// A session of another process goes on here.
    pub fn arrive(&self, parked: Parked) {
        let session = self.factory.resume(parked, &self.admission).expect("a sound state");
        self.arrivals.send(session).unwrap_or_else(|_| panic!("the listener is gone"));
    }

    /// Returns once the listener is gone with its last session.
    pub async fn ended(self) {
        tokio::time::timeout(SOON, self.ended).await.expect("the listener ends").expect("no panic");
    }
}

/// A client.
pub struct Guest(BufReader<TcpStream>);

impl Guest {
    pub async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// The next line without its end; empty at the end of the stream.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(SOON, self.0.read_line(&mut line)).await;
        read.expect("a line").expect("a line");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Lines up to one that begins so.
    pub async fn until(&mut self, begin: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "the server closed: {lines:?}");
            let is_last = line.starts_with(begin);
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    /// Returns once the server has closed, with or without having read all.
    pub async fn closed(&mut self) {
        let read = tokio::time::timeout(SOON, self.0.read_u8()).await.expect("an end");
        assert!(read.is_err(), "{read:?}");
    }

    /// All that comes until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut heard = String::new();
        let read = tokio::time::timeout(SOON, self.0.read_to_string(&mut heard)).await;
        read.expect("an end").expect("text");
        heard
    }

    /// The connection itself, for TLS.
    pub fn into_inner(self) -> TcpStream {
        self.0.into_inner()
    }

    /// Goes without a word, as a client does whose machine was turned off and on again.
    pub fn reset(self) {
        self.0.into_inner().set_zero_linger().expect("a socket");
    }
}
