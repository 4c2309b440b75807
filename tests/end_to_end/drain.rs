//! `posthouse drain`: balancers hear first, then clients in their own words, and the node stays up without them.

use std::net::TcpStream;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::mail_client::{Imap, Pop3, Smtp, mailbox, message};
use crate::harness::program::{Demo, Port};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";

/// The answer of `/health/ready` on a connection that is kept if the node keeps it.
fn ready(demo: &Demo) -> String {
    let mut client = Client::connect(demo.port(Port::Metrics));
    client.send_raw(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.rest()
}

#[test]
fn balancers_hear_first_and_clients_hear_goodbye_in_their_own_words() {
    let demo = Demo::with(&[
        ("POSTHOUSE_NODE__DRAIN_NOTICE", "10s"),
        ("POSTHOUSE_NODE__DRAIN_SPREAD", "1s"),
        ("POSTHOUSE_NODE__DRAIN_LIMIT", "10s"),
    ]);
    assert!(ready(&demo).starts_with("HTTP/1.1 200"));
    let mut idle = Imap::login(&demo, ALICE, "demo");
    idle.select("INBOX");
    idle.client.send("idle IDLE");
    assert!(idle.client.line().starts_with('+'));
    let mut pop3 = Pop3::login(&demo, ALICE, "demo");
    let mut slow = Smtp::connect(&demo);
    slow.expect("MAIL FROM:<sender@example.org>", 250);
    slow.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    slow.expect("DATA", 354);
    let mut busy = Smtp::connect(&demo);
    busy.expect("MAIL FROM:<sender@example.org>", 250);
    let report = std::thread::scope(|scope| {
        let drain = scope.spawn(|| demo.json(&["drain"]));
        eventually("balancers hear", || ready(&demo).starts_with("HTTP/1.1 503").then_some(()));
        // Who was sent here by a balancer that has not looked yet is served.
        let mut late = Smtp::connect(&demo);
        late.expect("NOOP", 250);
        assert!(late.client.line().starts_with("421 "), "between two messages");
        // One who is in the middle of a message may end it.
        busy.expect(&format!("RCPT TO:<{BOB}>"), 250);
        busy.expect("DATA", 354);
        let text = message("sender@example.org", BOB, "in-time").replace('\n', "\r\n");
        busy.client.send_raw(format!("{text}.\r\n").as_bytes());
        assert_eq!(busy.reply().code, 250);
        assert!(busy.client.line().starts_with("421 "));
        assert!(idle.client.line().starts_with("* BYE "));
        assert!(pop3.client.line().starts_with("-ERR "));
        assert!(slow.client.line().starts_with("421 "), "its time is over");
        drain.join().expect("a drain")
    });
    assert_eq!((&report["sessions"], &report["farewelled"]), (&5.into(), &5.into()), "{report}");
    assert_eq!((&report["finished"], &report["cut"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(report["deliveries_finished"], true, "{report}");
    assert!(report["milliseconds"].as_u64().expect("a time") >= 10_000, "{report}");
    assert!(TcpStream::connect(("127.0.0.1", demo.port(Port::Smtp))).is_err(), "nobody listens");
    let status = demo.json(&["status"]);
    assert_eq!((&status["draining"], &status["connections"]), (&true.into(), &0.into()), "{status}");
    assert!(ready(&demo).contains("the end of the drain"));
    assert_eq!(demo.json(&["drain"]), report, "it is drained already");
    let refused = demo.command(&["upgrade"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn a_node_that_drains_to_its_end_is_gone_and_has_kept_the_mail() {
    let mut demo = Demo::start();
    let mut smtp = Smtp::connect(&demo);
    let report = demo.json(&["drain", "--now", "--stop"]);
    assert_eq!((&report["sessions"], &report["farewelled"]), (&1.into(), &1.into()), "{report}");
    assert!(smtp.client.line().starts_with("421 "));
    demo.wait();
    demo.run();
    assert!(mailbox(&demo, ALICE, "demo", "INBOX").is_empty());
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}
