//! Dialogues over a real socket, with a desk that plays the node and a store that is real.

mod fixture;
mod hops;
mod sleep;

use std::time::Duration;

use posthouse_conf::{Settings, Size, Span};
use posthouse_mail::{Action, Flag, Reply, SpecialUse};
use posthouse_storage::message::Target;

use crate::session::smtp::SmtpSession;
use crate::session::smtp::node_desk::NodeDesk;
use crate::session::{Protocol, Session};
use fixture::{ALICE, BOB, Fixture, LOGIN};

const HELLO: [(&str, &str); 3] =
    [("EHLO c.test", "250"), ("MAIL FROM:<s@far.test>", "250 2.1.0"), ("RCPT TO:<alice@x.test>", "250 2.1.5")];

#[tokio::test]
async fn one_local_recipient_goes_straight_to_its_mailbox() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354"), ("Subject: hi\r\n\r\n..dot\r\n.", "250 2.0.0 accepted as i")]).await;
    let delivered = fixture.desk.delivered();
    assert_eq!(delivered.len(), 1);
    let (account, append) = &delivered[0];
    assert_eq!((*account, append.target), (ALICE, Target::Role(SpecialUse::Inbox)));
    let prefix = String::from_utf8(append.prefix.to_vec()).expect("ASCII");
    let mut fields = prefix.lines().filter(|line| !line.starts_with('\t'));
    assert_eq!(fields.next(), Some("Return-Path: <s@far.test>"), "RFC 5321 §4.4");
    assert_eq!(fields.next(), Some("Authentication-Results: fake"));
    assert_eq!(fields.next(), Some("Received: from c.test ([127.0.0.1])"));
    assert!(prefix.contains("for <alice@x.test>;") && prefix.contains("with ESMTP\r\n"));
    let root = append.structure.root.as_ref().expect("a structure");
    assert_eq!(root.body_start, (append.prefix.len() + "Subject: hi\r\n\r\n".len()) as u64);
    assert_eq!(fixture.body(append.body.body()).await, "Subject: hi\r\n\r\n.dot\r\n");
    assert!(fixture.desk.spooled().is_empty());
}

#[tokio::test]
async fn rfc8601_5_results_in_our_name_are_taken_out() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    let data = "Authentication-Results: mx.x.test; spf=pass\r\nSubject: hi\r\n\r\nhi\r\n.";
    fixture.check(&[("DATA", "354"), (data, "250")]).await;
    let body = fixture.body(fixture.desk.delivered()[0].1.body.body()).await;
    assert_eq!(body, "Subject: hi\r\n\r\nhi\r\n");
}

#[tokio::test]
async fn several_recipients_go_to_the_spool_and_none_is_named_to_the_others() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("RCPT TO:<Postmaster>", "250"), ("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    let spooled = fixture.desk.spooled();
    assert_eq!(spooled[0].0.received.envelope.recipients.len(), 2);
    assert!(!String::from_utf8_lossy(&spooled[0].0.added_headers).contains("for <"), "RFC 5321 §7.2");
    assert!(fixture.desk.delivered().is_empty());
}

#[tokio::test]
async fn an_alias_goes_to_the_spool() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO[..2]).await;
    fixture.check(&[("RCPT TO:<team@x.test>", "250"), ("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    assert_eq!(fixture.desk.spooled().len(), 1);
}

#[tokio::test]
async fn rfc3461_4_1_a_recipient_that_asks_for_a_report_of_success_goes_to_the_spool() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO[..2]).await;
    let rcpt = ("RCPT TO:<alice@x.test> NOTIFY=SUCCESS", "250");
    fixture.check(&[rcpt, ("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    assert!(fixture.desk.spooled()[0].0.received.envelope.recipients[0].notify.success);
}

#[tokio::test]
async fn rfc5321_3_6_2_mail_for_others_is_not_relayed() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO[..2]).await;
    fixture
        .check(&[
            ("RCPT TO:<b@far.test>", "550 5.7.1"),
            ("RCPT TO:<a%far.test@far.test>", "550 5.7.1"),
            ("RCPT TO:<@x.test:b@far.test>", "550 5.7.1"),
            ("RCPT TO:<nobody@x.test>", "550 5.1.1"),
            ("RCPT TO:<full@x.test>", "452 4.2.2"),
            ("DATA", "554 5.5.1"),
        ])
        .await;
}

#[tokio::test]
async fn a_declared_size_that_never_fits_is_refused_at_the_recipient() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO[..1]).await;
    fixture.check(&[("MAIL FROM:<> SIZE=1001", "250"), ("RCPT TO:<bob@x.test>", "552 5.2.2"), HELLO[2]]).await;
}

