//! Which hosts take mail for a destination (RFC 5321 §5.1, RFC 7505), decided anew at each attempt.
//!
//! Apart from the connection: the order of hosts, loops and what DNS's silence means are rules of their own, tried without
//! a network through `Names`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use posthouse_mail::{Domain, EnhancedStatus};
use posthouse_net::{Answer, Error as NetError, Mx, MxHost, Resolver};

/// What routing asks of DNS.
pub trait Names: Send + Sync + 'static {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, NetError>>;
    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<Vec<IpAddr>>, NetError>>;
}

impl Names for Resolver {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, NetError>> {
        Box::pin(self.mx(domain))
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<Vec<IpAddr>>, NetError>> {
        Box::pin(self.addresses(host))
    }
}

/// One host to try, with its addresses in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHost {
    /// As outcomes and TLS name it.
    pub name: String,
    pub addresses: Vec<SocketAddr>,
}

/// Why there is no host to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// A class of 5 is final, one of 4 is not.
    pub status: EnhancedStatus,
    pub reason: String,
}

impl NoRoute {
    fn new((class, subject, detail): (u8, u16, u16), reason: impl Into<String>) -> Self {
        Self { status: EnhancedStatus::new(class, subject, detail), reason: reason.into() }
    }

    pub fn is_final(&self) -> bool {
        self.status.class == 5
    }
}

/// What routing needs to know besides the destination.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    pub port: u16,
    /// `host:port` that takes everything.
    pub smarthost: Option<(String, u16)>,
    pub hosts_max: usize,
    pub addresses_max: usize,
    pub loopback_allowed: bool,
    /// Our own name: an MX record that names it leads back here.
    pub hostname: String,
    /// Where our own SMTP listeners stand.
    pub own: Vec<SocketAddr>,
}

impl RouteSettings {
    /// Whether an address is one of our own listeners. A listener on every address is known only once connected.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.own.iter().any(|own| own.port() == address.port() && own.ip().to_canonical() == ip)
    }

    /// Whether a connection ended at ourselves: both ends on one address, at the port of a listener on every address.
    pub fn is_own_connection(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        let everywhere = self.own.iter().any(|own| own.port() == peer.port() && own.ip().is_unspecified());
        self.is_own(peer) || (everywhere && peer.ip().to_canonical() == local.ip().to_canonical())
    }
}

/// The hosts for a destination, best first. `shuffle` puts hosts of equal preference in random order.
pub async fn route(
    names: &dyn Names,
    settings: &RouteSettings,
    destination: &Domain,
    shuffle: &mut (dyn FnMut(&mut [MxHost]) + Send),
) -> Result<Vec<RouteHost>, NoRoute> {
    if let Some((host, port)) = &settings.smarthost {
        return smarthost(names, settings, host, *port).await;
    }
    if let Some(ip) = destination.literal_ip() {
        // RFC 5321 §5.1: an address literal bypasses DNS.
        let host = RouteHost { name: destination.to_string(), addresses: vec![SocketAddr::new(ip, settings.port)] };
        return usable(settings, vec![host]);
    }
    let hosts = mail_hosts(names, destination, shuffle).await?;
    with_addresses(names, settings, hosts).await
}

async fn smarthost(
    names: &dyn Names,
    settings: &RouteSettings,
    host: &str,
    port: u16,
) -> Result<Vec<RouteHost>, NoRoute> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ips = match (bare.parse::<IpAddr>(), Domain::parse(host)) {
        (Ok(ip), _) => vec![ip],
        (Err(_), Ok(name)) => match names.addresses(&name).await {
            Ok(Answer::Found(ips)) => ips,
            // A smarthost is the operator's choice: no answer about it may cost mail.
            Ok(_) => return Err(NoRoute::new((4, 4, 4), "the smarthost has no address")),
            Err(error) => return Err(NoRoute::new((4, 4, 3), error.to_string())),
        },
        (Err(_), Err(error)) => return Err(NoRoute::new((4, 3, 5), format!("queue.smarthost: {error}"))),
    };
    let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).take(settings.addresses_max).collect();
    Ok(vec![RouteHost { name: host.to_owned(), addresses }])
}

