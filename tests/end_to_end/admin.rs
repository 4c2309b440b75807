//! Commands against a running node, and what it tells over HTTP.

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::mail_client::{Imap, deliver, mailbox};
use crate::harness::program::{Demo, Port};

/// A plain HTTP GET: the status line and the body.
fn get(demo: &Demo, path: &str) -> (String, String) {
    let mut http = Client::connect(demo.port(Port::Metrics));
    http.send_raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    let status = http.line();
    while !http.line().is_empty() {}
    (status, http.rest())
}

#[test]
fn accounts_are_created_changed_and_deleted() {
    let demo = Demo::start();
    let address = demo.create_account("carol");
    let accounts = demo.json(&["account", "list"]);
    let names: Vec<&str> = accounts.as_array().expect("a list").iter().filter_map(|a| a["address"].as_str()).collect();
    for name in ["alice@demo.test", "bob@demo.test", "admin@demo.test", "carol@demo.test"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let shown = demo.json(&["account", "show", &address]);
    let mailboxes: Vec<&str> =
        shown["mailboxes"].as_array().expect("a list").iter().filter_map(|m| m["name"].as_str()).collect();
    for name in ["INBOX", "Drafts", "Sent", "Junk", "Trash", "Archive"] {
        assert!(mailboxes.iter().any(|mailbox| mailbox.eq_ignore_ascii_case(name)), "{mailboxes:?}");
    }

    demo.json_with_input(&["account", "set", &address, "--password-stdin", "--quota", "1GiB"], "new\n");
    Imap::login(&demo, &address, "new");
    let mut imap = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
    imap.line();
    imap.send(&format!("a LOGIN {address} pw"));
    let line = imap.line();
    assert!(line.starts_with("a NO"), "the old password: {line}");

    let again = demo.command_with_input(&["account", "create", &address, "--password-stdin"], "pw\n");
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    demo.json(&["account", "delete", &address]);
    assert_eq!(demo.command(&["account", "show", &address]).status.code(), Some(1));
    assert_eq!(demo.command(&["account", "paint"]).status.code(), Some(2));
}

#[test]
fn domains_and_aliases_are_managed() {
    let demo = Demo::start();
    demo.json(&["domain", "create", "second.test"]);
    demo.json_with_input(&["account", "create", "dora@second.test", "--password-stdin"], "pw\n");
    deliver(&demo, "dora@second.test", "hello");
    assert_eq!(mailbox(&demo, "dora@second.test", "pw", "INBOX").len(), 1);
    let records = demo.json(&["domain", "dns", "second.test"]);
    let text = records.to_string();
    for part in ["MX", "v=spf1", "v=DKIM1", "v=DMARC1", "_dmarc.second.test", "_domainkey.second.test"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let shown = demo.json(&["domain", "show", "second.test"]);
    let selector = shown["dkim"][0]["selector"].as_str().expect("a key").to_owned();
    let left = demo.json(&["domain", "remove-key", "second.test", &selector]);
    assert_eq!(left["dkim"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(demo.command(&["domain", "remove-key", "second.test", &selector]).status.code(), Some(1));
    // A selector bears the day: the keys were made today.
    assert_eq!(demo.command(&["domain", "rotate-keys", "second.test"]).status.code(), Some(1));
    demo.json(&["alias", "create", "info@second.test", "dora@second.test"]);
    demo.json(&["alias", "set", "info@second.test", "dora@second.test", "alice@demo.test"]);
    assert_eq!(demo.json(&["alias", "show", "info@second.test"])["targets"].as_array().map(Vec::len), Some(2));
    deliver(&demo, "info@second.test", "both");
    eventually("alice's copy", || (!mailbox(&demo, "alice@demo.test", "demo", "INBOX").is_empty()).then_some(()));
    demo.json(&["alias", "delete", "info@second.test"]);
    assert_eq!(demo.json(&["alias", "list"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn status_and_health_tell_of_the_node() {
    let demo = Demo::start();
    let status = demo.json(&["status"]);
    assert_eq!(status["ready"], true);
    assert_eq!(status["pid"].as_u64(), Some(u64::from(demo.pid())));
    assert_eq!(get(&demo, "/health/live").0, "HTTP/1.1 200 OK");
    assert_eq!(get(&demo, "/health/ready").0, "HTTP/1.1 200 OK");
    deliver(&demo, "alice@demo.test", "counted");
    let (status, metrics) = get(&demo, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(metrics.contains("# TYPE "), "{metrics}");
    assert_eq!(get(&demo, "/nothing").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn one_id_follows_a_message_through_the_log() {
    let demo = Demo::with(&[("POSTHOUSE_OBSERVE__LOG_FORMAT", "json")]);
    deliver(&demo, "alice@demo.test", "traced");
    let lines = eventually("three lines about the message", || {
        let log = demo.log();
        let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let about: Vec<_> = lines.iter().filter(|line| line.pointer("/fields/ingest").is_some()).cloned().collect();
        (about.len() >= 3).then_some(about)
    });
    let field = |line: &serde_json::Value, name: &str| line["fields"][name].as_str().map(str::to_owned);
    let ids: std::collections::BTreeSet<_> = lines.iter().map(|line| field(line, "ingest")).collect();
    assert_eq!(ids.len(), 1, "{lines:?}");
    let said: Vec<_> = lines.iter().filter_map(|line| field(line, "message")).collect();
    for step in ["message received", "message judged", "message delivered"] {
        assert!(said.iter().any(|line| line == step), "no {step:?} in {said:?}");
    }
}

#[test]
fn the_store_is_whole_after_work() {
    let demo = Demo::start();
    for number in 0..5 {
        deliver(&demo, "alice@demo.test", &format!("n{number}"));
    }
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    imap.select("INBOX");
    imap.expect("COPY 1:2 Archive");
    imap.expect("MOVE 3 Trash");
    imap.expect("STORE 1 +FLAGS (\\Deleted \\Seen $Later)");
    imap.expect("EXPUNGE");
    imap.expect("CREATE Work/Plans");
    imap.expect("RENAME Work Office");
    imap.expect("DELETE Office/Plans");
    let check = demo.json(&["check", "--store"]);
    assert_eq!(check["whole"], true, "{check}");
}

#[test]
fn a_running_node_is_checked_and_only_a_stopped_one_is_repaired() {
    let mut demo = Demo::start();
    deliver(&demo, "alice@demo.test", "once");
    let refused = demo.command(&["check", "--store", "--repair"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it"), "{refused:?}");
    demo.stop();
    let repair = demo.json(&["check", "--store", "--repair"]);
    assert_eq!((&repair["whole"], &repair["mended"]), (&true.into(), &serde_json::json!([])), "{repair}");
    let check = demo.json(&["check", "--store", "--quick"]);
    assert_eq!(check["whole"], true, "{check}");
}