#[tokio::test]
async fn the_filters_verdict_is_obeyed() {
    let own = Reply::new(550, (5, 7, 1), "no thanks");
    for (action, reply, expect) in [
        (Action::Reject, Some(own.clone()), "550 5.7.1 no thanks"),
        (Action::Reject, None, "550 5.7.1"),
        (Action::Defer, None, "451 4.7.1"),
        (Action::Discard, None, "250 2.0.0"),
        (Action::Junk, None, "250 2.0.0"),
        (Action::Quarantine, None, "250 2.0.0"),
    ] {
        let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
        fixture.desk.judge(action, reply);
        fixture.greet().await;
        fixture.check(&HELLO).await;
        fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", expect), ("NOOP", "250")]).await;
        let roles: Vec<_> = fixture.desk.delivered().iter().map(|(_, append)| append.target).collect();
        let expect = matches!(action, Action::Junk | Action::Quarantine).then_some(Target::Role(SpecialUse::Junk));
        assert_eq!(roles, expect.into_iter().collect::<Vec<_>>(), "{action:?}");
    }
}

#[tokio::test]
async fn without_a_commit_there_is_no_250() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.desk.fail_storing();
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "451 4.3.0")]).await;
    fixture.check(&HELLO[1..]).await;
    fixture.check(&[("RCPT TO:<bob@x.test>", "250"), ("DATA", "354"), ("\r\nhi\r\n.", "451 4.3.0")]).await;
}

#[tokio::test]
async fn limits_of_data_refuse_the_message_and_the_dialogue_goes_on() {
    let tight = |settings: &mut Settings| {
        settings.smtp.message_max = Size::bytes(300);
        settings.smtp.text_line_max = Size::bytes(100);
        settings.smtp.header_max = Size::bytes(150);
        settings.smtp.header_fields_max = 5;
        settings.smtp.received_max = 2;
    };
    let mut fixture = Fixture::new(Protocol::Smtp, tight).await;
    fixture.greet().await;
    fixture.check(&HELLO[..1]).await;
    let (line, wide) = ("x".repeat(90), "x".repeat(99));
    for (data, expect) in [
        (format!("\r\n{}.", format!("{line}\r\n").repeat(4)), "552 5.3.4"),
        (format!("\r\n{wide}\r\n."), "554 5.6.0"),
        (format!("a: {line}\r\nb: {line}\r\n\r\n."), "552 5.3.4"),
        (format!("{}\r\n.", "a: b\r\n".repeat(6)), "554 5.6.0"),
        (format!("{}\r\n.", "Received: b\r\n".repeat(3)), "554 5.4.6"),
        ("\r\nbare\nline\r\n.".to_owned(), "550 5.6.11"),
        ("\r\nhi\r\n.".to_owned(), "250 2.0.0"),
    ] {
        fixture.check(&HELLO[1..]).await;
        fixture.check(&[("DATA", "354"), (data.as_str(), expect)]).await;
    }
    fixture.check(&[("MAIL FROM:<a@x.test> SIZE=301", "552 5.3.4"), ("QUIT", "221")]).await;
    assert_eq!(fixture.desk.delivered().len(), 1);
    fixture.is_closed().await;
}

#[tokio::test]
async fn limits_of_commands_have_their_replies() {
    let tight = |settings: &mut Settings| {
        settings.smtp.recipients_max = 1;
        settings.smtp.command_line_max = Size::bytes(60);
        settings.smtp.errors_max = 3;
    };
    let mut fixture = Fixture::new(Protocol::Smtp, tight).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    let long = format!("NOOP {}", "x".repeat(100_000));
    fixture
        .check(&[
            ("RCPT TO:<bob@x.test>", "452 4.5.3"),
            (long.as_str(), "500 5.5.6"),
            ("FOO", "500 5.5.1"),
            ("NOOP\0", "500 5.5.2"),
            ("FOO", "421 4.7.0"),
        ])
        .await;
    fixture.is_closed().await;
}

#[tokio::test]
async fn too_many_messages_on_a_connection_or_from_an_address() {
    let mut fixture = Fixture::new(Protocol::Smtp, |settings| settings.smtp.messages_per_connection_max = 1).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "250"), ("MAIL FROM:<>", "421 4.7.0")]).await;
    fixture.is_closed().await;
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.desk.refuse_messages();
    fixture.greet().await;
    fixture.check(&[("EHLO c", "250"), ("MAIL FROM:<s@far.test>", "450 4.7.1"), ("NOOP", "250")]).await;
}

#[tokio::test]
async fn rfc2920_3_2_pipelined_commands_are_answered_in_order() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture
        .send("EHLO c\r\nMAIL FROM:<s@far.test>\r\nRCPT TO:<alice@x.test>\r\nRCPT TO:<nobody@x.test>\r\nDATA\r\n")
        .await;
    for expect in ["250", "250 2.1.0", "250 2.1.5", "550 5.1.1", "354"] {
        fixture.expect(expect).await;
    }
    fixture.send("\r\nhi\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n").await;
    for expect in ["250 2.0.0", "250 2.1.0", "221"] {
        fixture.expect(expect).await;
    }
    fixture.is_closed().await;
}

