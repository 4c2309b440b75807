//! A session server over a store in a temporary directory, and a client that reads like one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use posthouse_conf::{Settings, Span};
use posthouse_filter::rate::Admission;
use posthouse_mail::{AccountId, Address, Domain, DomainId, ModSeq, Secret, StoredMessage};
use posthouse_net::{FrozenStream, TlsAcceptor, Transport, certificate};
use posthouse_storage::account::{self, NewAccount};
use posthouse_storage::mailbox::{self, Changed, Create, Delete, Rename};
use posthouse_storage::message::{self, Append, Copied, Copy, Expunge, Expunged, FlagsSet, SetFlags};
use posthouse_storage::{Store, Writer, domain, keys};
use posthouse_wire::imap::response::status::{Code, Status};
use posthouse_wire::sasl::Credentials;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::clock;
use crate::listener::fixture::Inn;
use crate::notice::Notices;
use crate::session::imap::answer::status_of;
use crate::session::imap::desk::Desk;
use crate::session::imap::{ImapServices, ImapSession};
use crate::session::{Call, Parked, Protocol, Session as _, Switch};

const ALICE: AccountId = AccountId::new(7);

/// Writes straight to the store, as the mailbox actor would.
#[derive(Clone)]
struct TestDesk {
    store: Store,
    notices: Notices,
    /// Changes told of.
    changes: Arc<AtomicU64>,
}

impl TestDesk {
    fn writer(&self, account: AccountId) -> Writer {
        Writer { fence: self.store.fence(keys::account_shard(account)), account, now: clock::now() }
    }

    fn told<T>(&self, outcome: Result<T, posthouse_storage::Error>) -> Result<T, Status> {
        let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.notices.publish(ALICE, ModSeq::new(change).expect("not zero"));
        outcome.map_err(|error| status_of(&error))
    }
}

impl Desk for TestDesk {
    fn store(&self) -> &Store {
        &self.store
    }

    async fn log_in(&self, credentials: Credentials, _client: IpAddr) -> Result<AccountId, Status> {
        let known = credentials.authentication == "alice" && credentials.password.reveal() == "pw";
        if known { Ok(ALICE) } else { Err(Status::no("wrong").code(Code::AuthenticationFailed)) }
    }

    fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>> {
        self.notices.subscribe(account)
    }

    async fn append(&self, account: AccountId, append: Append) -> Result<StoredMessage, Status> {
        let stored = message::append(&self.store, &self.writer(account), &[append]).await;
        self.told(stored.and_then(|mut stored| stored.remove(0)))
    }

    async fn set_flags(&self, account: AccountId, change: SetFlags) -> Result<FlagsSet, Status> {
        self.told(message::set_flags(&self.store, &self.writer(account), &change).await)
    }

    async fn expunge(&self, account: AccountId, expunge: Expunge) -> Result<Expunged, Status> {
        self.told(message::expunge(&self.store, &self.writer(account), &expunge).await)
    }

    async fn copy(&self, account: AccountId, copy: Copy) -> Result<Copied, Status> {
        self.told(message::copy(&self.store, &self.writer(account), &copy).await)
    }

    async fn move_to(&self, account: AccountId, copy: Copy) -> Result<Copied, Status> {
        self.told(message::move_to(&self.store, &self.writer(account), &copy).await)
    }

    async fn create(&self, account: AccountId, create: Create) -> Result<Changed, Status> {
        self.told(mailbox::create(&self.store, &self.writer(account), &create).await)
    }

    async fn rename(&self, account: AccountId, rename: Rename) -> Result<Changed, Status> {
        self.told(mailbox::rename(&self.store, &self.writer(account), &rename).await)
    }

    async fn delete(&self, account: AccountId, delete: Delete) -> Result<Changed, Status> {
        self.told(mailbox::delete(&self.store, &self.writer(account), &delete).await)
    }

    async fn set_subscribed(&self, account: AccountId, path: String, subscribed: bool) -> Result<(), Status> {
        self.told(mailbox::set_subscribed(&self.store, &self.writer(account), &path, subscribed).await)
    }
}

/// Sessions on a port of loopback.
pub struct Server {
    address: std::net::SocketAddr,
    switch: Switch,
    services: ImapServices<TestDesk>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), &settings.storage).await.expect("a store");
        make_account(&store).await;
        let switch = Switch::new();
        let desk = TestDesk { store, notices: Notices::new(), changes: Arc::default() };
        let settings = Arc::new(settings);
        let services = ImapServices { desk, protocol: Protocol::Imap, tls: None, settings, calls: switch.calls() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = services.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let transport = Transport::plain(stream).expect("a transport");
                tokio::spawn(ImapSession::new(services.clone(), transport, None).run());
            }
        });
        Self { address, switch, services: shared, _directory: directory }
    }

    /// A client whose session will go from process to process.
    pub async fn journey(&self, protocol: Protocol) -> Journey {
        let files = certificate::ensure(&self._directory.path().join("tls"), &["localhost".to_owned()]);
        let files = files.expect("certificates");
        let mut settings = Settings::clone(&self.services.settings);
        (settings.tls.certificate, settings.tls.private_key) = (files.certificate, files.private_key);
        let tls = Some(TlsAcceptor::load(&settings.tls).expect("an acceptor"));
        let switch = Switch::new();
        let services = ImapServices { protocol, tls, calls: switch.calls(), ..self.services.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let transport = Transport::plain(listener.accept().await.expect("a connection").0).expect("a transport");
        let session = tokio::spawn(ImapSession::new(services.clone(), transport, None).run());
        Journey {
            client: Client { stream: BufReader::new(stream), count: 0 },
            services,
            switch,
            session: Some(session),
        }
    }

    /// A listener on the same store, whose sessions sleep after so long.
    pub async fn inn(&self, sleep_after: Span) -> Inn {
        let (mut settings, switch) = (Settings::clone(&self.services.settings), Switch::new());
        settings.node.sleep_after = sleep_after;
        let settings = Arc::new(settings);
        let services = ImapServices { calls: switch.calls(), settings: settings.clone(), ..self.services.clone() };
        Inn::open(&settings, self.services.desk.notices.clone(), switch, Arc::new(services)).await
    }

    pub async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        Client { stream: BufReader::new(stream), count: 0 }
    }

    pub async fn logged_in(&self) -> Client {
        let mut client = self.connect().await;
        client.line().await;
        client.ok("LOGIN alice pw").await;
        client
    }

    /// Memory of one session's future, which a waiting session holds.
    pub async fn session_octets(&self) -> usize {
        let (client, server) = (TcpStream::connect(self.address).await, &self.services);
        let transport = Transport::plain(client.expect("a connection")).expect("a transport");
        std::mem::size_of_val(&ImapSession::new(server.clone(), transport, None).run())
    }

    pub fn drain(&self) {
        self.switch.set(Call::Leave);
    }
}

