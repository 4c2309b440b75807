//! A site for tests of spool, queues and relays: a real store, the real actors, mail hosts and mailboxes of the test's own.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use posthouse_cluster::Placement;
use posthouse_conf::Settings;
use posthouse_conf::unit::Span;
use posthouse_mail::stage::{Origin, ReceivedMessage, VettedMessage};
use posthouse_mail::{
    AccountId, Address, Domain, Envelope, ForwardPath, IngestId, Recipient, ReversePath, UnixMillis, Verdict,
};
use posthouse_net::{Answer, Error as NetError, Mx, MxHost};
use posthouse_storage::Store;
use posthouse_storage::message::{Append, AppendBody};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

use crate::clock;
use crate::directory::{Resolution, Target};
use crate::queue::Queues;
use crate::queue::bounce::Reports;
use crate::queue::route::Names;
use crate::queue::services::{Busy, QueueServices};
use crate::relay::{Courier, Outbound, SmtpCourier};
use crate::spool::{LocalDelivery, Refusal, Spool, SpoolNudge, SpoolServices};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a mail host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Accept,
    /// 550 to recipients that begin with `refused`.
    RefuseSome,
    /// 451 to every recipient.
    DeferAll,
    /// Hangs up after the end of data, the first time.
    LoseFirstReply,
    /// Offers STARTTLS and then talks nonsense.
    BrokenTls,
    /// Greets with 421.
    Unwilling,
}

/// What a host took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) data: String,
}

/// A mail host on a loopback address.
pub(crate) struct Host {
    pub(crate) port: u16,
    taken: Mutex<mpsc::UnboundedReceiver<Taken>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Host {
    /// Listens at 127.0.0.`last`; port 0 lets the system choose.
    pub(crate) async fn listen(last: u8, port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, taken) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, manner, sender.clone(), number));
            }
        });
        Self { port, taken: Mutex::new(taken), connections }
    }

    pub(crate) async fn next(&self) -> Taken {
        timeout(PATIENCE, async { self.taken.lock().await.recv().await }).await.expect("mail in time").expect("a host")
    }
}

async fn serve(stream: TcpStream, manner: Manner, taken: mpsc::UnboundedSender<Taken>, number: usize) {
    let mut stream = BufReader::new(stream);
    let greeting = if manner == Manner::Unwilling { "421 busy\r\n" } else { "220 mx ready\r\n" };
    if stream.write_all(greeting.as_bytes()).await.is_err() || manner == Manner::Unwilling {
        return;
    }
    let mut mail = Taken { from: String::new(), to: Vec::new(), data: String::new() };
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).await.is_ok_and(|count| count > 0)
    } {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" if manner == Manner::BrokenTls => "250-mx\r\n250 STARTTLS\r\n",
            "EHLO" => "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
            "STAR" => {
                let _ = stream.write_all(b"220 go\r\n").await;
                // The handshake comes, and gets nonsense for an answer.
                let _ = stream.fill_buf().await;
                let _ = stream.write_all(b"this is no TLS\r\n").await;
                return;
            }
            "MAIL" => {
                mail = Taken { from: line.trim().to_owned(), to: Vec::new(), data: String::new() };
                "250 ok\r\n"
            }
            "RCPT" if manner == Manner::DeferAll => "451 4.2.0 later\r\n",
            "RCPT" if manner == Manner::RefuseSome && line.contains("<refused") => "550 5.1.1 no such user\r\n",
            "RCPT" => {
                mail.to.push(line.trim().to_owned());
                "250 ok\r\n"
            }
            "DATA" if mail.to.is_empty() => "554 nobody\r\n",
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.unwrap();
                loop {
                    line.clear();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    mail.data.push_str(&line);
                }
                let _ = taken.send(mail.clone());
                if manner == Manner::LoseFirstReply && number == 0 {
                    return;
                }
                "250 taken\r\n"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n").await;
                return;
            }
            _ => "250 ok\r\n",
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// DNS of the test: MX hosts by domain, addresses by host.
#[derive(Default)]
pub(crate) struct TestNames {
    mx: HashMap<String, Vec<MxHost>>,
    addresses: HashMap<String, IpAddr>,
}