#[tokio::test]
async fn what_looks_like_an_end_of_data_hides_no_command() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture
        .check(&[("DATA", "354"), ("\r\na\n.\nMAIL FROM:<evil@far.test>\r\nRCPT TO:<bob@x.test>\r\n.", "550 5.6.11")])
        .await;
    fixture.check(&[("NOOP", "250 2.0.0")]).await;
    assert!(fixture.desk.delivered().is_empty());
}

#[tokio::test]
async fn rfc5321_4_3_1_an_early_talker_is_refused_unless_exempt() {
    let wait = |settings: &mut Settings| settings.smtp.early_talker_wait = Span::secs(30);
    let mut fixture = Fixture::new(Protocol::Smtp, wait).await;
    fixture.send("EHLO c\r\n").await;
    fixture.expect("554 5.5.1").await;
    fixture.is_closed().await;
    let mut fixture = Fixture::exempt(Protocol::Smtp, wait).await;
    fixture.send("EHLO c\r\n").await;
    fixture.expect("220").await;
    fixture.expect("250").await;
}

#[tokio::test]
async fn a_silent_client_hears_421() {
    let brief = |settings: &mut Settings| settings.smtp.command_timeout = Span::ms(30);
    let mut fixture = Fixture::new(Protocol::Smtp, brief).await;
    fixture.greet().await;
    fixture.expect("421 4.4.2").await;
    fixture.is_closed().await;
    let mut fixture = Fixture::new(Protocol::Smtp, |settings| settings.smtp.data_timeout = Span::ms(30)).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354"), ("\r\nhalf a mess", "421 4.4.2")]).await;
    fixture.is_closed().await;
}

#[tokio::test]
async fn a_command_that_trickles_in_ends_with_421() {
    let mut fixture = Fixture::new(Protocol::Smtp, |settings| settings.smtp.command_timeout = Span::ms(300)).await;
    fixture.greet().await;
    fixture.trickle(b'N', Duration::from_millis(20)).await;
    fixture.expect("421 4.4.2").await;
    fixture.is_closed().await;
}

#[tokio::test]
async fn a_transaction_ends_at_its_deadline_however_busy_the_client_is() {
    let mut fixture = Fixture::new(Protocol::Smtp, |settings| settings.smtp.transaction_timeout = Span::ms(40)).await;
    fixture.greet().await;
    fixture.begin_at_once().await;
    fixture.expect("421 4.4.2").await;
    fixture.is_closed().await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_data_leaves_nothing() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354")]).await;
    fixture.send(&"half a message\r\n".repeat(20_000)).await;
    fixture.vanish().await;
    assert!(fixture.desk.delivered().is_empty() && fixture.desk.spooled().is_empty());
}

#[tokio::test]
async fn a_draining_node_says_farewell_between_messages_only() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.drain();
    fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "250 2.0.0")]).await;
    fixture.expect("421 4.3.2").await;
    fixture.is_closed().await;
    assert_eq!(fixture.desk.delivered().len(), 1);
}

#[tokio::test]
async fn rfc3207_4_2_what_was_sent_ahead_of_tls_is_dropped() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("RSET", "250")]).await;
    fixture.send("STARTTLS\r\nMAIL FROM:<evil@far.test>\r\n").await;
    fixture.expect("220 2.0.0").await;
    fixture.start_tls().await;
    fixture.check(&[("RCPT TO:<alice@x.test>", "503 5.5.1"), ("MAIL FROM:<s@far.test>", "503 5.5.1")]).await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    let prefix = String::from_utf8_lossy(&fixture.desk.delivered()[0].1.prefix).into_owned();
    assert!(prefix.contains("with ESMTPS\r\n\t(TLSv1.3 TLS_"), "{prefix}");
}

#[tokio::test]
async fn submission_completes_signs_and_spools() {
    let mut fixture = Fixture::new(Protocol::Submissions, |_| {}).await;
    fixture.greet().await;
    fixture
        .check(&[("EHLO c", "250"), LOGIN, ("MAIL FROM:<alice@x.test>", "250"), ("RCPT TO:<b@far.test>", "250")])
        .await;
    fixture.check(&[("DATA", "354"), ("From: alice@x.test\r\nBcc: c@far.test\r\n\r\nhi\r\n.", "250 2.0.0")]).await;
    let submitted = fixture.desk.submitted();
    let (message, body) = &submitted[0];
    assert_eq!(message.submitted.sender, ALICE);
    let added = String::from_utf8_lossy(&message.added_headers).into_owned();
    assert!(added.starts_with("DKIM-Signature: fake\r\nReceived: from c ([127.0.0.1])\r\n"), "{added}");
    assert!(added.contains("with ESMTPSA") && !added.contains("for <"));
    let body = fixture.body(body.body).await;
    assert!(body.starts_with("Date: ") && body.contains("\r\nMessage-ID: <i"), "RFC 6409 §8: {body}");
    assert!(body.ends_with("\r\nFrom: alice@x.test\r\n\r\nhi\r\n"), "blind copies stay blind: {body}");
}

