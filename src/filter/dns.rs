//! The resolver in the form that mail-auth takes; the only place that knows both.
//!
//! Servers and cache are `net`'s; nothing is cached twice. Where no server answers at all, each message would wait for the
//! full deadline of each stage. So a question that failed is followed by one that any server answers at once; if that fails
//! too, DNS is away and nobody asks until it is back. A sender whose own servers are silent cannot bring that about.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::lookup::Lookup;
use mail_auth::hickory_resolver::net::NetError;
use mail_auth::hickory_resolver::proto::rr::{Name, RData, RecordType};
use posthouse_net::Resolver;
use posthouse_obs::emit;
use posthouse_obs::event::filter::{DnsAway, DnsBack};
use tokio::time::{Instant, timeout};

use crate::error::Error;

/// How often DNS is tried again while it is away.
const PAUSE: Duration = Duration::from_secs(15);
/// The longest that a server in good health takes for a name that cannot exist.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// After a probe that was answered, failures are those of the senders' servers for so long.
const PROBE_HOLDS: Duration = Duration::from_secs(5);

/// The two families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4,
    V6,
}

/// What came of one question.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// At least one record.
    Records(Vec<T>),
    /// No such name, or none of this type.
    Nothing,
    /// No answer that could be trusted.
    Failed,
}

fn found<T>(lookup: Result<Lookup, NetError>, pick: impl Fn(&RData) -> Option<T>) -> Found<T> {
    match lookup {
        Ok(lookup) => {
            let records: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
            if records.is_empty() { Found::Nothing } else { Found::Records(records) }
        }
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Found::Nothing,
        Err(_) => Found::Failed,
    }
}

/// A name as text, without the final dot.
fn text(name: &Name) -> String {
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
    labels.join(".")
}

/// DNS as the stages ask it.
pub struct Dns {
    authenticator: MessageAuthenticator,
    /// Longest time of one question and all that it leads to.
    limit: Duration,
    health: Mutex<Health>,
    probes: AtomicU64,
}

#[derive(Debug, Default)]
struct Health {
    /// DNS is away; it is tried again then.
    away_until: Option<Instant>,
    probed_at: Option<Instant>,
}

impl Dns {
    /// `deadline` is that of the stages which ask.
    pub fn new(resolver: &Resolver, deadline: Duration) -> Self {
        let authenticator = MessageAuthenticator(resolver.hickory());
        // A little less than the stage's own deadline, so that a silence is noticed here.
        let limit = deadline.mul_f32(0.9);
        Self { authenticator, limit, health: Mutex::default(), probes: AtomicU64::new(0) }
    }

    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    /// Asks, and gives up in time. `failed` tells an answer that stands for a failure of DNS. Probes run beside the messages,
    /// which never wait for them.
    pub(crate) async fn ask<T>(
        self: &Arc<Self>,
        question: impl Future<Output = T>,
        failed: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        match self.turn() {
            Turn::Ask => {}
            Turn::Spare => return Err(Error::DnsAway),
            Turn::Probe => {
                self.start_probe();
                return Err(Error::DnsAway);
            }
        }
        let answer = timeout(self.limit, question).await.map_err(|_| Error::TimedOut("DNS"));
        if answer.as_ref().map_or(true, failed) && self.may_probe() {
            self.start_probe();
        }
        answer
    }

    fn start_probe(self: &Arc<Self>) {
        let dns = Arc::clone(self);
        tokio::spawn(async move { dns.probe().await });
    }

    /// Finds out how DNS is.
    async fn probe(&self) {
        let is_answered = self.is_answered().await;
        let away_until = (!is_answered).then(|| Instant::now() + PAUSE);
        let before = std::mem::replace(&mut self.health().away_until, away_until);
        match (before, is_answered) {
            (None, false) => emit(DnsAway {}),
            (Some(_), true) => emit(DnsBack {}),
            _ => {}
        }
    }

