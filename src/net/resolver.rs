//! DNS as mail needs it: MX, addresses, TXT, PTR, with one cache for the whole process.
//!
//! Three answers are told apart because mail treats them apart: records, none of that type, no such name. Everything else
//! is an error that passes: a timeout, SERVFAIL, a machine without network. Every look-up has a deadline.

mod breaker;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{TokioResolver, system_conf};
use posthouse_mail::Domain;
use tokio::time::timeout;

use crate::error::Error;
use breaker::Breaker;

/// What DNS says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Found(T),
    /// The name exists, without records of this type.
    NoRecords,
    /// The name does not exist.
    NxDomain,
}

/// The MX records of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mx {
    /// RFC 7505 §3: the domain takes no mail.
    Null,
    /// In no particular order; the caller sorts by preference and shuffles equals (RFC 5321 §5.1).
    Hosts(Vec<MxHost>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MxHost {
    pub preference: u16,
    pub host: Domain,
}

/// Cheap to clone; all clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    hickory: Arc<TokioResolver>,
    /// Longest time of one look-up, all tries included.
    limit: Duration,
    breaker: Arc<Breaker>,
}

impl Resolver {
    /// Asks the configured servers or, where none are, those of the system. Needs a Tokio runtime at look-ups only.
    pub fn new(settings: &posthouse_conf::Resolver) -> Result<Self, Error> {
        let (config, hosts) = if settings.servers.is_empty() {
            // A machine without resolv.conf is a machine without network: each look-up will say so.
            let system = system_conf::read_system_conf().map(|(config, _)| config);
            (system.unwrap_or_default(), ResolveHosts::Always)
        } else {
            let servers = settings.servers.iter().map(|text| name_server(text)).collect::<Result<Vec<_>, _>>()?;
            (ResolverConfig::from_name_servers(servers), ResolveHosts::Never)
        };
        let tries = u32::try_from(settings.attempts).unwrap_or(u32::MAX).max(1);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options(settings, hosts);
        let hickory = builder.build().map_err(|error| Error::Dns(error.to_string()))?;
        // Two rounds: an answer may be an alias, or come by TCP after a truncated one.
        let limit = settings.timeout.get().saturating_mul(tries).saturating_mul(2);
        Ok(Self { hickory: Arc::new(hickory), limit, breaker: Arc::new(Breaker::new(settings)) })
    }

    /// The resolver itself, for a library that brings its own look-ups: with the same servers, limits and cache.
    pub fn hickory(&self) -> TokioResolver {
        self.hickory.as_ref().clone()
    }

    /// RFC 5321 §5.1. Hosts whose names no mail host can have are left out.
    pub async fn mx(&self, domain: &Domain) -> Result<Answer<Mx>, Error> {
        let answer = self.ask(self.hickory.mx_lookup(absolute(domain.as_str())?)).await?;
        Ok(collected(answer.map(|lookup| mail_exchange(&lookup))))
    }

    /// A and AAAA records of a host.
    pub async fn addresses(&self, host: &Domain) -> Result<Answer<Vec<IpAddr>>, Error> {
        if let Some(address) = host.literal_ip() {
            return Ok(Answer::Found(vec![address]));
        }
        let answer = self.ask(self.hickory.lookup_ip(absolute(host.as_str())?)).await?;
        Ok(non_empty(answer.map(|lookup| lookup.iter().collect())))
    }

    /// The TXT records of a name, each joined from its strings (RFC 7208 §3.3).
    pub async fn txt(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, Error> {
        let answer = self.ask(self.hickory.txt_lookup(absolute(name)?)).await?;
        Ok(non_empty(answer.map(|lookup| {
            let texts = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            });
            texts.collect()
        })))
    }

    /// The names that an address claims in the reverse tree; what they prove is for the caller.
    pub async fn ptr(&self, address: IpAddr) -> Result<Answer<Vec<Domain>>, Error> {
        let answer = self.ask(self.hickory.reverse_lookup(address.to_canonical())).await?;
        Ok(non_empty(answer.map(|lookup| {
            let names = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::PTR(ptr) => host(&ptr.0),
                _ => None,
            });
            names.collect()
        })))
    }

    async fn ask<T>(&self, lookup: impl Future<Output = Result<T, NetError>>) -> Result<Answer<T>, Error> {
        if self.breaker.is_open() {
            return Err(Error::Dns("no name server answers".to_owned()));
        }
        let result = timeout(self.limit, lookup).await.unwrap_or(Err(NetError::Timeout));
        // SERVFAIL and its kin are answers: some server is there.
        self.breaker.note(!matches!(&result, Err(error) if !matches!(error, NetError::Dns(_))));
        match result {
            Ok(found) => Ok(Answer::Found(found)),
            Err(error) if error.is_nx_domain() => Ok(Answer::NxDomain),
            Err(error) if error.is_no_records_found() => Ok(Answer::NoRecords),
            Err(error) => Err(Error::Dns(error.to_string())),
        }
    }
}

