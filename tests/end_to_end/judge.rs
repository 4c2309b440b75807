//! Judging: what SPF, DKIM and DMARC say of mail from outside, against a DNS server of our own.

use crate::harness::dns::{Dns, Zone};
use crate::harness::mail_client::{Smtp, SmtpReply, mailbox, message};
use crate::harness::program::{Demo, PATIENT};

/// `honest.test` allows loopback, `other.test` nobody, `strict.test` nobody and asks to refuse.
fn world() -> (Demo, Dns) {
    let dns = Zone::new()
        .txt("honest.test", "v=spf1 ip4:127.0.0.0/8 -all")
        .txt("_dmarc.honest.test", "v=DMARC1; p=reject")
        .txt("other.test", "v=spf1 -all")
        .txt("strict.test", "v=spf1 -all")
        .txt("_dmarc.strict.test", "v=DMARC1; p=reject")
        .serve();
    let server = dns.server();
    let settings = [("POSTHOUSE_RESOLVER__SERVERS", server.as_str()), ("POSTHOUSE_FILTER__TRUSTED", "")];
    (Demo::with(&[settings, PATIENT].concat()), dns)
}

fn send(demo: &Demo, from: &str, subject: &str) -> SmtpReply {
    Smtp::connect(demo).deliver(from, &["alice@demo.test"], &message(from, "alice@demo.test", subject))
}

#[test]
fn results_stand_in_the_header_and_forged_ones_are_removed() {
    let (demo, _dns) = world();
    let from = "you@honest.test";
    let text = format!(
        "Authentication-Results: demo.test; dkim=pass header.d=bank.test\n{}",
        message(from, "alice@demo.test", "honest")
    );
    let reply = Smtp::connect(&demo).deliver(from, &["alice@demo.test"], &text);
    assert_eq!(reply.code, 250, "{reply:?}");
    let messages = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 1);
    // RFC 8601 §5: a field that claims to be ours is removed.
    assert!(messages[0].contains("spf=pass"), "{}", messages[0]);
    assert!(messages[0].contains("dmarc=pass"), "{}", messages[0]);
    assert!(!messages[0].contains("bank.test"), "{}", messages[0]);
}

#[test]
fn a_failing_spf_alone_is_noted_and_a_rejecting_dmarc_refuses() {
    let (demo, _dns) = world();
    let reply = send(&demo, "you@other.test", "noted");
    assert_eq!(reply.code, 250, "{reply:?}");
    let refused = send(&demo, "you@strict.test", "refused");
    assert_eq!(refused.code, 550, "{refused:?}");
    let all: Vec<String> =
        ["INBOX", "Junk"].iter().flat_map(|name| mailbox(&demo, "alice@demo.test", "demo", name)).collect();
    assert_eq!(all.len(), 1);
    assert!(all[0].contains("spf=fail"), "{}", all[0]);
}

#[test]
fn without_a_network_mail_is_taken_all_the_same() {
    // Nothing answers on this address: the stages that ask DNS fail open.
    let demo = Demo::with(&[("POSTHOUSE_RESOLVER__SERVERS", "127.0.0.99:9"), ("POSTHOUSE_LIMITS__EXEMPT", "")]);
    let reply = send(&demo, "you@honest.test", "offline");
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "INBOX").len(), 1);
}
