//! A session, its client and its desk.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use posthouse_conf::{Settings, Span};
use posthouse_filter::rate::Admission;
use posthouse_mail::stage::{BodyRef, ReceivedMessage, SignedMessage, VettedMessage};
use posthouse_mail::{AccountId, Action, Address, ForwardPath, Reply, UnixMillis, Verdict};
use posthouse_net::tls::Connector;
use posthouse_net::{FrozenStream, LineStream, Listener, TlsAcceptor, certificate, connect};
use posthouse_storage::Store;
use posthouse_storage::blob::{BodyWriter, StagedBody};
use posthouse_storage::message::Append;
use posthouse_wire::sasl::Credentials;
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::Login;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::listener::Accepted;
use crate::listener::fixture::Inn;
use crate::notice::Notices;
use crate::session::smtp::desk::{Desk, Route};
use crate::session::smtp::{SmtpServices, SmtpSession};
use crate::session::{Call, Parked, Protocol, Session, Switch};

pub const ALICE: AccountId = AccountId::new(1);
pub const BOB: AccountId = AccountId::new(2);
pub const LOGIN: (&str, &str) = ("AUTH PLAIN AGFsaWNlAGRlbW8=", "235 2.7.0");
const SOON: Duration = Duration::from_secs(20);

/// A node of two accounts, `alice` (password `demo`) and `bob`, an alias `team` and a full mailbox `full`, at x.test.
#[derive(Clone)]
pub struct FakeDesk {
    store: Store,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    verdict: Verdict,
    storing_fails: bool,
    messages_refused: bool,
    routes_asked: usize,
    delivered: Vec<(AccountId, Append)>,
    spooled: Vec<(VettedMessage, StagedBody)>,
    submitted: Vec<(SignedMessage, StagedBody)>,
}

impl FakeDesk {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds this")
    }

    pub fn judge(&self, action: Action, reply: Option<Reply>) {
        self.seen().verdict = Verdict { action, evidence: Vec::new(), reply };
    }

    pub fn fail_storing(&self) {
        self.seen().storing_fails = true;
    }

    pub fn refuse_messages(&self) {
        self.seen().messages_refused = true;
    }

    pub fn delivered(&self) -> Vec<(AccountId, Append)> {
        self.seen().delivered.clone()
    }

    pub fn spooled(&self) -> Vec<(VettedMessage, StagedBody)> {
        self.seen().spooled.clone()
    }

    pub fn submitted(&self) -> Vec<(SignedMessage, StagedBody)> {
        self.seen().submitted.clone()
    }

    pub fn routes_asked(&self) -> usize {
        self.seen().routes_asked
    }

    fn stored(&self) -> Result<(), Reply> {
        if self.seen().storing_fails { Err(reply::local_error()) } else { Ok(()) }
    }
}

impl Desk for FakeDesk {
    async fn log_in(&self, credentials: Credentials, _client: IpAddr) -> Result<Login, Reply> {
        let right = credentials.authentication == "alice" && credentials.password.reveal() == "demo";
        let address = Address::parse("alice@x.test").expect("an address");
        if right { Ok(Login { account: ALICE, address }) } else { Err(reply::credentials_invalid()) }
    }

    fn admit_message(&self, _client: IpAddr, login: Option<&Login>) -> Result<(), Reply> {
        match (self.seen().messages_refused, login) {
            (false, _) => Ok(()),
            (true, None) => Err(reply::too_many_messages_from_address()),
            (true, Some(_)) => Err(reply::too_many_messages_of_account()),
        }
    }

    async fn owns(&self, account: AccountId, address: &Address) -> Result<bool, Reply> {
        Ok(account == ALICE && address.key() == "alice@x.test")
    }

    async fn route(&self, path: &ForwardPath, size: Option<u64>) -> Result<Route, Reply> {
        self.seen().routes_asked += 1;
        let Some(address) = path.address() else {
            return Ok(Route::Account(ALICE));
        };
        match address.key().as_str() {
            "alice@x.test" => Ok(Route::Account(ALICE)),
            "bob@x.test" if size.is_some_and(|size| size > 1000) => Err(reply::larger_than_quota()),
            "bob@x.test" => Ok(Route::Account(BOB)),
            "team@x.test" => Ok(Route::Several),
            "full@x.test" => Err(reply::mailbox_full()),
            key if key.ends_with("@x.test") => Err(reply::no_such_user()),
            _ => Ok(Route::NotLocal),
        }
    }

