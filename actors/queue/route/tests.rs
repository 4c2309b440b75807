//! Tests of routing; apart for their length only.

use std::collections::HashMap;

use super::*;

/// `mx1 10 192.0.2.1,192.0.2.2` lines of one domain.
#[derive(Default)]
struct Zone {
    mx: Option<Result<Answer<Mx>, ()>>,
    addresses: HashMap<String, Vec<IpAddr>>,
    silent: Vec<String>,
}

impl Zone {
    fn of(lines: &[&str]) -> Self {
        let mut zone = Self::default();
        let mut hosts = Vec::new();
        for line in lines {
            let mut words = line.split(' ');
            let name = words.next().expect("a name");
            if let Some(preference) = words.next().and_then(|word| word.parse().ok()) {
                hosts.push(MxHost { preference, host: Domain::parse(name).expect("a domain") });
            }
            let ips = words.next().unwrap_or_default();
            if ips == "silent" {
                zone.silent.push(name.to_owned());
            } else if !ips.is_empty() {
                let ips = ips.split(',').map(|ip| ip.parse().expect("an address")).collect();
                zone.addresses.insert(name.to_owned(), ips);
            }
        }
        zone.mx = Some(Ok(if hosts.is_empty() { Answer::NoRecords } else { Answer::Found(Mx::Hosts(hosts)) }));
        zone
    }
}

impl Names for Zone {
    fn mx<'a>(&'a self, _domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, NetError>> {
        let answer = self.mx.clone().expect("an answer").map_err(|()| NetError::Dns("silence".to_owned()));
        Box::pin(async move { answer })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<Vec<IpAddr>>, NetError>> {
        let answer = match self.addresses.get(host.as_str()) {
            Some(ips) => Ok(Answer::Found(ips.clone())),
            None if self.silent.iter().any(|name| name == host.as_str()) => Err(NetError::Dns("silence".to_owned())),
            None => Ok(Answer::NxDomain),
        };
        Box::pin(async move { answer })
    }
}

fn settings() -> RouteSettings {
    RouteSettings {
        port: 25,
        smarthost: None,
        hosts_max: 3,
        addresses_max: 2,
        loopback_allowed: false,
        hostname: "us.test".to_owned(),
        own: vec!["192.0.2.99:25".parse().expect("an address")],
    }
}

async fn show(zone: &Zone, settings: &RouteSettings, destination: &str) -> String {
    let destination = Domain::parse(destination).expect("a domain");
    match route(zone, settings, &destination, &mut |group| group.reverse()).await {
        Ok(hosts) => hosts
            .iter()
            .map(|host| {
                let ips: Vec<_> = host.addresses.iter().map(|address| address.ip().to_string()).collect();
                format!("{} {}", host.name, ips.join(","))
            })
            .collect::<Vec<_>>()
            .join("; "),
        Err(refusal) => refusal.status.to_string(),
    }
}

async fn check(lines: &[&str], expect: &str) {
    assert_eq!(show(&Zone::of(lines), &settings(), "there.test").await, expect, "{lines:?}");
}

#[tokio::test]
async fn rfc5321_5_1_hosts_by_preference_and_equals_shuffled() {
    check(&["b 20 192.0.2.2", "a 10 192.0.2.1", "c 20 192.0.2.3"], "a 192.0.2.1; c 192.0.2.3; b 192.0.2.2").await;
    check(&["a 10 192.0.2.1,192.0.2.2,192.0.2.3"], "a 192.0.2.1,192.0.2.2").await;
    check(
        &["a 1 192.0.2.1", "b 2 192.0.2.2", "c 3 192.0.2.3", "d 4 192.0.2.4"],
        "a 192.0.2.1; b 192.0.2.2; c 192.0.2.3",
    )
    .await;
}

#[tokio::test]
async fn rfc5321_5_1_the_domain_is_its_own_mx_without_records() {
    check(&["there.test - 192.0.2.7"], "there.test 192.0.2.7").await;
    check(&[], "5.4.4").await;
    check(&["gone 10"], "5.4.4").await;
}

#[tokio::test]
async fn rfc7505_4_2_null_mx_and_missing_domains_are_final() {
    let null = Zone { mx: Some(Ok(Answer::Found(Mx::Null))), ..Zone::default() };
    assert_eq!(show(&null, &settings(), "there.test").await, "5.1.10");
    let missing = Zone { mx: Some(Ok(Answer::NxDomain)), ..Zone::default() };
    assert_eq!(show(&missing, &settings(), "there.test").await, "5.1.2");
}

#[tokio::test]
async fn silence_of_dns_is_never_final() {
    let silent = Zone { mx: Some(Err(())), ..Zone::default() };
    assert_eq!(show(&silent, &settings(), "there.test").await, "4.4.3");
    check(&["a 10 silent", "gone 20"], "4.4.3").await;
    check(&["a 10 silent", "b 20 192.0.2.2"], "b 192.0.2.2").await;
}

#[tokio::test]
async fn rfc5321_5_1_only_hosts_better_than_us_are_tried() {
    check(&["a 10 192.0.2.1", "us.test 20 192.0.2.50", "c 30 192.0.2.3"], "a 192.0.2.1").await;
    check(&["us.test 10 192.0.2.50", "c 20 192.0.2.3"], "5.4.6").await;
    check(&["alias 10 192.0.2.99"], "5.4.6").await;
    assert_eq!(show(&Zone::of(&[]), &settings(), "[192.0.2.99]").await, "5.4.6");
}

#[tokio::test]
async fn rfc5321_5_1_address_literals_bypass_dns() {
    assert_eq!(show(&Zone::of(&[]), &settings(), "[192.0.2.5]").await, "[192.0.2.5] 192.0.2.5");
}

#[tokio::test]
async fn loopback_only_where_it_is_allowed() {
    check(&["a 10 127.0.0.1", "b 20 192.0.2.2"], "b 192.0.2.2").await;
    check(&["a 10 127.0.0.1"], "5.4.4").await;
    let allowed = RouteSettings { loopback_allowed: true, ..settings() };
    assert_eq!(show(&Zone::of(&["a 10 127.0.0.1"]), &allowed, "there.test").await, "a 127.0.0.1");
}

#[tokio::test]
async fn a_smarthost_takes_everything_and_its_absence_costs_nothing() {
    let smarthost = |host: &str| RouteSettings { smarthost: Some((host.to_owned(), 587)), ..settings() };
    let zone = Zone::of(&["relay.test - 192.0.2.8"]);
    assert_eq!(show(&zone, &smarthost("relay.test"), "there.test").await, "relay.test 192.0.2.8");
    assert_eq!(show(&zone, &smarthost("gone.test"), "there.test").await, "4.4.4");
    assert_eq!(show(&zone, &smarthost("127.0.0.1"), "there.test").await, "127.0.0.1 127.0.0.1");
}

#[test]
fn a_listener_on_every_address_is_recognised_once_connected() {
    let own = vec!["0.0.0.0:25".parse().expect("an address")];
    let settings = RouteSettings { own, ..settings() };
    let [here, there] = ["192.0.2.1:25", "192.0.2.2:25"].map(|text| text.parse::<SocketAddr>().expect("an address"));
    assert!(settings.is_own_connection(here, "192.0.2.1:40000".parse().expect("an address")));
    assert!(!settings.is_own_connection(there, "192.0.2.1:40000".parse().expect("an address")));
}
