//! A session that goes from process to process, and a client that does not notice.

use futures_util::FutureExt as _;

use super::*;
use crate::session::Call;

const ENVELOPE: &str = "EHLO c.test\r\nMAIL FROM:<s@far.test> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=e1\r\n\
    RCPT TO:<alice@x.test> NOTIFY=SUCCESS ORCPT=rfc822;a@x.test\r\nRCPT TO:<nobody@x.test>\r\nXX\r\n\
    RCPT TO:<Postmaster>\r\nNOOP\r\nDATA";
const MESSAGE: &str = "\r\nSubject: hi\r\n\r\nhi\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n";

#[tokio::test]
async fn a_session_that_hops_three_times_answers_as_if_it_stayed() {
    let mut stays = Fixture::new(Protocol::Smtp, |_| {}).await;
    stays.greet().await;
    stays.send(ENVELOPE).await;
    stays.send(MESSAGE).await;
    let expect = told(&stays.rest().await);
    assert!(expect.iter().any(|reply| reply.starts_with("354")), "{expect:?}");
    assert!(expect.last().is_some_and(|reply| reply.starts_with("221")), "{expect:?}");
    for cut in (0..ENVELOPE.len()).step_by(13) {
        let mut moves = Fixture::new(Protocol::Smtp, |_| {}).await;
        moves.greet().await;
        let mut sent = 0;
        for cut in [cut, cut + 9, cut + 50] {
            let end = cut.min(ENVELOPE.len());
            moves.send(&ENVELOPE[sent..end]).await;
            sent = end;
            // Sometimes the session has read all of it by then, sometimes nothing.
            for _ in 0..cut % 7 {
                tokio::task::yield_now().await;
            }
            moves.hop().await;
        }
        moves.send(&ENVELOPE[sent..]).await;
        moves.send(MESSAGE).await;
        assert_eq!(told(&moves.rest().await), expect, "cut at {cut}");
        let spooled = moves.desk.spooled();
        let envelope = &spooled[0].0.received.envelope;
        let told: Vec<_> = envelope.recipients.iter().map(|recipient| recipient.path.to_string()).collect();
        assert_eq!(told, ["alice@x.test", "Postmaster"]);
        let original = envelope.recipients[0].original.as_ref().map(|original| original.address.as_str());
        assert_eq!((envelope.envelope_id.as_deref(), original), (Some("e1"), Some("a@x.test")));
        assert!(envelope.recipients[0].notify.success && !envelope.recipients[0].notify.failure);
        assert_eq!(spooled[0].0.received.origin.hello, "c.test");
    }
}

/// The replies, without the id of a message, which is another each time.
fn told(heard: &str) -> Vec<String> {
    let told = heard.lines().map(|line| line.split(" accepted as").next().unwrap_or_default().to_owned());
    told.collect()
}

#[tokio::test]
async fn a_recipient_is_looked_up_once_and_by_the_next_process_again() {
    for (hops, asked) in [(false, 1), (true, 2)] {
        let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
        fixture.greet().await;
        fixture.check(&HELLO).await;
        if hops {
            fixture.hop().await;
        }
        fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
        assert_eq!((fixture.desk.delivered()[0].0, fixture.desk.routes_asked()), (ALICE, asked));
    }
}

