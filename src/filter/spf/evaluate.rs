//! `check_host()` of RFC 7208 §4: records, mechanisms, and the limits that keep a stranger's record from using us.

use std::net::IpAddr;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::domain_spec::{DomainSpec, Values};
use super::record::{Hosts, Mechanism, Record, is_record};
use crate::authentication_results::AuthResult;
use crate::dns::{Addresses, Dns, Found};

/// RFC 7208 §4.6.4: terms that look up.
const LOOKUPS_MAX: u32 = 10;
/// RFC 7208 §4.6.4: look-ups that find nothing.
const VOIDS_MAX: u32 = 2;
/// RFC 7208 §4.6.4: hosts of one `mx`, names of one `ptr`.
const NAMES_MAX: usize = 10;

/// All that an evaluation depends on (RFC 7208 §4.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub client: IpAddr,
    pub hello: &'a str,
    /// The reverse-path; without one the name of EHLO is judged, as of its postmaster (RFC 7208 §2.4).
    pub sender: Option<&'a str>,
}

impl Question<'_> {
    /// The result for the sender's domain.
    pub(crate) async fn ask(&self, dns: &Dns) -> AuthResult {
        let (local_part, domain) = match self.sender {
            Some(sender) => sender.rsplit_once('@').unwrap_or(("", sender)),
            None => ("", self.hello),
        };
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        // RFC 7208 §4.3: a malformed domain, or one that is no name of several labels, has no policy.
        if !is_name(domain) || !domain.contains('.') {
            return AuthResult::None;
        }
        let mut evaluation = Evaluation {
            dns,
            client: self.client.to_canonical(),
            hello: self.hello,
            local_part: if local_part.is_empty() { "postmaster" } else { local_part },
            sender_domain: domain,
            lookups: 0,
            voids: 0,
        };
        match evaluation.check_host(domain.to_owned()).await {
            Ok(result) => result,
            Err(Stop::Temporary) => AuthResult::TempError,
            Err(Stop::Permanent) => AuthResult::PermError,
        }
    }
}

/// Why an evaluation ends without a result of the record.
enum Stop {
    Temporary,
    Permanent,
}

struct Evaluation<'a> {
    dns: &'a Dns,
    client: IpAddr,
    hello: &'a str,
    local_part: &'a str,
    sender_domain: &'a str,
    lookups: u32,
    voids: u32,
}