#[tokio::test]
async fn a_copy_goes_to_sent_where_the_site_wants_it() {
    let mut fixture = Fixture::new(Protocol::Submissions, |settings| settings.submission.sent_copy = true).await;
    fixture.greet().await;
    fixture
        .check(&[("EHLO c", "250"), LOGIN, ("MAIL FROM:<alice@x.test>", "250"), ("RCPT TO:<b@far.test>", "250")])
        .await;
    fixture.check(&[("DATA", "354"), ("Subject: hi\r\n\r\nhi\r\n.", "250 2.0.0")]).await;
    let (account, copy) = fixture.desk.delivered().remove(0);
    assert_eq!((account, copy.target), (ALICE, Target::Role(SpecialUse::Sent)));
    assert!(copy.flags.contains(&Flag::Seen) && copy.prefix.starts_with(b"DKIM-Signature"));
    assert_eq!(fixture.desk.submitted().len(), 1);
}

#[tokio::test]
async fn rfc6409_6_1_nobody_submits_in_anothers_name() {
    let mut fixture = Fixture::new(Protocol::Submissions, |_| {}).await;
    fixture.greet().await;
    fixture.check(&[("EHLO c", "250"), LOGIN, ("MAIL FROM:<bob@x.test>", "550 5.7.1")]).await;
    let start = [("MAIL FROM:<alice@x.test>", "250"), ("RCPT TO:<b@far.test>", "250"), ("DATA", "354")];
    for (data, expect) in [
        ("From: bob@x.test\r\n\r\n.", "550 5.7.1"),
        ("From: alice@x.test, bob@x.test\r\n\r\n.", "550 5.7.1"),
        ("From: alice@x.test, bob@x.test\r\nSender: alice@x.test\r\n\r\n.", "250"),
        ("From: alice@x.test\r\nSender: bob@x.test\r\n\r\n.", "550 5.7.1"),
        ("From: alice@x.test\r\nFrom: bob@x.test\r\n\r\n.", "554 5.6.0"),
        ("From: nobody\r\n\r\n.", "554 5.6.0"),
        ("Subject: no author\r\n\r\n.", "250"),
        ("no header at all\r\n.", "250"),
    ] {
        fixture.check(&start).await;
        fixture.check(&[(data, expect)]).await;
    }
    fixture.check(&[("MAIL FROM:<>", "250"), ("RCPT TO:<nobody@x.test>", "550 5.1.1")]).await;
}

#[tokio::test]
async fn submission_without_tls_or_login_is_refused() {
    let mut fixture = Fixture::new(Protocol::Submission, |_| {}).await;
    fixture.greet().await;
    fixture
        .check(&[("EHLO c", "250"), LOGIN_REFUSED, ("MAIL FROM:<alice@x.test>", "530 5.7.0"), ("STARTTLS", "220")])
        .await;
    fixture.start_tls().await;
    fixture.check(&[("EHLO c", "250"), ("MAIL FROM:<alice@x.test>", "530 5.7.0")]).await;
    fixture.check(&[("AUTH PLAIN AGFsaWNlAHdyb25n", "535 5.7.8"), LOGIN, ("MAIL FROM:<alice@x.test>", "250")]).await;
}

const LOGIN_REFUSED: (&str, &str) = (LOGIN.0, "538 5.7.11");

#[tokio::test]
async fn an_account_over_its_rate_hears_450() {
    let mut fixture = Fixture::new(Protocol::Submissions, |_| {}).await;
    fixture.desk.refuse_messages();
    fixture.greet().await;
    fixture.check(&[("EHLO c", "250"), LOGIN, ("MAIL FROM:<alice@x.test>", "450 4.7.1")]).await;
}

#[tokio::test]
async fn a_large_message_streams_to_the_store() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354")]).await;
    let line = format!("{}\r\n", "x".repeat(998));
    fixture.send(&format!("\r\n{}.\r\n", line.repeat(8_000))).await;
    fixture.expect("250 2.0.0").await;
    assert_eq!(fixture.desk.delivered()[0].1.body.body().size, 2 + 8_000_000);
}

/// Thousands of sessions wait at once: what one holds is this future and, while it says something, one block.
#[test]
fn a_waiting_session_is_small() {
    fn size_of_run<S: Session, F: Future>(_: impl FnOnce(S) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_run(|session: SmtpSession<NodeDesk>| session.run());
    assert!(size < 4 * 1024, "{size} octets");
}
