//! Limits with nobody exempt: each has an answer of its protocol, and the server goes on.

use crate::harness::client::Client;
use crate::harness::mail_client::{Smtp, message};
use crate::harness::program::{Demo, Port};

const SENDER: &str = "sender@example.org";

/// A demo that exempts nobody, with further settings.
fn strict(settings: &[(&str, &str)]) -> Demo {
    let mut environment = vec![("POSTHOUSE_LIMITS__EXEMPT", "")];
    environment.extend_from_slice(settings);
    Demo::with(&environment)
}

#[test]
fn too_many_connections_from_one_address_get_421() {
    let demo = strict(&[("POSTHOUSE_LIMITS__CONNECTIONS_PER_IP_MAX", "3")]);
    let open: Vec<Smtp> = (0..3).map(|_| Smtp::connect(&demo)).collect();
    let mut refused = Client::connect(demo.port(Port::Smtp));
    let line = refused.line();
    assert!(line.starts_with("421 "), "{line}");
    assert!(refused.is_closed());
    drop(open);
}

#[test]
fn connecting_too_fast_is_refused_in_the_words_of_each_protocol() {
    let demo = strict(&[("POSTHOUSE_LIMITS__CONNECTS_PER_MINUTE_MAX", "2")]);
    let _allowed = (Smtp::connect(&demo), Smtp::connect(&demo));
    for (port, refusal) in
        [(Port::Smtp, "421 "), (Port::Submission, "421 "), (Port::Imap, "* BYE "), (Port::Pop3, "-ERR [SYS/TEMP] ")]
    {
        let mut refused = Client::connect(demo.port(port));
        let line = refused.line();
        assert!(line.starts_with(refusal), "{line}");
        assert!(refused.is_closed());
    }
    // Where TLS comes first, the client could not read a word.
    assert!(Client::connect(demo.port(Port::Pop3s)).is_closed());
}

#[test]
fn guesses_at_one_account_close_it_for_a_while_in_every_protocol() {
    let demo = strict(&[
        ("POSTHOUSE_LIMITS__FAILED_LOGINS_PER_ACCOUNT_PER_HOUR_MAX", "2"),
        ("POSTHOUSE_AUTH__FAILURE_DELAY", "10ms"),
    ]);
    let login = |user: &str, password: &str| {
        let mut pop3 = Client::connect(demo.port(Port::Pop3));
        pop3.line();
        pop3.send(&format!("USER {user}"));
        pop3.line();
        pop3.send(&format!("PASS {password}"));
        pop3.line()
    };
    for _ in 0..2 {
        assert!(login("alice@demo.test", "guess").starts_with("-ERR [AUTH] "));
    }
    let line = login("alice@demo.test", "demo");
    assert!(line.starts_with("-ERR [SYS/TEMP] "), "{line}");
    assert!(login("bob@demo.test", "demo").starts_with("+OK"));
    let mut imap = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
    imap.line();
    imap.send("a LOGIN alice@demo.test demo");
    let line = imap.line();
    assert!(line.starts_with("a NO"), "{line}");
}