impl Evaluation<'_> {
    /// Boxed since `include` and `redirect` come back here; the count of look-ups bounds the depth.
    fn check_host(&mut self, domain: String) -> BoxFuture<'_, Result<AuthResult, Stop>> {
        async move {
            let Some(record) = self.record(&domain).await? else {
                return Ok(AuthResult::None);
            };
            for directive in &record.directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    return Ok(directive.result);
                }
            }
            let Some(redirect) = &record.redirect else {
                return Ok(AuthResult::Neutral); // RFC 7208 §4.7
            };
            self.count_lookup()?;
            let target = self.expand(redirect, &domain).await?;
            // RFC 7208 §6.1: a target without a policy is an error of the record that names it.
            match self.check_host(target).await? {
                AuthResult::None => Err(Stop::Permanent),
                result => Ok(result),
            }
        }
        .boxed()
    }

    /// The one SPF record of a domain (RFC 7208 §4.4, §4.5).
    async fn record(&mut self, domain: &str) -> Result<Option<Record>, Stop> {
        if !is_name(domain) {
            return Ok(None);
        }
        let texts = match self.dns.txt(domain).await {
            Found::Records(texts) => texts,
            Found::Nothing => return Ok(None),
            Found::Failed => return Err(Stop::Temporary),
        };
        let mut records = texts.iter().filter(|text| is_record(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(record), None) => Record::parse(record).map(Some).map_err(|_| Stop::Permanent),
            (Some(_), Some(_)) => Err(Stop::Permanent), // RFC 7208 §4.5: more than one record
        }
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        if !matches!(mechanism, Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..)) {
            self.count_lookup()?;
        }
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(address, bits) => Ok(is_within(self.client, IpAddr::V4(*address), *bits)),
            Mechanism::Ip6(address, bits) => Ok(is_within(self.client, IpAddr::V6(*address), *bits)),
            Mechanism::Include(spec) => {
                let target = self.expand(spec, domain).await?;
                // RFC 7208 §5.2: the table of results.
                match self.check_host(target).await? {
                    AuthResult::Pass => Ok(true),
                    AuthResult::None => Err(Stop::Permanent),
                    _ => Ok(false),
                }
            }
            Mechanism::A(hosts) => {
                let name = self.target(hosts.name.as_ref(), domain).await?;
                self.host_matches(&name, hosts).await
            }
            Mechanism::Mx(hosts) => self.mx_matches(hosts, domain).await,
            Mechanism::Ptr(spec) => {
                let target = self.target(spec.as_ref(), domain).await?;
                Ok(self.validated_names().await.iter().any(|name| is_at_or_below(name, &target)))
            }
            Mechanism::Exists(spec) => {
                // RFC 7208 §5.7: an A record, whatever the client's family.
                let name = self.expand(spec, domain).await?;
                Ok(!self.addresses(&name, Addresses::V4).await?.is_empty())
            }
        }
    }

    async fn mx_matches(&mut self, hosts: &Hosts, domain: &str) -> Result<bool, Stop> {
        let name = self.target(hosts.name.as_ref(), domain).await?;
        let exchanges = if is_name(&name) { self.dns.mx(&name).await } else { Found::Nothing };
        let exchanges = self.or_void(exchanges)?;
        if exchanges.len() > NAMES_MAX {
            return Err(Stop::Permanent); // RFC 7208 §4.6.4
        }
        for exchange in exchanges {
            if self.host_matches(&exchange, hosts).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn host_matches(&mut self, name: &str, hosts: &Hosts) -> Result<bool, Stop> {
        let (family, bits) =
            if self.client.is_ipv4() { (Addresses::V4, hosts.v4_bits) } else { (Addresses::V6, hosts.v6_bits) };
        let addresses = self.addresses(name, family).await?;
        Ok(addresses.into_iter().any(|address| is_within(self.client, address, bits)))
    }

    async fn addresses(&mut self, name: &str, family: Addresses) -> Result<Vec<IpAddr>, Stop> {
        let found = if is_name(name) { self.dns.addresses(name, family).await } else { Found::Nothing };
        self.or_void(found)
    }

    /// The client's names that lead back to its address (RFC 7208 §5.5); failures are no names.
    async fn validated_names(&mut self) -> Vec<String> {
        let Found::Records(names) = self.dns.ptr(self.client).await else {
            return Vec::new();
        };
        let family = if self.client.is_ipv4() { Addresses::V4 } else { Addresses::V6 };
        let mut validated = Vec::new();
        for name in names.into_iter().take(NAMES_MAX) {
            if let Found::Records(addresses) = self.dns.addresses(&name, family).await
                && addresses.contains(&self.client)
            {
                validated.push(name);
            }
        }
        validated
    }

    async fn target(&mut self, spec: Option<&DomainSpec>, domain: &str) -> Result<String, Stop> {
        match spec {
            Some(spec) => self.expand(spec, domain).await,
            None => Ok(domain.to_owned()),
        }
    }

    async fn expand(&mut self, spec: &DomainSpec, domain: &str) -> Result<String, Stop> {
        let mut validated_name = "unknown".to_owned();
        if spec.needs_validated_name() {
            // RFC 7208 §7.3: the domain itself, else one below it, else any.
            let names = self.validated_names().await;
            let exact = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
            let best = exact.or_else(|| names.iter().find(|name| is_at_or_below(name, domain))).or(names.first());
            if let Some(name) = best {
                validated_name.clone_from(name);
            }
        }
        let values = Values {
            local_part: self.local_part,
            sender_domain: self.sender_domain,
            domain,
            client: self.client,
            hello: self.hello,
            validated_name: &validated_name,
        };
        Ok(spec.expand(&values))
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX { Err(Stop::Permanent) } else { Ok(()) }
    }

    fn or_void<T>(&mut self, found: Found<T>) -> Result<Vec<T>, Stop> {
        match found {
            Found::Records(records) => Ok(records),
            Found::Failed => Err(Stop::Temporary),
            Found::Nothing => {
                self.voids += 1;
                if self.voids > VOIDS_MAX { Err(Stop::Permanent) } else { Ok(Vec::new()) }
            }
        }
    }
}

/// Whether DNS can be asked for a name: labels of 1 to 63 octets, 253 in all (RFC 7208 §4.3). A local part beyond ASCII,
/// put there by a macro, matches nothing (RFC 8616 §4).
fn is_name(name: &str) -> bool {
    name.is_ascii()
        && name.len() <= 253
        && !name.starts_with('[')
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// RFC 7208 §5.5: the name is the target or below it.
fn is_at_or_below(name: &str, target: &str) -> bool {
    let (name, target) = (name.to_ascii_lowercase(), target.to_ascii_lowercase());
    name.strip_suffix(&target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether two addresses of one family share so many leading bits.
fn is_within(client: IpAddr, network: IpAddr, bits: u8) -> bool {
    client.is_ipv4() == network.is_ipv4() && posthouse_net::Prefix::new(network, bits).contains(client)
}
