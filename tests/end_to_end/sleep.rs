//! Sessions that sleep in the running program: woken over TLS, through upgrades, at its end, and counted all the while.

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::mail_client::{Imap, Pop3, Smtp, deliver, message};
use crate::harness::program::{Demo, Port};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";

fn demo() -> Demo {
    Demo::with(&[("POSTHOUSE_NODE__SLEEP_AFTER", "20ms")])
}

fn metrics(demo: &Demo) -> String {
    let mut client = Client::connect(demo.port(Port::Metrics));
    client.send_raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.rest()
}

/// Waits until so many sessions of all protocols sleep.
fn asleep(demo: &Demo, count: i64) {
    eventually(&format!("{count} sessions sleep"), || {
        let text = metrics(demo);
        let sleeping = text.lines().filter_map(|line| line.strip_prefix("sessions_asleep{")?.split(' ').nth(1));
        let sum: i64 = sleeping.filter_map(|number| number.parse::<i64>().ok()).sum();
        (sum == count).then_some(())
    });
}

/// A client of each protocol, in the middle of what it does.
struct Sessions {
    idle: Imap,
    smtp: Smtp,
    submission: Smtp,
    pop3: Pop3,
    /// Has not said anything yet.
    silent: Client,
}

impl Sessions {
    fn begin(demo: &Demo) -> Self {
        deliver(demo, BOB, "one");
        deliver(demo, BOB, "two");
        let mut idle = Imap::login(demo, ALICE, "demo");
        assert_eq!(idle.select("INBOX"), 0);
        idle.client.send("idle IDLE");
        assert!(idle.client.line().starts_with('+'));
        let mut smtp = Smtp::connect(demo);
        smtp.expect("MAIL FROM:<sender@example.org>", 250);
        smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
        let mut submission = Smtp::submit(demo, ALICE, "demo");
        submission.expect(&format!("MAIL FROM:<{ALICE}>"), 250);
        let mut pop3 = Pop3::login(demo, BOB, "demo");
        pop3.expect("DELE 1");
        let mut silent = Client::connect(demo.port(Port::Imap));
        assert!(silent.line().starts_with("* OK"));
        Self { idle, smtp, submission, pop3, silent }
    }

    /// Each goes on with what only its own past explains; then all are at rest again but the one of SMTP.
    fn go_on(&mut self) {
        self.smtp.expect("DATA", 354);
        let text = message("sender@example.org", ALICE, "woken").replace('\n', "\r\n");
        self.smtp.client.send_raw(format!("{text}.\r\n").as_bytes());
        assert_eq!(self.smtp.reply().code, 250);
        assert_eq!(self.idle.client.line(), "* 1 EXISTS");
        self.submission.expect(&format!("RCPT TO:<{BOB}>"), 250);
        assert!(self.pop3.expect("STAT").starts_with("+OK 1 "));
        self.silent.send(&format!("a LOGIN {ALICE} demo"));
        assert!(self.silent.line().starts_with("a OK"));
    }
}

#[test]
fn sessions_of_every_protocol_sleep_and_wake_and_are_told_of_the_end() {
    let mut demo = demo();
    let mut sessions = Sessions::begin(&demo);
    asleep(&demo, 5);
    let status = demo.json(&["status"]);
    assert_eq!((&status["connections"], &status["asleep"]), (&5.into(), &5.into()), "they count as connections");
    sessions.go_on();
    // In the middle of a transaction the end would wait for it.
    sessions.submission.expect("RSET", 250);
    asleep(&demo, 5);
    let metrics = metrics(&demo);
    for woken in ["cause=\"notice\",protocol=\"imaps\"", "cause=\"input\",protocol=\"pop3s\""] {
        let count = metrics.lines().find_map(|line| line.strip_prefix(&format!("session_wakes_total{{{woken}}} ")));
        assert!(count.is_some_and(|count| count != "0"), "{woken}: {metrics}");
    }
    demo.stop();
    assert!(sessions.idle.client.line().starts_with("* BYE [UNAVAILABLE]"));
    assert!(sessions.silent.line().starts_with("* BYE [UNAVAILABLE]"));
    assert!(sessions.pop3.client.line().starts_with("-ERR [SYS/TEMP]"));
    assert_eq!(sessions.smtp.reply().code, 421);
}

#[test]
fn sleeping_sessions_go_through_upgrades_and_sleep_on() {
    let mut demo = demo();
    let mut sessions = Sessions::begin(&demo);
    for _ in 0..2 {
        asleep(&demo, 5);
        let report = demo.upgrade(None);
        assert_eq!((&report["moved"], &report["farewelled"]), (&5.into(), &0.into()), "{report}");
    }
    asleep(&demo, 5);
    sessions.go_on();
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}
