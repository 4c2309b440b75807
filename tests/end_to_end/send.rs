//! Sending: submission, the queue, remote hosts that accept, refuse, defer or are away, and the reports that follow.

use serde_json::Value;

use crate::harness::dns::{Dns, Zone};
use crate::harness::eventually;
use crate::harness::mail_client::{Smtp, mailbox, message};
use crate::harness::program::{Demo, PATIENT, Port, free_port};
use crate::harness::remote_host::{Manner, RemoteHost};

pub(super) const FIRST: [u8; 4] = [127, 0, 0, 11];
const SECOND: [u8; 4] = [127, 0, 0, 12];

/// A demo whose world has one other domain, `remote.test`, with two mail hosts on one port.
pub(super) struct World {
    pub(super) demo: Demo,
    pub(super) port: u16,
    _dns: Dns,
}

fn world() -> World {
    world_with(&[])
}

pub(super) fn world_with(settings: &[(&str, &str)]) -> World {
    let zone = Zone::new().mx("remote.test", 10, "mx1.remote.test").mx("remote.test", 20, "mx2.remote.test");
    let dns = zone.a("mx1.remote.test", FIRST).a("mx2.remote.test", SECOND).serve();
    let port = free_port();
    let (server, port_text) = (dns.server(), port.to_string());
    let mut environment =
        vec![("POSTHOUSE_RESOLVER__SERVERS", server.as_str()), ("POSTHOUSE_QUEUE__REMOTE_PORT", port_text.as_str())];
    environment.extend(PATIENT);
    environment.extend_from_slice(settings);
    World { demo: Demo::with(&environment), port, _dns: dns }
}

pub(super) fn submit(demo: &Demo, to: &[&str], text: &str) {
    let reply = Smtp::submit(demo, "alice@demo.test", "demo").deliver("alice@demo.test", to, text);
    assert_eq!(reply.code, 250, "{reply:?}");
}

pub(super) fn queue(demo: &Demo) -> Vec<Value> {
    demo.json(&["queue", "list"]).as_array().cloned().unwrap_or_default()
}

fn inbox_with(demo: &Demo, account: &str, text: &str) -> String {
    eventually(&format!("{text:?} in the inbox of {account}"), || {
        mailbox(demo, account, "demo", "INBOX").into_iter().find(|message| message.contains(text))
    })
}

#[test]
fn submitted_mail_reaches_the_remote_host_signed() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::Accept);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "outbound"));
    let received = host.wait_for("Subject: outbound");
    assert_eq!(
        (received.from.as_str(), received.to.as_slice()),
        ("alice@demo.test", &["someone@remote.test".to_owned()][..])
    );
    // RFC 6376 §3.5: both keys of the domain sign.
    for tag in ["DKIM-Signature:", "d=demo.test", "a=rsa-sha256", "a=ed25519-sha256"] {
        assert!(received.data.contains(tag), "no {tag} in {}", received.data);
    }
    assert!(!received.data.contains("Return-Path:"), "RFC 5321 §4.4: only final delivery adds it");
    eventually("an empty queue", || queue(&world.demo).is_empty().then_some(()));
}

#[test]
fn submission_completes_the_header_and_hides_blind_recipients() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::Accept);
    let text =
        "From: Alice <alice@demo.test>\nTo: someone@remote.test\nBcc: secret@remote.test\nSubject: bare\n\nText\n";
    submit(&world.demo, &["someone@remote.test", "secret@remote.test"], text);
    let received = host.wait_for("Subject: bare");
    // RFC 6409 §8: Date and Message-ID are added; RFC 5322 §3.6.3: Bcc goes no further.
    for field in ["\r\nDate: ", "\r\nMessage-ID: <"] {
        assert!(received.data.contains(field), "no {field:?} in {}", received.data);
    }
    assert!(!received.data.contains("Bcc") && !received.data.contains("secret@"), "{}", received.data);
    assert_eq!(received.to.len(), 2);
}

