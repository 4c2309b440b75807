//! Receiving: what reaches which mailbox, and what is refused at the door.

use crate::harness::eventually;
use crate::harness::mail_client::{self, Imap, Pop3, Smtp, deliver, mailbox, message};
use crate::harness::program::Demo;

const SENDER: &str = "sender@example.org";

#[test]
fn received_mail_is_read_over_imap_and_pop3_with_its_trace() {
    let demo = Demo::start();
    deliver(&demo, "alice@demo.test", "first");
    let messages = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 1);
    // RFC 5321 §4.4: Return-Path first, then Received with the protocol that was spoken.
    let text = &messages[0];
    let header = &text[text.find("\r\n").expect("a literal") + 2..];
    assert!(header.starts_with("Return-Path: <sender@example.org>\r\n"), "{header}");
    assert!(header.contains("\r\nReceived: from client.example.org"), "{header}");
    assert!(header.contains("with ESMTP"), "{header}");
    assert!(header.contains("Authentication-Results: demo.test"), "{header}");
    assert!(header.contains("Text of first."), "{header}");

    let mut pop3 = Pop3::login(&demo, "alice@demo.test", "demo");
    assert!(pop3.expect("STAT").starts_with("+OK 1 "));
    let lines = pop3.lines("RETR 1");
    assert!(lines.iter().any(|line| line == "Subject: first"), "{lines:?}");
}

#[test]
fn one_message_for_two_accounts_reaches_both_once() {
    let demo = Demo::start();
    let to = ["alice@demo.test", "bob@demo.test"];
    let reply = Smtp::connect(&demo).deliver(SENDER, &to, &message(SENDER, to[0], "shared"));
    assert_eq!(reply.code, 250, "{reply:?}");
    for account in to {
        eventually(account, || (!mailbox(&demo, account, "demo", "INBOX").is_empty()).then_some(()));
    }
    for account in to {
        assert_eq!(mailbox(&demo, account, "demo", "INBOX").len(), 1, "{account}");
    }
}

#[test]
fn strangers_are_refused_and_nothing_is_relayed() {
    let demo = Demo::start();
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    // RFC 5321 §3.3 and §3.9: no such user here; no relay for others.
    smtp.expect("RCPT TO:<nobody@demo.test>", 550);
    let relayed = smtp.command("RCPT TO:<someone@elsewhere.test>");
    assert_eq!(relayed.code, 550, "{relayed:?}");
    assert!(relayed.lines[0].starts_with("5.7.1 "), "{relayed:?}");
    smtp.expect("DATA", 554);
}

#[test]
fn plus_addressing_and_aliases_lead_to_accounts() {
    let demo = Demo::start();
    deliver(&demo, "alice+lists@demo.test", "detail");
    deliver(&demo, "ALICE@DEMO.TEST", "case");
    demo.json(&["alias", "create", "team@demo.test", "alice@demo.test", "bob@demo.test"]);
    deliver(&demo, "team@demo.test", "team");
    // A cycle is cut: the message arrives once.
    demo.json(&["alias", "create", "loop@demo.test", "round@demo.test", "bob@demo.test"]);
    demo.json(&["alias", "create", "round@demo.test", "loop@demo.test"]);
    deliver(&demo, "loop@demo.test", "cycle");
    let subjects = |account: &str| -> Vec<String> {
        let messages = mailbox(&demo, account, "demo", "INBOX");
        let subject = |text: &String| {
            text.split("\r\nSubject: ").nth(1).map(|rest| rest[..rest.find('\r').unwrap_or(0)].to_owned())
        };
        messages.iter().filter_map(subject).collect()
    };
    let alice = eventually("alice's mail", || Some(subjects("alice@demo.test")).filter(|subjects| subjects.len() == 3));
    assert_eq!(alice, ["detail", "case", "team"]);
    let mut bob = eventually("bob's mail", || Some(subjects("bob@demo.test")).filter(|subjects| subjects.len() == 2));
    bob.sort();
    assert_eq!(bob, ["cycle", "team"]);
}

#[test]
fn a_full_account_is_refused_at_rcpt_until_there_is_room() {
    let demo = Demo::start();
    demo.json_with_input(&["account", "create", "small@demo.test", "--password-stdin", "--quota", "4KiB"], "pw\n");
    let text = format!("{}{}\n", message(SENDER, "small@demo.test", "big"), "x".repeat(70).repeat(80));
    let long = text.replace(&"x".repeat(70), &format!("{}\n", "x".repeat(70)));
    let reply = Smtp::connect(&demo).deliver(SENDER, &["small@demo.test"], &long);
    assert_eq!(reply.code, 250, "an overrun by one message is tolerated: {reply:?}");

    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    // RFC 5321 §4.5.3.1.10 and RFC 3463 §3.3: X.2.2, mailbox full.
    let refused = smtp.command("RCPT TO:<small@demo.test>");
    assert!(refused.code == 452 || refused.code == 552, "{refused:?}");
    assert!(refused.lines[0].contains(".2.2 "), "{refused:?}");

    let mut imap = Imap::login(&demo, "small@demo.test", "pw");
    assert_eq!(imap.select("INBOX"), 1);
    imap.expect("STORE 1 +FLAGS (\\Deleted)");
    imap.expect("EXPUNGE");
    let reply =
        Smtp::connect(&demo).deliver(SENDER, &["small@demo.test"], &message(SENDER, "small@demo.test", "again"));
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[test]
fn a_large_message_comes_back_byte_for_byte() {
    let demo = Demo::start();
    let line = "0123456789abcdefghijklmnopqrstuvwxyz. The quick brown fox jumps over it.\r\n";
    let mut body = line.repeat(60_000);
    body.push_str("..leading dot\r\n");
    let text = format!("From: <{SENDER}>\r\nTo: <alice@demo.test>\r\nSubject: large\r\n\r\n{body}");
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org> BODY=8BITMIME", 250);
    smtp.expect("RCPT TO:<alice@demo.test>", 250);
    smtp.expect("DATA", 354);
    smtp.client.send_raw(text.replace("\r\n.", "\r\n..").as_bytes());
    let reply = smtp.command(".");
    assert_eq!(reply.code, 250, "{reply:?}");
    let messages = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 1);
    let stored = messages[0].strip_suffix(')').expect("the end of the FETCH response");
    assert!(stored.ends_with(&text), "the body changed on its way");
}

