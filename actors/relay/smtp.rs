//! The courier that speaks SMTP: routes at the attempt, tries hosts and addresses in order, keeps the line that worked.
//!
//! Apart from the relay actor, which knows when to carry but not how. A temporary refusal moves on to the next host
//! (RFC 5321 §5.1); a reply that was lost after the data does not, since the message may have been taken (§6.1).

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_conf::section::queue::TlsPolicy;
use posthouse_mail::{BodyType, DeliveryOutcome, EnhancedStatus, Recipient, Secret};
use posthouse_net::{Error as NetError, MxHost, TlsConnector, connect};
use posthouse_obs::emit;
use posthouse_obs::event::queue::{RelayConnected, RelayInDoubt, RelayTlsFailed};
use posthouse_storage::Store;
use posthouse_wire::smtp::client::{
    Client, ClientLogin, ClientSettings, ClientTls, CloseReason, ReplyLimits, Transaction, TransactionResult,
};
use rand::seq::SliceRandom;
use thiserror::Error;

use super::connection::{Connection, Line, OpenFailure};
use super::content::Content;
use super::{Courier, Load};
use crate::queue::route::{Names, RouteHost, RouteSettings, route};
use crate::queue::settlement::Attempted;

/// Why a courier cannot be made.
#[derive(Debug, Error)]
pub enum CourierError {
    #[error("queue.smarthost_password_file: {0}")]
    Password(std::io::Error),
    #[error(transparent)]
    Net(#[from] NetError),
}

/// How mail goes out: what is shown to the smarthost, and what others have to show.
#[derive(Clone)]
pub struct Outbound {
    smarthost: Option<(String, u16)>,
    login: Option<(String, Secret<String>)>,
    tls: TlsConnector,
}

impl Outbound {
    /// Reads the smarthost's password.
    pub fn read(queue: &posthouse_conf::section::queue::Queue) -> Result<Self, CourierError> {
        let smarthost = queue.smarthost.rsplit_once(':');
        let smarthost = smarthost.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let login = if queue.smarthost_user.is_empty() || smarthost.is_none() {
            None
        } else {
            let text = std::fs::read_to_string(&queue.smarthost_password_file).map_err(CourierError::Password)?;
            Some((queue.smarthost_user.clone(), Secret::new(text.trim_end().to_owned())))
        };
        // A password goes only to a server that proves its name; mail goes to any (RFC 7435 §3).
        let tls = if login.is_some() { TlsConnector::verified()? } else { TlsConnector::opportunistic() };
        Ok(Self { smarthost, login, tls })
    }
}

/// Carries mail by SMTP.
pub struct SmtpCourier {
    store: Store,
    names: Arc<dyn Names>,
    settings: Arc<Settings>,
    route: RouteSettings,
    login: Option<(String, Secret<String>)>,
    tls: TlsConnector,
}

impl SmtpCourier {
    /// `own` are the addresses of our own SMTP listeners.
    pub fn new(
        settings: Arc<Settings>,
        store: Store,
        names: Arc<dyn Names>,
        outbound: Outbound,
        own: Vec<SocketAddr>,
    ) -> Self {
        let queue = &settings.queue;
        let Outbound { smarthost, login, tls } = outbound;
        let route = RouteSettings {
            port: queue.remote_port,
            smarthost,
            hosts_max: queue.mx_hosts_max,
            addresses_max: queue.addresses_per_host_max,
            loopback_allowed: queue.loopback_allowed,
            hostname: settings.node.hostname.clone(),
            own,
        };
        Self { store, names, settings, route, login, tls }
    }

    async fn carry_load(&self, load: &Load, line: &mut Line) -> Vec<Attempted> {
        let mut trip = Trip::new(load);
        if let Some(kept) = line.kept.take() {
            self.use_kept(kept, &mut trip, line).await;
        }
        if trip.is_over() {
            return trip.attempted;
        }
        let destination = &load.work.id.destination;
        let mut shuffle = |group: &mut [MxHost]| group.shuffle(&mut rand::rng());
        match route(self.names.as_ref(), &self.route, destination, &mut shuffle).await {
            Ok(hosts) => self.visit(&hosts, &mut trip, line).await,
            Err(refusal) if refusal.is_final() => trip.end_all(&DeliveryOutcome::Bounced {
                host: None,
                status: refusal.status,
                reason: refusal.reason,
                reply: None,
            }),
            Err(refusal) => trip.note_all(&DeliveryOutcome::Deferred {
                host: None,
                status: refusal.status,
                reason: refusal.reason,
                reply: None,
            }),
        }
        trip.into_attempted()
    }

    /// The line of the message before. If it went stale the message starts afresh; if the server answered, that is its answer.
    async fn use_kept(&self, mut kept: Connection, trip: &mut Trip<'_>, line: &mut Line) {
        if !kept.usable() {
            return;
        }
        emit(RelayConnected { host: kept.host.clone(), end: "reused", reason: String::new() });
        let answered = self.hand_over(&mut kept, trip).await;
        if answered {
            trip.give_up_rest();
        }
        self.keep(kept, line).await;
    }