async fn make_account(store: &Store) {
    let name = Domain::parse("demo.test").expect("a domain");
    let id = DomainId::new(3);
    let domain_fence = store.fence(keys::domain_shard(id));
    domain::create(store, domain_fence, id, &name, clock::now()).await.expect("a domain row");
    let writer = Writer { fence: store.fence(keys::account_shard(ALICE)), account: ALICE, now: clock::now() };
    let new = NewAccount {
        address: Address::parse("alice@demo.test").expect("an address"),
        password_hash: None::<Secret<String>>,
        quota_max: None,
        admin: false,
        disabled: false,
    };
    account::create(store, &writer, domain_fence, &new).await.expect("an account");
}

/// A client, and its session in one process after another.
pub struct Journey {
    pub client: Client,
    services: ImapServices<TestDesk>,
    pub switch: Switch,
    session: Option<tokio::task::JoinHandle<Option<Parked>>>,
}

impl Journey {
    /// Into the next process; false when the session was over already.
    pub async fn hop(&mut self) -> bool {
        self.switch.set(Call::Move);
        let parked = self.parked().await;
        parked.map(|parked| self.arrive(parked)).is_some()
    }

    /// The session, once it is parked; none when it is over.
    pub async fn parked(&mut self) -> Option<Parked> {
        let parked = tokio::time::timeout(std::time::Duration::from_secs(60), self.session.take()?);
        parked.await.expect("the session parks").expect("no panic")
    }

    /// Goes on with the session in the next process.
    pub fn arrive(&mut self, parked: Parked) {
        self.switch = Switch::new();
        self.services.calls = self.switch.calls();
        let settings = &self.services.settings;
        let admission = Admission::new(&settings.limits, &settings.submission);
        let stream = FrozenStream::decode(&parked.stream.encode()).expect("a sound stream");
        let parked = Parked { stream, ..parked };
        let session = ImapSession::resume(self.services.clone(), parked, &admission).expect("a sound state");
        self.session = Some(tokio::spawn(session.run()));
    }

    /// All that comes until the server closes.
    pub async fn rest(mut self) -> String {
        let mut heard = String::new();
        self.client.stream.read_to_string(&mut heard).await.expect("an end");
        assert!(self.parked().await.is_none());
        heard
    }
}

/// A client that numbers its commands.
pub struct Client {
    stream: BufReader<TcpStream>,
    count: usize,
}

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("sent");
    }

    pub async fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.stream.read_exact(&mut octets).await.expect("so many octets");
        octets
    }

    /// The next line without its end; empty at the end of the stream.
    pub async fn line(&mut self) -> String {
        self.read().await.unwrap_or_default()
    }

    async fn read(&mut self) -> Option<String> {
        let mut line = String::new();
        // A connection that was reset is as much at its end as a closed one.
        let count = self.stream.read_line(&mut line).await.unwrap_or(0);
        (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Sends a command and reads to its tagged answer, whose tag is cut off.
    pub async fn answer(&mut self, command: &str) -> Vec<String> {
        self.count += 1;
        let tag = format!("t{} ", self.count);
        self.send(&format!("{tag}{command}\r\n")).await;
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.read().await else { panic!("the server closed after {command}: {lines:?}") };
            if let Some(status) = line.strip_prefix(&tag) {
                lines.push(status.to_owned());
                return lines;
            }
            lines.push(line);
        }
    }

    /// The tagged answer alone.
    pub async fn status(&mut self, command: &str) -> String {
        self.answer(command).await.pop().expect("a status")
    }

    /// All lines of a command that must succeed.
    pub async fn ok(&mut self, command: &str) -> Vec<String> {
        let lines = self.answer(command).await;
        assert!(lines.last().is_some_and(|status| status.starts_with("OK ")), "{command}: {lines:?}");
        lines
    }

    /// Appends with a synchronising literal, as most clients do.
    pub async fn append(&mut self, mailbox: &str, options: &str, message: &str) {
        self.send(&format!("p APPEND {mailbox} {options}{{{}}}\r\n", message.len())).await;
        assert!(self.line().await.starts_with("+ "));
        self.send(message).await;
        self.send("\r\n").await;
        loop {
            let line = self.line().await;
            assert!(!line.starts_with("p NO") && !line.starts_with("p BAD") && !line.is_empty(), "{line}");
            if line.starts_with("p OK [APPENDUID ") {
                return;
            }
        }
    }
}