/// The names of RFC 5321 §5.1: MX records by preference, equals in random order; without any, the domain itself.
async fn mail_hosts(
    names: &dyn Names,
    destination: &Domain,
    shuffle: &mut (dyn FnMut(&mut [MxHost]) + Send),
) -> Result<Vec<MxHost>, NoRoute> {
    let mut hosts = match names.mx(destination).await {
        // RFC 7505 §4.2: the domain takes no mail, and says so.
        Ok(Answer::Found(Mx::Null)) => return Err(NoRoute::new((5, 1, 10), "the domain accepts no mail (null MX)")),
        Ok(Answer::Found(Mx::Hosts(hosts))) => hosts,
        // RFC 5321 §5.1: the implicit MX.
        Ok(Answer::NoRecords) => vec![MxHost { preference: 0, host: destination.clone() }],
        Ok(Answer::NxDomain) => return Err(NoRoute::new((5, 1, 2), "the domain does not exist")),
        Err(error) => return Err(NoRoute::new((4, 4, 3), error.to_string())),
    };
    hosts.sort_by_key(|host| host.preference);
    for group in hosts.chunk_by_mut(|a, b| a.preference == b.preference) {
        shuffle(group);
    }
    Ok(hosts)
}

/// Looks up each host. RFC 5321 §5.1: where we are among the hosts ourselves, only better ones than us count.
async fn with_addresses(
    names: &dyn Names,
    settings: &RouteSettings,
    hosts: Vec<MxHost>,
) -> Result<Vec<RouteHost>, NoRoute> {
    let mut found: Vec<(u16, RouteHost)> = Vec::new();
    let mut temporary = None;
    let mut ours = None;
    for host in hosts {
        if ours.is_some_and(|preference| host.preference >= preference) || found.len() >= settings.hosts_max {
            break;
        }
        let addresses = match names.addresses(&host.host).await {
            Ok(Answer::Found(ips)) => ips.into_iter().map(|ip| SocketAddr::new(ip, settings.port)).collect::<Vec<_>>(),
            Ok(_) => continue,
            Err(error) => {
                temporary = Some(error.to_string());
                continue;
            }
        };
        let named_ours = host.host.as_str().eq_ignore_ascii_case(&settings.hostname);
        if named_ours || addresses.iter().any(|address| settings.is_own(*address)) {
            ours = Some(host.preference);
            continue;
        }
        let addresses = addresses.into_iter().take(settings.addresses_max).collect();
        found.push((host.preference, RouteHost { name: host.host.to_string(), addresses }));
    }
    if let Some(ours) = ours {
        found.retain(|(preference, _)| *preference < ours);
    }
    let found: Vec<_> = found.into_iter().map(|(_, host)| host).collect();
    match (found.is_empty(), temporary, ours) {
        (true, Some(reason), _) => Err(NoRoute::new((4, 4, 3), reason)),
        (true, None, Some(_)) => Err(NoRoute::new((5, 4, 6), "mail for this domain leads back to this server")),
        // RFC 5321 §5.1: MX records of which none is usable are an error.
        (true, None, None) => Err(NoRoute::new((5, 4, 4), "no mail host of the domain has an address")),
        (false, _, _) => usable(settings, found),
    }
}

/// Leaves out addresses that may not be used here.
fn usable(settings: &RouteSettings, mut hosts: Vec<RouteHost>) -> Result<Vec<RouteHost>, NoRoute> {
    if hosts.iter().flat_map(|host| &host.addresses).any(|address| settings.is_own(*address)) {
        return Err(NoRoute::new((5, 4, 6), "mail for this domain leads back to this server"));
    }
    let mut seen = BTreeSet::new();
    for host in &mut hosts {
        host.addresses.retain(|address| {
            let ip = address.ip().to_canonical();
            let allowed =
                !ip.is_unspecified() && !ip.is_multicast() && (settings.loopback_allowed || !ip.is_loopback());
            allowed && seen.insert(*address)
        });
    }
    hosts.retain(|host| !host.addresses.is_empty());
    if hosts.is_empty() {
        return Err(NoRoute::new((5, 4, 4), "no mail host of the domain has a usable address"));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests;