#[test]
fn a_bare_line_feed_never_ends_data() {
    let demo = Demo::start();
    for smuggle in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r"] {
        let mut smtp = Smtp::connect(&demo);
        smtp.expect("MAIL FROM:<sender@example.org>", 250);
        smtp.expect("RCPT TO:<alice@demo.test>", 250);
        smtp.expect("DATA", 354);
        let hidden = "MAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@demo.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";
        smtp.client.send_raw(format!("Subject: outer\r\n\r\nx{smuggle}{hidden}\r\n.\r\n").as_bytes());
        // RFC 5321 §2.3.8: the end of data is CRLF.CRLF alone; a message with bare CR or LF is refused whole.
        let reply = smtp.reply();
        assert!((500..600).contains(&reply.code), "{smuggle:?}: {reply:?}");
        smtp.expect("RSET", 250);
    }
    for account in ["alice@demo.test", "bob@demo.test"] {
        assert!(mailbox(&demo, account, "demo", "INBOX").is_empty(), "{account}");
    }
}

#[test]
fn a_client_that_vanishes_in_data_leaves_nothing() {
    let demo = Demo::start();
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    smtp.expect("RCPT TO:<alice@demo.test>", 250);
    smtp.expect("DATA", 354);
    smtp.client.send_raw(b"Subject: half\r\n\r\nNo end");
    drop(smtp);
    deliver(&demo, "alice@demo.test", "whole");
    let messages = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 1);
    assert!(messages[0].contains("Subject: whole"));
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}

#[test]
fn a_report_with_the_null_path_and_mail_for_postmaster_are_taken() {
    let demo = Demo::start();
    let reply = Smtp::connect(&demo).deliver("", &["alice@demo.test"], &message("", "alice@demo.test", "report"));
    assert_eq!(reply.code, 250, "{reply:?}");
    // RFC 5321 §4.5.1: postmaster is always there, with and without a domain.
    for postmaster in ["postmaster@demo.test", "Postmaster"] {
        let reply = Smtp::connect(&demo).deliver(SENDER, &[postmaster], &message(SENDER, postmaster, "to-postmaster"));
        assert_eq!(reply.code, 250, "{postmaster}: {reply:?}");
    }
    assert_eq!(mailbox(&demo, "admin@demo.test", "demo", "INBOX").len(), 2);
    assert!(mailbox(&demo, "alice@demo.test", "demo", "INBOX")[0].contains("Return-Path: <>"));
}

#[test]
fn hostile_structure_is_stored_or_refused_and_never_ends_the_server() {
    let demo = Demo::start();
    let nested = {
        let mut text = String::from("Subject: nested\r\nMIME-Version: 1.0\r\n");
        for level in 0..10_000 {
            text.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        text
    };
    let fields = format!("Subject: fields\r\n{}\r\nx\r\n", "X-A: b\r\n".repeat(100_000));
    let long_line = format!("Subject: line\r\n\r\n{}\r\n", "y".repeat(10_000_000));
    let odd = b"Subject: \xff\xfe\0 odd\r\nContent-Type: multipart/mixed; boundary=\"\r\n\r\n--\r\n\0\xff\r\n".to_vec();
    for text in [nested.into_bytes(), fields.into_bytes(), long_line.into_bytes(), odd] {
        let mut smtp = Smtp::connect(&demo);
        smtp.expect("MAIL FROM:<sender@example.org>", 250);
        smtp.expect("RCPT TO:<alice@demo.test>", 250);
        smtp.expect("DATA", 354);
        smtp.client.send_raw(&text);
        smtp.client.send_raw(b"\r\n.\r\n");
        let reply = smtp.reply();
        assert!(reply.code == 250 || (500..600).contains(&reply.code), "{reply:?}");
    }
    // What was stored can be listed with its structure.
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    if imap.select("INBOX") > 0 {
        imap.expect("FETCH 1:* (ENVELOPE BODYSTRUCTURE RFC822.SIZE)");
    }
    mail_client::deliver(&demo, "bob@demo.test", "after");
    assert_eq!(mailbox(&demo, "bob@demo.test", "demo", "INBOX").len(), 1);
}