impl TestNames {
    /// `there.test`, preference 10, host 127.0.0.2.
    pub(crate) fn mx(mut self, domain: &str, preference: u16, last: u8) -> Self {
        let host = Domain::parse(&format!("mx{last}.test")).unwrap();
        self.addresses.insert(host.to_string(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        self.mx.entry(domain.to_owned()).or_default().push(MxHost { preference, host });
        self
    }
}

impl Names for TestNames {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, NetError>> {
        let answer =
            self.mx.get(domain.as_str()).cloned().map_or(Answer::NxDomain, |hosts| Answer::Found(Mx::Hosts(hosts)));
        Box::pin(async move { Ok(answer) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<Vec<IpAddr>>, NetError>> {
        let answer = self.addresses.get(host.as_str()).map_or(Answer::NxDomain, |ip| Answer::Found(vec![*ip]));
        Box::pin(async move { Ok(answer) })
    }
}

/// Mailboxes of the test: `alice@us.test` is account 1, `bob@us.test` account 2, nobody else.
pub(crate) struct TestMailboxes {
    delivered: mpsc::UnboundedSender<(AccountId, Append)>,
    /// How often an append panics or is refused before it works.
    pub(crate) panics: AtomicUsize,
    pub(crate) refusals: AtomicUsize,
}

fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl LocalDelivery for TestMailboxes {
    fn resolve<'a>(&'a self, path: &'a ForwardPath) -> BoxFuture<'a, Result<Resolution, posthouse_storage::Error>> {
        let address = path.address().unwrap().clone();
        let account = |id| Target::Account { id: AccountId::new(id), address: address.clone(), over_quota: false };
        let resolution = match (address.local.as_str(), address.domain.as_str()) {
            ("alice", "us.test") => Resolution::Local { targets: vec![account(1)] },
            ("bob", "us.test") => Resolution::Local { targets: vec![account(2)] },
            ("both", "us.test") => Resolution::Local {
                targets: vec![account(1), account(2), Target::Remote(Address::parse("far@there.test").unwrap())],
            },
            (_, "us.test") => Resolution::NoSuchUser,
            _ => Resolution::NotLocal,
        };
        Box::pin(async move { Ok(resolution) })
    }

    fn append(&self, account: AccountId, append: Append) -> BoxFuture<'_, Result<(), Refusal>> {
        assert!(!take_one(&self.panics), "a mailbox of the test panics");
        Box::pin(async move {
            if take_one(&self.refusals) {
                return Err(Refusal { try_again: true, reason: "not now".to_owned() });
            }
            self.delivered.send((account, append)).unwrap();
            Ok(())
        })
    }
}

/// The root of the site's actors.
struct Root;

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<()>, _: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Spool and queues, running.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) queues: Queues,
    pub(crate) spool: Spool,
    pub(crate) mailboxes: Arc<TestMailboxes>,
    delivered: Mutex<mpsc::UnboundedReceiver<(AccountId, Append)>>,
    _dir: tempfile::TempDir,
}

/// Settings in which everything is quick.
pub(crate) fn settings(port: u16) -> Settings {
    let mut settings = Settings::default();
    settings.node.hostname = "us.test".to_owned();
    let queue = &mut settings.queue;
    queue.remote_port = port;
    queue.schedule = vec![Span::ms(50)];
    queue.scan_interval = Span::ms(200);
    queue.passivate_after = Span::ms(300);
    queue.idle_connection_ttl = Span::ms(200);
    queue.spool_retry = Span::ms(50);
    queue.command_timeout = Span::secs(5);
    queue.delay_notice_after = Span::ms(0);
    settings.supervise.backoff_min = Span::ms(10);
    settings
}

impl Site {
    pub(crate) async fn new(settings: Settings, names: TestNames) -> Self {
        Self::with(settings, names, |courier| Arc::new(courier)).await
    }

    /// With a courier of the test's own around the real one.
    pub(crate) async fn with(
        settings: Settings,
        names: TestNames,
        wrap: impl FnOnce(SmtpCourier) -> Arc<dyn Courier>,
    ) -> Self {
        posthouse_net::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let settings = Arc::new(settings);
        let store = Store::open(dir.path(), &settings.storage).await.unwrap();
        let (root, _) = Actor::spawn(None, Root, ()).await.unwrap();
        let own: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 99], settings.queue.remote_port))];
        let outbound = Outbound::read(&settings.queue).unwrap();
        let courier = SmtpCourier::new(settings.clone(), store.clone(), Arc::new(names), outbound, own);
        let reports =
            Reports { hostname: settings.node.hostname.clone(), return_max: settings.queue.dsn_return_max.get() };
        let nudge = SpoolNudge::default();
        let services = Arc::new(QueueServices {
            store: store.clone(),
            settings: settings.clone(),
            courier: wrap(courier),
            reports: reports.clone(),
            spool: nudge.clone(),
            relays: Arc::new(Semaphore::new(settings.queue.relays_max)),
            busy: Busy::default(),
        });
        let placement = Placement::local(store.clone());
        let queues = Queues::start(services, placement.clone(), root.get_cell()).await.unwrap();
        let (sender, delivered) = mpsc::unbounded_channel();
        let mailboxes =
            Arc::new(TestMailboxes { delivered: sender, panics: AtomicUsize::new(0), refusals: AtomicUsize::new(0) });
        let local: Arc<dyn LocalDelivery> = mailboxes.clone();
        let services =
            SpoolServices { store: store.clone(), placement, settings, local, queues: queues.clone(), reports, nudge };
        let spool = Spool::start(services, root.get_cell()).await.unwrap();
        Self { store, queues, spool, mailboxes, delivered: Mutex::new(delivered), _dir: dir }
    }

    /// Accepts a message as a session would.
    pub(crate) async fn accept(&self, from: &str, to: &[&str], text: &str) -> IngestId {
        let now = clock::now();
        let id = clock::ingest_id(now);
        let mut envelope = Envelope::new(id, ReversePath::parse(from).unwrap());
        envelope.recipients = to.iter().map(|path| Recipient::new(ForwardPath::parse(path).unwrap())).collect();
        self.accept_envelope(envelope, text, now).await
    }

    pub(crate) async fn accept_envelope(&self, envelope: Envelope, text: &str, now: UnixMillis) -> IngestId {
        let id = envelope.id;
        let mut writer = self.store.body_writer();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let origin = Origin {
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            hello: "client.test".to_owned(),
            protocol: "ESMTP",
            tls: None,
            account: None,
        };
        let received = ReceivedMessage { envelope, origin, body: staged.body, received_at: now };
        let added_headers = b"Received: by us.test\r\n".to_vec();
        let vetted = VettedMessage { received, verdict: Verdict::accept(), added_headers };
        self.spool.receive(vetted, staged).await.unwrap();
        id
    }

    /// The next local delivery: account and message.
    pub(crate) async fn delivered(&self) -> (u64, String) {
        let next = timeout(PATIENCE, async { self.delivered.lock().await.recv().await }).await;
        let (account, append) = next.expect("a delivery in time").expect("the site lives");
        let AppendBody::Held(body) = append.body else { panic!("the spool holds the body") };
        let body = self.store.body_read(&body, 0..body.size).await.unwrap();
        let mut text = String::from_utf8_lossy(&append.prefix).into_owned();
        text.push_str(&String::from_utf8_lossy(&body));
        let end = append.structure.root.unwrap().body_end;
        assert_eq!(end, text.len() as u64, "the structure covers the message as clients see it");
        (account.get(), text)
    }

    /// Waits until nothing is under way.
    pub(crate) async fn settled(&self) {
        let empty = async {
            loop {
                let counts = posthouse_storage::queue::counts(&self.store).await.unwrap();
                if counts.spool_messages == 0 && counts.queue_messages == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, empty).await.expect("everything is delivered in time");
    }
}