    /// Goes from host to host until every recipient has a final outcome.
    async fn visit(&self, hosts: &[RouteHost], trip: &mut Trip<'_>, line: &mut Line) {
        for host in hosts {
            for address in &host.addresses {
                match self.open(host, *address).await {
                    Ok(mut connection) => {
                        self.hand_over(&mut connection, trip).await;
                        self.keep(connection, line).await;
                    }
                    Err(outcome) => {
                        let reason = match &outcome {
                            DeliveryOutcome::Deferred { reason, .. } | DeliveryOutcome::Bounced { reason, .. } => {
                                reason.clone()
                            }
                            DeliveryOutcome::Delivered { .. } => String::new(),
                        };
                        emit(RelayConnected { host: host.name.clone(), end: "failed", reason });
                        match outcome {
                            DeliveryOutcome::Bounced { .. } => trip.end_all(&outcome),
                            _ => trip.note_all(&outcome),
                        }
                    }
                }
                if trip.is_over() {
                    return;
                }
            }
        }
    }

    async fn keep(&self, mut connection: Connection, line: &mut Line) {
        if !connection.usable() {
            return;
        }
        if connection.messages < self.settings.queue.messages_per_connection_max && line.kept.is_none() {
            line.kept = Some(connection);
        } else {
            connection.quit().await;
        }
    }

    /// Connects; where the TLS handshake fails and the policy allows, again without TLS.
    async fn open(&self, host: &RouteHost, address: SocketAddr) -> Result<Connection, DeliveryOutcome> {
        let (first, fallback) = match self.settings.queue.tls {
            TlsPolicy::None => (ClientTls::Never, false),
            TlsPolicy::Opportunistic => (ClientTls::IfOffered, self.login.is_none()),
            TlsPolicy::Required => (ClientTls::Required, false),
        };
        let failure = match self.open_with(host, address, first).await? {
            Ok(connection) => return Ok(connection),
            Err(failure) => failure,
        };
        let closed = match failure {
            OpenFailure::Closed(reason) => reason,
            OpenFailure::Tls(reason) if fallback => {
                emit(RelayTlsFailed { host: host.name.clone(), reason });
                match self.open_with(host, address, ClientTls::Never).await? {
                    Ok(connection) => return Ok(connection),
                    Err(OpenFailure::Closed(reason)) => reason,
                    Err(OpenFailure::Tls(reason)) => CloseReason::Lost(reason),
                }
            }
            OpenFailure::Tls(reason) => CloseReason::Lost(reason),
        };
        Err(closed.outcome(&host.name))
    }

    async fn open_with(
        &self,
        host: &RouteHost,
        address: SocketAddr,
        tls: ClientTls,
    ) -> Result<Result<Connection, OpenFailure>, DeliveryOutcome> {
        let queue = &self.settings.queue;
        let transport = connect(address, queue.connect_timeout.get()).await.map_err(|error| {
            let status = EnhancedStatus::new(4, 4, 1);
            DeliveryOutcome::Deferred { host: Some(host.name.clone()), status, reason: error.to_string(), reply: None }
        })?;
        if self.route.is_own_connection(transport.peer_addr(), transport.local_addr()) {
            let reason = "mail for this domain leads back to this server".to_owned();
            let status = EnhancedStatus::new(5, 4, 6);
            return Err(DeliveryOutcome::Bounced { host: Some(host.name.clone()), status, reason, reply: None });
        }
        let (transport, tls) = if self.route.smarthost.is_some() && address.port() == SUBMISSIONS_PORT {
            // RFC 8314 §3.3: on this port TLS comes first.
            let secured = self.tls.connect(transport, &host.name, queue.connect_timeout.get()).await;
            let failure = |error: NetError| CloseReason::Lost(error.to_string()).outcome(&host.name);
            (secured.map_err(failure)?, ClientTls::Active)
        } else {
            (transport, tls)
        };
        let login = self.login.as_ref().map(|(user, password)| ClientLogin {
            user: user.clone(),
            password: password.clone(),
            clear_allowed: transport.is_loopback(),
        });
        let client = Client::new(ClientSettings {
            hostname: self.settings.node.hostname.clone(),
            peer: host.name.clone(),
            tls,
            login,
            reply_limits: ReplyLimits::default(),
        });
        let opened = Connection::open(transport, client, &host.name, &self.tls, queue).await;
        if let Ok(connection) = &opened {
            let end = if connection.transport().is_tls() { "opened_tls" } else { "opened" };
            emit(RelayConnected { host: host.name.clone(), end, reason: String::new() });
        }
        Ok(opened)
    }