#[test]
fn too_many_messages_a_minute_get_450() {
    let demo = strict(&[("POSTHOUSE_LIMITS__MESSAGES_PER_MINUTE_MAX", "3")]);
    let mut smtp = Smtp::connect(&demo);
    for _ in 0..3 {
        let reply = smtp.deliver(SENDER, &["alice@demo.test"], &message(SENDER, "alice@demo.test", "quick"));
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let reply = smtp.command("MAIL FROM:<sender@example.org>");
    let reply = if reply.code == 250 { smtp.command("RCPT TO:<alice@demo.test>") } else { reply };
    assert!(reply.code == 450 || reply.code == 421, "{reply:?}");
}

#[test]
fn a_guesser_is_refused_unseen() {
    let demo =
        strict(&[("POSTHOUSE_LIMITS__FAILED_LOGINS_PER_HOUR_MAX", "3"), ("POSTHOUSE_AUTH__FAILURE_DELAY", "10ms")]);
    for _ in 0..4 {
        let mut imap = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
        imap.line();
        imap.send("a LOGIN alice@demo.test guess");
        let line = imap.line();
        assert!(line.starts_with("a NO"), "{line}");
    }
    let mut imap = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
    let greeting = imap.line();
    if !greeting.starts_with("* BYE") {
        imap.send("a LOGIN alice@demo.test demo");
        let line = imap.line();
        assert!(line.starts_with("a NO"), "the right password too: {line}");
    }
}

#[test]
fn a_size_beyond_the_limit_is_refused_at_mail_and_in_data() {
    let demo = strict(&[("POSTHOUSE_SMTP__MESSAGE_MAX", "64KiB")]);
    let mut smtp = Smtp::connect(&demo);
    assert!(smtp.capabilities.contains(&"SIZE 65536".to_owned()), "{:?}", smtp.capabilities);
    // RFC 1870 §6.1.
    smtp.expect("MAIL FROM:<sender@example.org> SIZE=65537", 552);
    let line = "x".repeat(78);
    let long = format!("{}{}", message(SENDER, "alice@demo.test", "long"), format!("{line}\n").repeat(1000));
    let reply = smtp.deliver(SENDER, &["alice@demo.test"], &long);
    assert_eq!(reply.code, 552, "{reply:?}");
    let reply = smtp.deliver(SENDER, &["alice@demo.test"], &message(SENDER, "alice@demo.test", "short"));
    assert_eq!(reply.code, 250, "the connection goes on: {reply:?}");
}

#[test]
fn too_many_recipients_get_452_and_the_rest_is_delivered() {
    let demo = strict(&[("POSTHOUSE_SMTP__RECIPIENTS_MAX", "2")]);
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    smtp.expect("RCPT TO:<alice@demo.test>", 250);
    smtp.expect("RCPT TO:<bob@demo.test>", 250);
    // RFC 5321 §4.5.3.1.10.
    smtp.expect("RCPT TO:<admin@demo.test>", 452);
    smtp.expect("DATA", 354);
    smtp.client.send("Subject: two\r\n\r\nx\r\n.");
    assert_eq!(smtp.reply().code, 250);
}

#[test]
fn unknown_commands_are_counted_and_end_the_connection() {
    let demo = strict(&[("POSTHOUSE_SMTP__ERRORS_MAX", "3")]);
    let mut smtp = Smtp::connect(&demo);
    let mut codes = Vec::new();
    for _ in 0..4 {
        let code = smtp.command("BLURDYBLOOP").code;
        codes.push(code);
        if code == 421 {
            break;
        }
    }
    assert_eq!(codes.last(), Some(&421), "{codes:?}");
    assert!(codes[..codes.len() - 1].iter().all(|code| *code == 500), "{codes:?}");
    assert!(smtp.client.is_closed());
}

#[test]
fn a_client_that_speaks_before_the_greeting_is_refused() {
    let demo = strict(&[("POSTHOUSE_SMTP__EARLY_TALKER_WAIT", "6s")]);
    let mut eager = Client::connect(demo.port(Port::Smtp));
    eager.send("EHLO eager.example.org");
    let line = eager.line();
    assert!(line.starts_with("554 ") || line.starts_with("421 "), "{line}");
    let mut patient = Client::connect(demo.port(Port::Smtp));
    let line = patient.line();
    assert!(line.starts_with("220 "), "{line}");
}

#[test]
fn an_idle_client_is_sent_away() {
    let demo = strict(&[
        ("POSTHOUSE_SMTP__COMMAND_TIMEOUT", "300ms"),
        ("POSTHOUSE_IMAP__LOGIN_TIMEOUT", "300ms"),
        ("POSTHOUSE_POP3__LOGIN_TIMEOUT", "300ms"),
    ]);
    let mut smtp = Client::connect(demo.port(Port::Smtp));
    smtp.line();
    let line = smtp.line();
    assert!(line.starts_with("421 "), "RFC 5321 §4.5.3.2: {line}");
    assert!(smtp.is_closed());
    let mut imap = Client::connect(demo.port(Port::Imap));
    imap.line();
    let line = imap.line();
    assert!(line.starts_with("* BYE"), "RFC 9051 §5.4: {line}");
    let mut pop3 = Client::connect(demo.port(Port::Pop3));
    pop3.line();
    // RFC 1939 §3: the server closes without a word to the maildrop.
    while pop3.try_line().is_some() {}
}

#[test]
fn long_lines_and_literals_are_refused_and_bounded() {
    let demo = strict(&[]);
    let mut smtp = Smtp::connect(&demo);
    smtp.client.send(&format!("NOOP {}", "x".repeat(100_000)));
    assert_eq!(smtp.reply().code, 500, "RFC 5321 §4.5.3.1.4");
    smtp.expect("NOOP", 250);
    let mut imap = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
    imap.line();
    imap.send("a LOGIN {999999999}");
    let line = imap.line();
    assert!(line.starts_with("a BAD") || line.starts_with("a NO") || line.starts_with("* BYE"), "{line}");
}