    /// Whether any server says anything. The name does not exist, and each is new, so that no cache stands in for the
    /// servers; names below `invalid` would not do, since the resolver answers those by itself.
    async fn is_answered(&self) -> bool {
        let name = format!("probe-{}.arpa", self.probes.fetch_add(1, Ordering::Relaxed));
        match timeout(PROBE_LIMIT, self.lookup(&name, RecordType::A)).await {
            Ok(Ok(_) | Err(NetError::Dns(_))) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// After each pause one caller tries for all.
    fn turn(&self) -> Turn {
        let mut health = self.health();
        let now = Instant::now();
        match health.away_until {
            None => Turn::Ask,
            Some(until) if now < until => Turn::Spare,
            Some(_) => {
                health.away_until = Some(now + PAUSE);
                Turn::Probe
            }
        }
    }

    fn may_probe(&self) -> bool {
        let mut health = self.health();
        let now = Instant::now();
        let may = health.probed_at.is_none_or(|at| now - at >= PROBE_HOLDS);
        if may {
            health.probed_at = Some(now);
        }
        may
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while it holds this lock")
    }

    /// TXT records, each joined from its strings (RFC 7208 §3.3).
    pub(crate) async fn txt(&self, name: &str) -> Found<Vec<u8>> {
        let lookup = self.lookup(name, RecordType::TXT).await;
        found(lookup, |data| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        })
    }

    /// Addresses of one family.
    pub(crate) async fn addresses(&self, name: &str, family: Addresses) -> Found<IpAddr> {
        let kind = match family {
            Addresses::V4 => RecordType::A,
            Addresses::V6 => RecordType::AAAA,
        };
        found(self.lookup(name, kind).await, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
    }

    /// The hosts of MX records, whatever their preference.
    pub(crate) async fn mx(&self, name: &str) -> Found<String> {
        found(self.lookup(name, RecordType::MX).await, |data| match data {
            RData::MX(mx) => Some(text(&mx.exchange)),
            _ => None,
        })
    }

    /// The names that an address claims.
    pub(crate) async fn ptr(&self, address: IpAddr) -> Found<String> {
        found(self.authenticator.resolver().reverse_lookup(address).await, |data| match data {
            RData::PTR(ptr) => Some(text(&ptr.0)),
            _ => None,
        })
    }

    /// A name may hold any octets: macros put the client's own words into it.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, NetError> {
        let name = Name::from_labels(name.split('.').map(str::as_bytes))?;
        self.authenticator.resolver().lookup(name, kind).await
    }
}

/// What a caller does now.
enum Turn {
    Ask,
    Probe,
    Spare,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::name_server::{NameServer, Script};

    fn dns(server: &str) -> Arc<Dns> {
        let timeout = posthouse_conf::Span::secs(1);
        let servers = vec![server.to_owned()];
        let settings = posthouse_conf::Resolver { servers, timeout, attempts: 1, ..Default::default() };
        Arc::new(Dns::new(&Resolver::new(&settings).expect("a resolver"), Duration::from_secs(60)))
    }

    async fn ask(dns: &Arc<Dns>, name: &str) -> &'static str {
        match dns.ask(dns.txt(name), |found| matches!(found, Found::Failed)).await {
            Ok(Found::Records(_)) => "records",
            Ok(Found::Nothing) => "nothing",
            Ok(Found::Failed) => "failed",
            Err(Error::DnsAway) => "away",
            Err(_) => "timed out",
        }
    }

    #[tokio::test]
    async fn dns_that_never_answers_is_noticed_and_then_spared() {
        // Bound and never read, so that questions vanish.
        let hole = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let dns = dns(&hole.local_addr().expect("an address").to_string());
        assert_eq!(ask(&dns, "x.test").await, "failed");
        dns.probe().await;
        assert_eq!(ask(&dns, "x.test").now_or_never(), Some("away"), "nobody waits");
        dns.health().away_until = Some(Instant::now());
        assert_eq!(ask(&dns, "x.test").await, "away", "nobody waits for the probe either");
    }

    #[tokio::test]
    async fn a_silent_domain_does_not_take_dns_away_from_others() {
        let script = Script::default().silent("evil.test").txt("good.test", &[b"x"]);
        let server: NameServer = script.serve();
        let dns = dns(&server.server());
        let asked = futures_util::future::join_all((0..5).map(|_| ask(&dns, "evil.test"))).await;
        assert_eq!(asked, ["failed"; 5]);
        dns.probe().await;
        assert_eq!(ask(&dns, "good.test").await, "records");
        dns.health().away_until = Some(Instant::now());
        assert_eq!(ask(&dns, "good.test").await, "away");
        dns.probe().await;
        assert_eq!(ask(&dns, "good.test").await, "records", "it is back");
        assert_eq!(ask(&dns, "none.test").await, "nothing");
    }
}