    fn body_writer(&self) -> BodyWriter {
        self.store.body_writer()
    }

    async fn vet(&self, received: ReceivedMessage) -> Result<VettedMessage, Reply> {
        let verdict = self.seen().verdict.clone();
        Ok(VettedMessage { received, verdict, added_headers: b"Authentication-Results: fake\r\n".to_vec() })
    }

    async fn append(&self, account: AccountId, append: Append) -> Result<(), Reply> {
        self.stored()?;
        self.seen().delivered.push((account, append));
        Ok(())
    }

    async fn spool(&self, message: VettedMessage, body: StagedBody) -> Result<(), Reply> {
        self.stored()?;
        self.seen().spooled.push((message, body));
        Ok(())
    }

    async fn sign(&self, _author: &Address, _body: BodyRef, _now: UnixMillis) -> Result<Vec<u8>, Reply> {
        Ok(b"DKIM-Signature: fake\r\n".to_vec())
    }

    async fn submit(&self, message: SignedMessage, body: StagedBody) -> Result<(), Reply> {
        self.stored()?;
        self.seen().submitted.push((message, body));
        Ok(())
    }
}

pub struct Fixture {
    pub desk: FakeDesk,
    client: Option<LineStream>,
    session: JoinHandle<Option<Parked>>,
    services: SmtpServices<FakeDesk>,
    pub switch: Switch,
    _dir: tempfile::TempDir,
}

impl Fixture {
    pub async fn new(protocol: Protocol, change: impl FnOnce(&mut Settings)) -> Self {
        Self::open(protocol, change, false).await
    }

    pub async fn exempt(protocol: Protocol, change: impl FnOnce(&mut Settings)) -> Self {
        Self::open(protocol, change, true).await
    }

    async fn open(protocol: Protocol, change: impl FnOnce(&mut Settings), exempt: bool) -> Self {
        let mut fixture = Self::begin(protocol, change, exempt).await;
        if protocol.is_implicit_tls() {
            fixture.start_tls().await;
        }
        fixture
    }

