//! The resolver in the form that mail-auth takes; the only place that knows both.
//!
//! Servers and cache are `net`'s; nothing is cached twice. Where no server answers at all, each message would wait for the
//! full deadline of each stage: after a few such waits in a row the stages are told at once that DNS is away, and one
//! question now and then finds out whether it is back.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::lookup::Lookup;
use mail_auth::hickory_resolver::net::NetError;
use mail_auth::hickory_resolver::proto::rr::{Name, RData, RecordType};
use posthouse_net::Resolver;
use tokio::time::{Instant, timeout};

use crate::error::Error;

/// Look-ups in a row without an answer after which DNS counts as away.
const SILENCES_MAX: u32 = 3;
/// How often it is asked again while it is away.
const PAUSE: Duration = Duration::from_secs(15);

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
    silences: AtomicU32,
    away_until: Mutex<Option<Instant>>,
}

impl Dns {
    pub fn new(resolver: &Resolver, limit: Duration) -> Self {
        let authenticator = MessageAuthenticator(resolver.hickory());
        Self { authenticator, limit, silences: AtomicU32::new(0), away_until: Mutex::new(None) }
    }

    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    /// Asks, and gives up in time.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, Error> {
        if self.is_away() {
            return Err(Error::TimedOut("DNS"));
        }
        match timeout(self.limit, question).await {
            Ok(answer) => {
                self.silences.store(0, Ordering::Relaxed);
                *self.away() = None;
                Ok(answer)
            }
            Err(_) => {
                if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCES_MAX {
                    *self.away() = Some(Instant::now() + PAUSE);
                }
                Err(Error::TimedOut("DNS"))
            }
        }
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

    /// Whether to spare the question. After each pause one caller asks for all.
    fn is_away(&self) -> bool {
        let mut away = self.away();
        let Some(until) = *away else {
            return false;
        };
        let now = Instant::now();
        if now >= until {
            *away = Some(now + PAUSE);
        }
        now < until
    }

    fn away(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(limit: Duration) -> Dns {
        let settings = posthouse_conf::Resolver { servers: vec!["127.0.0.1:9".into()], ..Default::default() };
        Dns::new(&Resolver::new(&settings).expect("a resolver"), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn dns_that_never_answers_is_not_waited_for_each_time() {
        let dns = dns(Duration::from_secs(5));
        let start = Instant::now();
        for _ in 0..10 {
            assert!(dns.ask(std::future::pending::<()>()).await.is_err());
        }
        assert_eq!(start.elapsed(), Duration::from_secs(15), "three waits, then none");
        tokio::time::advance(PAUSE).await;
        assert!(dns.ask(std::future::pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(20) + PAUSE, "one asks for all");
        assert!(dns.ask(std::future::ready(())).await.is_err(), "the others are spared");
        tokio::time::advance(PAUSE).await;
        assert!(dns.ask(std::future::ready(())).await.is_ok());
        assert!(dns.ask(std::future::ready(())).await.is_ok(), "it is back");
    }
}