#[test]
fn the_sender_must_be_an_identity_of_the_account() {
    let demo = Demo::start();
    let mut smtp = Smtp::submit(&demo, "alice@demo.test", "demo");
    let reply = smtp.command("MAIL FROM:<bob@demo.test>");
    let reply = if reply.code == 250 { smtp.command("RCPT TO:<bob@demo.test>") } else { reply };
    assert!((500..600).contains(&reply.code), "RFC 6409 §6.1: {reply:?}");

    let mut plain = Smtp::greeted(crate::harness::client::Client::connect(demo.port(Port::Submission)));
    assert!(!plain.capabilities.iter().any(|line| line.starts_with("AUTH")), "AUTH before TLS");
    plain.expect("MAIL FROM:<alice@demo.test>", 530);
}

#[test]
fn local_and_remote_recipients_of_one_message_each_get_it_once() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::Accept);
    let to = ["bob@demo.test", "one@remote.test", "two@remote.test"];
    submit(&world.demo, &to, &message("alice@demo.test", to[0], "mixed"));
    let received = host.wait_for("Subject: mixed");
    assert_eq!(received.to, ["one@remote.test", "two@remote.test"]);
    inbox_with(&world.demo, "bob@demo.test", "Subject: mixed");
    assert_eq!(mailbox(&world.demo, "bob@demo.test", "demo", "INBOX").len(), 1);
    assert_eq!(host.received().len(), 1);
}

#[test]
fn the_second_host_is_used_when_the_first_is_down() {
    let world = world();
    let second = RemoteHost::listen(SECOND, world.port, Manner::Accept);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "second"));
    second.wait_for("Subject: second");
}

#[test]
fn a_refused_recipient_comes_back_as_a_report_and_the_other_is_delivered() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::RefuseSome);
    let to = ["refused@remote.test", "welcome@remote.test"];
    submit(&world.demo, &to, &message("alice@demo.test", to[0], "halfway"));
    let received = host.wait_for("Subject: halfway");
    assert_eq!(received.to, ["welcome@remote.test"]);
    let report = inbox_with(&world.demo, "alice@demo.test", "multipart/report");
    // RFC 3464 §2.2 and §2.3: a machine-readable part for the one recipient that failed.
    for text in [
        "Return-Path: <>",
        "report-type=delivery-status",
        "message/delivery-status",
        "Reporting-MTA: dns; demo.test",
        "Final-Recipient: rfc822; refused@remote.test",
        "Action: failed",
        "Status: 5.1.1",
        "nobody of that name",
        "Subject: halfway",
    ] {
        assert!(report.to_lowercase().contains(&text.to_lowercase()), "no {text:?} in {report}");
    }
    assert!(!report.contains("Final-Recipient: rfc822; welcome"), "{report}");
    eventually("an empty queue", || queue(&world.demo).is_empty().then_some(()));
}

#[test]
fn a_deferred_message_waits_is_shown_and_goes_at_retry() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::Defer);
    let second = RemoteHost::listen(SECOND, world.port, Manner::Defer);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "patient"));
    let entry = eventually("an attempt that was deferred", || {
        queue(&world.demo).into_iter().find(|entry| entry["attempt_count"].as_u64() >= Some(1))
    });
    assert_eq!(entry["destination"], "remote.test");
    assert_eq!(entry["recipients"][0], "someone@remote.test");
    assert!(entry["last_reason"].as_str().is_some_and(|reason| reason.contains("later, please")), "{entry}");
    assert!(host.received().is_empty() && second.received().is_empty());
    host.set_manner(Manner::Accept);
    let id = entry["id"].as_str().expect("an id").to_owned();
    world.demo.json(&["queue", "retry", &id]);
    host.wait_for("Subject: patient");
    assert_eq!(host.received().len(), 1);
    eventually("an empty queue", || queue(&world.demo).is_empty().then_some(()));
}