    /// Runs the transactions of a load over one connection; whether the server answered at all.
    async fn hand_over(&self, connection: &mut Connection, trip: &mut Trip<'_>) -> bool {
        let content = Content::new(&self.store, &trip.load.message.transit);
        let chunk = self.settings.queue.recipients_per_transaction_max.max(1);
        let mut answered = true;
        for recipients in trip.open_recipients().chunks(chunk) {
            let transaction = match self.transaction(connection, trip, &content, recipients.to_vec()).await {
                Ok(transaction) => transaction,
                Err(error) => {
                    let status = EnhancedStatus::new(4, 3, 0);
                    let reason = format!("reading the message: {error}");
                    trip.note_all(&DeliveryOutcome::Deferred { host: None, status, reason, reply: None });
                    return true;
                }
            };
            let result = connection.transact(transaction, &content, &self.settings.queue).await;
            answered = result.answered;
            let reports_itself = connection.client.extensions().dsn;
            trip.take(&connection.host, recipients, result, reports_itself);
            if !connection.usable() {
                break;
            }
        }
        answered
    }

    async fn transaction(
        &self,
        connection: &Connection,
        trip: &Trip<'_>,
        content: &Content<'_>,
        recipients: Vec<Recipient>,
    ) -> Result<Transaction, posthouse_storage::Error> {
        let transit = &trip.load.message.transit;
        let offered = connection.client.extensions();
        let mut eight_bit = transit.body_type != BodyType::SevenBit;
        let mut smtputf8 = transit.smtputf8;
        // What a sender declared may be more than the message needs; look before refusing.
        if (eight_bit && !offered.eight_bit_mime) || (smtputf8 && !offered.smtputf8) {
            let found = content.octets().await?;
            eight_bit &= found.eight_bit;
            smtputf8 &= found.eight_bit_header;
        }
        Ok(Transaction {
            reverse_path: transit.reverse_path.clone(),
            recipients,
            size: content.size(),
            eight_bit,
            smtputf8,
            envelope_id: transit.envelope_id.clone(),
            dsn_return: transit.dsn_return,
        })
    }
}

impl Courier for SmtpCourier {
    fn carry<'a>(&'a self, load: &'a Load, line: &'a mut Line) -> BoxFuture<'a, Vec<Attempted>> {
        Box::pin(self.carry_load(load, line))
    }

    fn hang_up<'a>(&'a self, line: &'a mut Line) -> BoxFuture<'a, ()> {
        Box::pin(async {
            if let Some(connection) = line.kept.take() {
                connection.quit().await;
            }
        })
    }
}

/// RFC 8314 §7.3.
const SUBMISSIONS_PORT: u16 = 465;

/// One load on its way: who has a final outcome, and what the others heard last.
struct Trip<'a> {
    load: &'a Load,
    attempted: Vec<Attempted>,
    /// Recipients without a final outcome, each with the last word on it.
    open: Vec<(Recipient, Option<DeliveryOutcome>)>,
}

impl<'a> Trip<'a> {
    fn new(load: &'a Load) -> Self {
        let open = load.recipients().iter().map(|recipient| (recipient.clone(), None)).collect();
        Self { load, attempted: Vec::new(), open }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    fn open_recipients(&self) -> Vec<Recipient> {
        self.open.iter().map(|(recipient, _)| recipient.clone()).collect()
    }

    /// Notes the outcomes of one transaction.
    fn take(&mut self, host: &str, recipients: &[Recipient], result: TransactionResult, reports_itself: bool) {
        if result.in_doubt {
            emit(RelayInDoubt { message: self.load.message.transit.id, host: host.to_owned() });
        }
        for (recipient, outcome) in recipients.iter().zip(result.outcomes) {
            let is_final = !matches!(outcome, DeliveryOutcome::Deferred { .. }) || result.in_doubt;
            let Some(at) = self.open.iter().position(|(open, _)| open == recipient) else { continue };
            if is_final {
                let (recipient, _) = self.open.remove(at);
                self.attempted.push(Attempted { recipient, outcome, reports_itself });
            } else if let Some(entry) = self.open.get_mut(at) {
                entry.1 = Some(outcome);
            }
        }
    }

    /// The last word on everyone who is left; another host may still do better.
    fn note_all(&mut self, outcome: &DeliveryOutcome) {
        self.open.iter_mut().for_each(|(_, last)| *last = Some(outcome.clone()));
    }

    fn end_all(&mut self, outcome: &DeliveryOutcome) {
        for (recipient, _) in self.open.drain(..) {
            self.attempted.push(Attempted { recipient, outcome: outcome.clone(), reports_itself: false });
        }
    }

    /// Nobody else is asked in this attempt.
    fn give_up_rest(&mut self) {
        for (recipient, last) in self.open.drain(..) {
            let outcome = last.unwrap_or_else(|| CloseReason::Quit.outcome("unknown"));
            self.attempted.push(Attempted { recipient, outcome, reports_itself: false });
        }
    }

    fn into_attempted(mut self) -> Vec<Attempted> {
        self.give_up_rest();
        self.attempted
    }
}
