//! Signing: what leaves through submission bears signatures that others can verify with what `domain dns` says to publish.

use mail_auth::hickory_resolver::TokioResolver;
use mail_auth::hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use mail_auth::hickory_resolver::net::runtime::TokioRuntimeProvider;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};

use crate::harness::dns::{Dns, Zone};
use crate::harness::mail_client::{Smtp, mailbox, message};
use crate::harness::program::{Demo, PATIENT, free_port};
use crate::harness::remote_host::{Manner, RemoteHost};

const REMOTE: [u8; 4] = [127, 0, 0, 13];

/// A message that alice submitted, as the remote host got it.
fn sent(text: &str) -> (Demo, String) {
    let dns = Zone::new().mx("remote.test", 10, "mx.remote.test").a("mx.remote.test", REMOTE).serve();
    let port = free_port();
    let (server, port_text) = (dns.server(), port.to_string());
    let settings = [("POSTHOUSE_RESOLVER__SERVERS", server.as_str()), ("POSTHOUSE_QUEUE__REMOTE_PORT", &port_text)];
    let demo = Demo::with(&[settings, PATIENT].concat());
    let host = RemoteHost::listen(REMOTE, port, Manner::Accept);
    let reply =
        Smtp::submit(&demo, "alice@demo.test", "demo").deliver("alice@demo.test", &["someone@remote.test"], text);
    assert_eq!(reply.code, 250, "{reply:?}");
    let data = host.wait_for("Subject: signed").data;
    (demo, data)
}

/// A DNS server that publishes what the demo says.
fn published(demo: &Demo) -> Dns {
    let records = demo.json(&["domain", "dns", "demo.test"]);
    let texts = records.as_array().expect("a list").iter().filter(|record| record["kind"] == "TXT");
    let text = |record: &serde_json::Value, key: &str| record[key].as_str().expect("a text").to_owned();
    texts.fold(Zone::new(), |zone, record| zone.txt(&text(record, "name"), &text(record, "value"))).serve()
}

/// How many signatures another implementation finds good.
fn verified(dns: &Dns, data: &str) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let server: std::net::SocketAddr = dns.server().parse().expect("an address");
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
    let config = ResolverConfig::from_name_servers(servers);
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build();
    let authenticator = MessageAuthenticator(resolver.expect("a resolver"));
    let message = AuthenticatedMessage::parse(data.as_bytes()).expect("a message");
    let outputs = runtime.block_on(authenticator.verify_dkim(&message));
    outputs.iter().filter(|output| *output.result() == DkimResult::Pass).count()
}

#[test]
fn submitted_mail_verifies_elsewhere_and_when_it_comes_back() {
    let (demo, data) = sent(&message("alice@demo.test", "someone@remote.test", "signed"));
    let dns = published(&demo);
    assert_eq!(verified(&dns, &data), 2, "one signature of each kind\n{data}");
    assert_eq!(verified(&dns, &data.replace("Subject: signed", "Subject: forged")), 0);
    // Another host of ours, to which our own signature is a stranger's.
    let server = dns.server();
    let settings = [("POSTHOUSE_RESOLVER__SERVERS", server.as_str()), ("POSTHOUSE_FILTER__TRUSTED", "")];
    let elsewhere = Demo::with(&[settings, PATIENT].concat());
    let text = data.replace("\r\n", "\n");
    let reply = Smtp::connect(&elsewhere).deliver("someone@list.test", &["alice@demo.test"], &text);
    assert_eq!(reply.code, 250, "{reply:?}");
    let kept = mailbox(&elsewhere, "alice@demo.test", "demo", "INBOX").remove(0);
    assert_eq!(kept.matches("dkim=pass header.d=demo.test").count(), 2, "{kept}");
    assert!(kept.contains("dmarc=pass") && kept.contains("header.from=demo.test"), "{kept}");
    let forged = text.replace("Subject: signed", "Subject: forged");
    let reply = Smtp::connect(&elsewhere).deliver("someone@list.test", &["alice@demo.test"], &forged);
    assert_eq!(reply.code, 250, "{reply:?}");
    // `domain dns` asks for quarantine, and the domain's name no longer stands behind this one.
    let kept = mailbox(&elsewhere, "alice@demo.test", "demo", "Junk").remove(0);
    assert!(kept.contains("dkim=fail") && kept.contains("dmarc=fail"), "{kept}");
}

#[test]
fn odd_ends_of_a_body_verify_too() {
    let text = format!("{}\n  \n\t\n\n", message("alice@demo.test", "someone@remote.test", "signed"));
    let (demo, data) = sent(&text);
    let dns = published(&demo);
    // mail-auth 0.13 hashes white-space lines at the end of a body where RFC 6376 §3.4.4 ignores them; trimmed, the body is
    // the same to RFC 6376 and plain to both.
    let trimmed = format!("{}\r\n", data.trim_end());
    assert_eq!(verified(&dns, &trimmed), 2, "{data:?}");
}