#[tokio::test]
async fn a_look_up_counts_for_its_own_transaction_only() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("RSET", "250"), HELLO[1], ("RCPT TO:<bob@x.test>", "250")]).await;
    fixture.check(&[("RCPT TO:<nobody@x.test>", "550"), ("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    fixture.check(&[HELLO[1], HELLO[2], ("RCPT TO:<bob@x.test>", "250"), ("DATA", "354")]).await;
    fixture.check(&[("\r\nhi\r\n.", "250")]).await;
    let delivered: Vec<_> = fixture.desk.delivered().iter().map(|(account, _)| *account).collect();
    assert_eq!((delivered, fixture.desk.spooled().len()), (vec![BOB], 1));
}

#[tokio::test]
async fn a_login_and_its_tls_go_along() {
    let mut fixture = Fixture::new(Protocol::Submissions, |_| {}).await;
    fixture.hop().await;
    fixture.greet().await;
    for (line, expect) in
        [("EHLO c", "250"), LOGIN, ("MAIL FROM:<alice@x.test>", "250"), ("RCPT TO:<b@far.test>", "250")]
    {
        fixture.check(&[(line, expect)]).await;
        fixture.hop().await;
    }
    fixture.check(&[("DATA", "354"), ("\r\nhi\r\n.", "250")]).await;
    fixture.hop().await;
    fixture.check(&[("MAIL FROM:<bob@x.test>", "550 5.7.1"), ("QUIT", "221")]).await;
    let added = String::from_utf8_lossy(&fixture.desk.submitted()[0].0.added_headers).into_owned();
    assert!(added.contains("with ESMTPSA\r\n\t(TLSv1.3 TLS_"), "{added}");
}

#[tokio::test]
async fn under_hold_data_is_not_begun_and_begins_when_served_again() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.switch.set(Call::Hold);
    fixture.check(&HELLO).await;
    fixture.send("NOOP\r\nDATA\r\n").await;
    fixture.expect("250").await;
    fixture.switch.idle().await;
    fixture.switch.set(Call::Serve);
    fixture.expect("354").await;
    // Now it runs, and is waited for.
    fixture.switch.set(Call::Hold);
    assert!(fixture.switch.idle().now_or_never().is_none());
    fixture.check(&[("\r\nhi\r\n.", "250")]).await;
    fixture.switch.idle().await;
    fixture.check(&HELLO[1..]).await;
    fixture.send("NOOP\r\nDATA\r\n").await;
    fixture.expect("250").await;
    // What was held back begins in the next process.
    fixture.hop().await;
    fixture.expect("354").await;
    fixture.check(&[("\r\nhi\r\n.", "250")]).await;
    assert_eq!(fixture.desk.delivered().len(), 2);
}

#[tokio::test]
async fn data_under_way_is_finished_before_the_session_moves() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO).await;
    fixture.check(&[("DATA", "354")]).await;
    fixture.send("\r\nhalf a mess").await;
    fixture.switch.set(Call::Move);
    fixture.send("age\r\n.\r\nNOOP\r\n").await;
    fixture.arrive().await;
    fixture.expect("250 2.0.0 accepted").await;
    fixture.expect("250 2.0.0").await;
    assert_eq!(fixture.desk.delivered().len(), 1);
}

#[tokio::test]
async fn a_handshake_is_not_begun_under_hold_and_begins_after_the_hop() {
    let mut fixture = Fixture::new(Protocol::Smtp, |_| {}).await;
    fixture.greet().await;
    fixture.check(&HELLO[..1]).await;
    fixture.switch.set(Call::Hold);
    fixture.send("NOOP\r\nSTARTTLS\r\n").await;
    fixture.expect("250").await;
    fixture.hop().await;
    fixture.expect("220 2.0.0").await;
    fixture.start_tls().await;
    fixture.hop().await;
    fixture.check(&HELLO).await;
    let mut fixture = Fixture::begin(Protocol::Submissions, |_| {}, false).await;
    fixture.hop().await;
    fixture.hop().await;
    fixture.start_tls().await;
    fixture.greet().await;
}

#[tokio::test]
async fn the_silence_before_the_greeting_goes_along() {
    let wait = |settings: &mut Settings| settings.smtp.early_talker_wait = Span::secs(30);
    let mut fixture = Fixture::new(Protocol::Smtp, wait).await;
    fixture.hop().await;
    fixture.send("EHLO c\r\n").await;
    fixture.expect("554 5.5.1").await;
    fixture.is_closed().await;
    // Who is exempt is asked anew.
    let exempt = |settings: &mut Settings| {
        wait(settings);
        settings.limits.exempt = vec!["127.0.0.0/8".to_owned()];
    };
    let mut fixture = Fixture::new(Protocol::Smtp, exempt).await;
    fixture.hop().await;
    fixture.greet().await;
}

#[tokio::test]
async fn a_transactions_deadline_goes_along() {
    let mut fixture = Fixture::new(Protocol::Smtp, |settings| settings.smtp.transaction_timeout = Span::secs(4)).await;
    fixture.greet().await;
    fixture.begin_at_once().await;
    fixture.hop().await;
    fixture.hop().await;
    fixture.expect("421 4.4.2").await;
    fixture.is_closed().await;
}