    /// A session and a client that has said nothing, not even a handshake's beginning.
    pub async fn begin(protocol: Protocol, change: impl FnOnce(&mut Settings), exempt: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::default();
        settings.node.hostname = "mx.x.test".to_owned();
        settings.smtp.early_talker_wait = Span::ms(0);
        change(&mut settings);
        let files = certificate::ensure(&dir.path().join("tls"), &["localhost".to_owned()]).expect("certificates");
        settings.tls.certificate = files.certificate;
        settings.tls.private_key = files.private_key;
        let tls = TlsAcceptor::load(&settings.tls).expect("an acceptor");
        let store = Store::open(&dir.path().join("store"), &settings.storage).await.expect("a store");
        let seen = Seen {
            verdict: Verdict::accept(),
            storing_fails: false,
            routes_asked: 0,
            messages_refused: false,
            delivered: Vec::new(),
            spooled: Vec::new(),
            submitted: Vec::new(),
        };
        let desk = FakeDesk { store, seen: Arc::new(Mutex::new(seen)) };
        let switch = Switch::new();
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 4).expect("a free port");
        let plain = connect(listener.local_addr(), SOON).await.expect("a connection");
        let transport = listener.accept().await;
        let admission = Admission::new(&settings.limits, &settings.submission);
        let accepted = Accepted {
            peer: transport.peer_addr(),
            local: transport.local_addr(),
            guard: admission.connect(transport.peer_ip()).expect("room"),
            transport,
            exempt,
        };
        let services = SmtpServices::new(desk.clone(), protocol, Some(tls), Arc::new(settings), switch.calls());
        let session = tokio::spawn(SmtpSession::new(services.clone(), accepted).run());
        Self { desk, client: Some(LineStream::new(plain, 1 << 20)), session, services, switch, _dir: dir }
    }

    /// A listener with sessions of the same settings and the same desk.
    pub async fn inn(&self) -> Inn {
        let (settings, switch) = (self.services.settings.clone(), Switch::new());
        let services = SmtpServices { calls: switch.calls(), ..self.services.clone() };
        Inn::open(&settings, Notices::new(), switch, Arc::new(services)).await
    }

    /// The session goes on in the next process.
    pub async fn hop(&mut self) {
        self.switch.set(Call::Move);
        self.arrive().await;
    }

    /// Takes the session where it parks, and goes on with it in the next process.
    pub async fn arrive(&mut self) {
        let parked = tokio::time::timeout(SOON, &mut self.session).await.expect("the session parks");
        let parked = parked.expect("no panic").expect("the session goes on");
        self.switch = Switch::new();
        self.services.calls = self.switch.calls();
        let settings = &self.services.settings;
        let admission = Admission::new(&settings.limits, &settings.submission);
        let stream = FrozenStream::decode(&parked.stream.encode()).expect("a sound stream");
        let parked = Parked { stream, ..parked };
        let session = SmtpSession::resume(self.services.clone(), parked, &admission).expect("a sound state");
        self.session = tokio::spawn(session.run());
    }

    /// All that the server says until it closes.
    pub async fn rest(&mut self) -> String {
        let client = self.client.as_mut().expect("a client");
        while client.fill(Instant::now() + SOON).await.is_ok() {}
        let heard = String::from_utf8(client.input().to_vec()).expect("text");
        self.ended().await;
        heard
    }

    pub async fn start_tls(&mut self) {
        let (plain, rest) = self.client.take().expect("a client").into_parts();
        assert!(rest.is_empty(), "the server said nothing before TLS");
        let secure = Connector::opportunistic().connect(plain, "localhost", SOON).await.expect("TLS");
        self.client = Some(LineStream::new(secure, 1 << 20));
    }

    pub async fn send(&mut self, text: &str) {
        self.client.as_mut().expect("a client").write_all(text.as_bytes(), SOON).await.expect("the server reads");
    }

    /// Sends the same octet again and again until the server says something.
    pub async fn trickle(&mut self, octet: u8, pause: Duration) {
        let client = self.client.as_mut().expect("a client");
        while client.fill(Instant::now() + pause).await.is_err() {
            // The server may just have closed: what it said before that is read next.
            let _ = client.write_all(&[octet], SOON).await;
        }
    }

    /// The next reply, all its lines; the last one must begin as expected.
    pub async fn expect(&mut self, expect: &str) {
        let client = self.client.as_mut().expect("a client");
        loop {
            while !client.input().windows(2).any(|pair| pair == b"\r\n") {
                client.fill(Instant::now() + SOON).await.expect("a reply");
            }
            let end = client.input().windows(2).position(|pair| pair == b"\r\n").expect("a line");
            let line = client.take(end + 2);
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.as_bytes().get(3) == Some(&b' ') {
                assert!(line.starts_with(expect), "expected {expect:?}, heard {line:?}");
                return;
            }
        }
    }

    pub async fn greet(&mut self) {
        self.expect("220 mx.x.test ESMTP").await;
    }

    /// A transaction with one recipient, in one piece: nothing is waited for in the middle of it.
    pub async fn begin_at_once(&mut self) {
        self.send("EHLO c\r\nMAIL FROM:<s@far.test>\r\nRCPT TO:<alice@x.test>\r\n").await;
        for expect in ["250", "250 2.1.0", "250 2.1.5"] {
            self.expect(expect).await;
        }
    }

    /// Plays lines, each with the beginning of its reply.
    pub async fn check(&mut self, dialogue: &[(&str, &str)]) {
        for (line, expect) in dialogue {
            self.send(&format!("{line}\r\n")).await;
            self.expect(expect).await;
        }
    }

    /// The server closes, and its session ends.
    pub async fn is_closed(&mut self) {
        let client = self.client.as_mut().expect("a client");
        let end = client.fill(Instant::now() + SOON).await;
        assert!(end.is_err() && client.input().is_empty(), "the server closes: {end:?} {:?}", client.input());
        self.ended().await;
    }

    /// The client goes without a word; returns when the session noticed.
    pub async fn vanish(&mut self) {
        self.client = None;
        self.ended().await;
    }

    async fn ended(&mut self) {
        tokio::time::timeout(SOON, &mut self.session).await.expect("the session ends").expect("without a panic");
    }

    pub fn drain(&self) {
        self.switch.set(Call::Leave);
    }

    pub async fn body(&self, body: BodyRef) -> String {
        let octets = self.desk.store.body_read(&body, 0..body.size).await.expect("a body");
        String::from_utf8(octets.to_vec()).expect("UTF-8")
    }
}