impl<T> Answer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Found(found) => Answer::Found(change(found)),
            Self::NoRecords => Answer::NoRecords,
            Self::NxDomain => Answer::NxDomain,
        }
    }
}

/// An answer may hold other records only, such as the aliases that led to nothing.
fn non_empty<T>(answer: Answer<Vec<T>>) -> Answer<Vec<T>> {
    match answer {
        Answer::Found(list) if list.is_empty() => Answer::NoRecords,
        other => other,
    }
}

fn collected(answer: Answer<Option<Mx>>) -> Answer<Mx> {
    match answer {
        Answer::Found(None) | Answer::NoRecords => Answer::NoRecords,
        Answer::Found(Some(mx)) => Answer::Found(mx),
        Answer::NxDomain => Answer::NxDomain,
    }
}

fn mail_exchange(lookup: &Lookup) -> Option<Mx> {
    let records: Vec<_> = lookup
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::MX(mx) => Some((mx.preference, &mx.exchange)),
            _ => None,
        })
        .collect();
    // RFC 7505 §3: one record whose exchange is the root. Beside others it means nothing.
    if let [(_, exchange)] = records.as_slice()
        && exchange.is_root()
    {
        return Some(Mx::Null);
    }
    let hosts = records
        .iter()
        .filter_map(|(preference, exchange)| host(exchange).map(|host| MxHost { preference: *preference, host }));
    let hosts: Vec<_> = hosts.collect();
    // Records without one usable host are not "no MX": mail must not fall back to the domain's own address then.
    (!records.is_empty()).then_some(Mx::Hosts(hosts))
}

fn host(name: &Name) -> Option<Domain> {
    Domain::parse(name.to_ascii().trim_end_matches('.')).ok()
}