#[test]
fn the_schedule_tries_again_by_itself() {
    let world = world_with(&[("POSTHOUSE_QUEUE__SCHEDULE", "200ms")]);
    let host = RemoteHost::listen(FIRST, world.port, Manner::Defer);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "again"));
    eventually("two attempts", || {
        queue(&world.demo).iter().any(|entry| entry["attempt_count"].as_u64() >= Some(2)).then_some(())
    });
    host.set_manner(Manner::Accept);
    host.wait_for("Subject: again");
}

#[test]
fn giving_up_by_hand_or_by_time_reports_to_the_sender() {
    let world = world();
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "byhand"));
    // A message whose delivery is under way can't be given up.
    let entry = eventually("an attempt that was deferred", || {
        queue(&world.demo).into_iter().find(|entry| entry["attempt_count"].as_u64() >= Some(1))
    });
    world.demo.json(&["queue", "bounce", entry["id"].as_str().expect("an id")]);
    inbox_with(&world.demo, "alice@demo.test", "Final-Recipient: rfc822; someone@remote.test");

    let world = world_with(&[("POSTHOUSE_QUEUE__SCHEDULE", "200ms"), ("POSTHOUSE_QUEUE__EXPIRE_AFTER", "1s")]);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "expired"));
    let report = inbox_with(&world.demo, "alice@demo.test", "message/delivery-status");
    assert!(report.contains("Action: failed"), "{report}");
    assert!(queue(&world.demo).is_empty());
}

#[test]
fn a_domain_that_does_not_exist_or_takes_no_mail_is_reported_at_once() {
    let dns = Zone::new().mx("null.test", 0, ".").serve();
    let [timeout, stage_timeout] = PATIENT;
    let demo = Demo::with(&[("POSTHOUSE_RESOLVER__SERVERS", &dns.server()), timeout, stage_timeout]);
    submit(&demo, &["someone@null.test"], &message("alice@demo.test", "someone@null.test", "null"));
    // RFC 7505 §4.2: 556 and 5.1.10 for a null MX.
    let report = inbox_with(&demo, "alice@demo.test", "Final-Recipient: rfc822; someone@null.test");
    assert!(report.contains("5.1.10"), "{report}");
    submit(&demo, &["someone@missing.test"], &message("alice@demo.test", "someone@missing.test", "missing"));
    let report = inbox_with(&demo, "alice@demo.test", "Final-Recipient: rfc822; someone@missing.test");
    assert!(report.contains("5.1.2"), "{report}");
}

#[test]
fn a_queued_message_survives_a_kill() {
    let mut world = world();
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "survivor"));
    world.demo.kill();
    world.demo.run();
    let host = RemoteHost::listen(FIRST, world.port, Manner::Accept);
    // Its first attempt comes before the host listens or after; a retry may find it gone.
    eventually("the queued message", || {
        for entry in queue(&world.demo) {
            world.demo.command(&["queue", "retry", entry["id"].as_str().expect("an id")]);
        }
        (!host.received().is_empty()).then_some(())
    });
    host.wait_for("Subject: survivor");
    assert_eq!(world.demo.json(&["check", "--store"])["whole"], true);
}

#[test]
fn a_report_to_an_unreachable_sender_never_loops() {
    let world = world();
    let host = RemoteHost::listen(FIRST, world.port, Manner::RefuseData);
    // The report itself (null reverse-path) is refused by the remote host, and nothing follows.
    world.demo.json(&["alias", "create", "away@demo.test", "someone@remote.test"]);
    let reply = Smtp::connect(&world.demo).deliver("", &["away@demo.test"], &message("", "away@demo.test", "nullpath"));
    assert_eq!(reply.code, 250, "{reply:?}");
    eventually("an attempt", || (host.connections() > 0).then_some(()));
    eventually("an empty queue", || queue(&world.demo).is_empty().then_some(()));
    for account in ["alice@demo.test", "admin@demo.test"] {
        assert!(mailbox(&world.demo, account, "demo", "INBOX").is_empty(), "{account}");
    }
}