/// Without the search list of the system: mail names are complete.
fn absolute(name: &str) -> Result<Name, Error> {
    let mut name = Name::from_ascii(name).map_err(|error| Error::Dns(error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

fn options(settings: &posthouse_conf::Resolver, hosts: ResolveHosts) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout.get();
    options.attempts = settings.attempts.saturating_sub(1);
    options.cache_size = u64::try_from(settings.cache_max).unwrap_or(u64::MAX);
    options.use_hosts_file = hosts;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_min_ttl = Some(settings.ttl_min.get());
    options.negative_min_ttl = Some(settings.ttl_min.get());
    options.positive_max_ttl = Some(settings.ttl_max.get());
    options.negative_max_ttl = Some(settings.ttl_max.get());
    options
}

/// Reads `address` or `address:port`.
fn name_server(text: &str) -> Result<NameServerConfig, Error> {
    let socket = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    let socket = socket.map_err(|_| Error::NameServer(text.to_owned()))?;
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = socket.port();
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    Ok(NameServerConfig::new(socket.ip(), true, connections))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_server::Server;
    use hickory_server::proto::rr::Record;
    use hickory_server::proto::rr::rdata::{A, AAAA, MX, PTR, SOA, TXT};
    use hickory_server::store::in_memory::InMemoryZoneHandler;
    use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
    use tokio::net::UdpSocket;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).expect("a domain")
    }

    fn zone(origin: &str, records: Vec<(&str, RData)>) -> (Name, InMemoryZoneHandler) {
        let origin = name(origin);
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 60, 60, 60, 60);
        let mut zone = InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny, None);
        let records = records.into_iter().map(|(owner, data)| (name(owner), data));
        for (owner, data) in [(origin.clone(), RData::SOA(soa))].into_iter().chain(records) {
            assert!(zone.upsert_mut(Record::from_rdata(owner, 60, data), 1));
        }
        (origin, zone)
    }

    /// A DNS server on loopback and a resolver that asks it.
    async fn serve() -> (Server<Catalog>, Resolver) {
        let odd = Name::from_labels([b"a@b".as_slice(), b"test".as_slice()]).expect("a name");
        let records = vec![
            ("example.test.", RData::MX(MX::new(20, name("mx2.example.test.")))),
            ("example.test.", RData::MX(MX::new(10, name("MX1.example.test.")))),
            ("null.example.test.", RData::MX(MX::new(0, Name::root()))),
            ("odd.example.test.", RData::MX(MX::new(0, odd))),
            ("mx1.example.test.", RData::A(A::new(192, 0, 2, 1))),
            ("mx1.example.test.", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
            ("example.test.", RData::TXT(TXT::new(vec!["v=spf1 ".into(), "-all".into()]))),
        ];
        let reverse = vec![("1.2.0.192.in-addr.arpa.", RData::PTR(PTR(name("mx1.example.test."))))];
        let mut catalog = Catalog::new();
        for (origin, handler) in [zone("example.test.", records), zone("2.0.192.in-addr.arpa.", reverse)] {
            catalog.upsert(origin.into(), vec![Arc::new(handler)]);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let mut server = Server::new(catalog);
        server.register_socket(socket);
        (server, resolver(&address.to_string(), posthouse_conf::Span::secs(5)))
    }

    fn resolver(server: &str, timeout: posthouse_conf::Span) -> Resolver {
        let settings =
            posthouse_conf::Resolver { servers: vec![server.to_owned()], timeout, attempts: 1, ..Default::default() };
        Resolver::new(&settings).expect("a resolver")
    }

    #[tokio::test]
    async fn answers_are_typed_and_told_apart() {
        let (_server, resolver) = serve().await;
        let Ok(Answer::Found(Mx::Hosts(mut hosts))) = resolver.mx(&domain("example.test")).await else {
            panic!("two MX records");
        };
        hosts.sort();
        let shown: Vec<_> = hosts.iter().map(|mx| format!("{} {}", mx.preference, mx.host)).collect();
        assert_eq!(shown, ["10 mx1.example.test", "20 mx2.example.test"]);
        assert_eq!(resolver.mx(&domain("null.example.test")).await.expect("an answer"), Answer::Found(Mx::Null));
        let odd = resolver.mx(&domain("odd.example.test")).await.expect("an answer");
        assert_eq!(odd, Answer::Found(Mx::Hosts(Vec::new())));
        assert_eq!(resolver.mx(&domain("mx1.example.test")).await.expect("an answer"), Answer::NoRecords);
        assert_eq!(resolver.mx(&domain("no.example.test")).await.expect("an answer"), Answer::NxDomain);
        let Ok(Answer::Found(addresses)) = resolver.addresses(&domain("mx1.example.test")).await else {
            panic!("two addresses");
        };
        assert_eq!(addresses.len(), 2);
        assert_eq!(resolver.addresses(&domain("example.test")).await.expect("an answer"), Answer::NoRecords);
        let literal = resolver.addresses(&domain("[192.0.2.7]")).await.expect("an answer");
        assert_eq!(literal, Answer::Found(vec!["192.0.2.7".parse().expect("an address")]));
        let texts = resolver.txt("example.test").await.expect("an answer");
        assert_eq!(texts, Answer::Found(vec![b"v=spf1 -all".to_vec()]));
        let names = resolver.ptr("192.0.2.1".parse().expect("an address")).await.expect("an answer");
        assert_eq!(names, Answer::Found(vec![domain("mx1.example.test")]));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_absent_is_a_temporary_error_within_the_deadline() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = silent.local_addr().expect("an address").to_string();
        let resolver = resolver(&address, posthouse_conf::Span::ms(50));
        for _ in 0..posthouse_conf::Resolver::default().silences_max {
            let error = resolver.mx(&domain("example.test")).await.expect_err("silence");
            assert_ne!(error.to_string(), "DNS: no name server answers");
        }
        let error = resolver.mx(&domain("example.test")).await.expect_err("asked nobody");
        assert_eq!(error.to_string(), "DNS: no name server answers");
        let nowhere = Resolver {
            hickory: Arc::new(
                TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
                    .build()
                    .expect("a resolver"),
            ),
            limit: Duration::from_secs(1),
            breaker: Arc::new(Breaker::new(&posthouse_conf::Resolver::default())),
        };
        assert!(matches!(nowhere.mx(&domain("example.test")).await, Err(Error::Dns(_))));
    }

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        assert_eq!(name_server("192.0.2.1").expect("an address").connections[0].port, 53);
        assert_eq!(name_server("192.0.2.1:5353").expect("an address").connections[1].port, 5353);
        assert_eq!(name_server("[::1]:5353").expect("an address").connections[0].port, 5353);
        assert!(matches!(name_server("dns.example.test"), Err(Error::NameServer(_))));
    }
}
