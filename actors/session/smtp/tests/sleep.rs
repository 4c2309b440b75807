//! Sessions that sleep, and clients that do not notice.

use std::time::{Duration, Instant};

use posthouse_net::{LineStream, Transport};

use super::*;
use crate::listener::fixture::{Guest, Inn};
use crate::session::Call;
use crate::session::call::TURNS;

/// A moment after which a session sleeps.
const BRIEF: Span = Span::ms(5);
const SOON: Duration = Duration::from_secs(60);

async fn inn(protocol: Protocol, change: impl FnOnce(&mut Settings)) -> (Inn, Fixture) {
    let fixture = Fixture::new(protocol, |settings| {
        settings.node.sleep_after = BRIEF;
        change(settings);
    });
    let fixture = fixture.await;
    (fixture.inn().await, fixture)
}

/// A client that has been greeted.
async fn greeted(inn: &Inn) -> Guest {
    let mut guest = inn.connect().await;
    assert!(guest.line().await.starts_with("220"));
    guest
}

const SCRIPT: &str = "EHLO c.test\r\nMAIL FROM:<s@far.test> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=e1\r\n\
    RCPT TO:<alice@x.test> NOTIFY=SUCCESS ORCPT=rfc822;a@x.test\r\nRCPT TO:<nobody@x.test>\r\nXX\r\n\
    NOOP\r\nDATA\r\n";
const REST: &str = "Subject: hi\r\n\r\nhi\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n";

/// The replies, without the id of a message, which is another each time.
fn told(heard: &str) -> Vec<String> {
    heard.lines().map(|line| line.split(" accepted as").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_session_that_sleeps_between_any_two_octets_answers_as_if_it_stayed_awake() {
    let (awake, _fixture) = inn(Protocol::Smtp, |settings| settings.node.sleep_after = Span::secs(0)).await;
    let mut guest = greeted(&awake).await;
    guest.send(SCRIPT).await;
    let mut expect = guest.until("354").await;
    guest.send(REST).await;
    expect.extend(told(&guest.rest().await));
    assert!(expect.last().is_some_and(|reply| reply.starts_with("221")), "{expect:?}");
    let (inn, fixture) = inn(Protocol::Smtp, |_| {}).await;
    for cut in (0..SCRIPT.len() - 51).step_by(17) {
        let mut guest = greeted(&inn).await;
        let mut sent = 0;
        for end in [cut, cut + 9, cut + 50] {
            guest.send(&SCRIPT[sent..end]).await;
            inn.asleep(1).await;
            sent = end;
        }
        guest.send(&SCRIPT[sent..]).await;
        let mut heard = guest.until("354").await;
        guest.send(REST).await;
        heard.extend(told(&guest.rest().await));
        assert_eq!(heard, expect, "cut at {cut}");
    }
    let spooled = fixture.desk.spooled();
    let envelope = &spooled.last().expect("a message").0.received.envelope;
    assert_eq!(envelope.envelope_id.as_deref(), Some("e1"));
}

#[tokio::test]
async fn under_tls_a_login_and_a_transaction_sleep_and_go_on() {
    let (inn, fixture) = inn(Protocol::Submissions, |_| {}).await;
    let plain = Transport::plain(inn.connect().await.into_inner()).expect("a transport");
    let secure = posthouse_net::tls::Connector::opportunistic().connect(plain, "localhost", SOON).await.expect("TLS");
    let mut client = LineStream::new(secure, 1 << 20);
    let mut answer = async |line: &str| {
        client.write_all(line.as_bytes(), SOON).await.expect("a write");
        loop {
            client.fill(tokio::time::Instant::now() + SOON).await.expect("a reply");
            let text = String::from_utf8_lossy(client.input()).into_owned();
            // Each of these replies comes at once.
            if text.lines().last().is_some_and(|last| last.as_bytes().get(3) == Some(&b' ')) && text.ends_with("\r\n") {
                client.consume(text.len());
                return text;
            }
        }
    };
    assert!(answer("").await.starts_with("220"));
    for (line, expect) in [
        ("EHLO c\r\n", "250"),
        ("AUTH PLAIN AGFsaWNlAGRlbW8=\r\n", "235"),
        ("MAIL FROM:<alice@x.test>\r\n", "250"),
        ("RCPT TO:<b@far.test>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("Subject: hi\r\n\r\nhi\r\n.\r\n", "250"),
        ("QUIT\r\n", "221"),
    ] {
        if line != "Subject: hi\r\n\r\nhi\r\n.\r\n" {
            inn.asleep(1).await;
        }
        let reply = answer(line).await;
        assert!(reply.starts_with(expect), "{line}: {reply}");
    }
    let added = String::from_utf8_lossy(&fixture.desk.submitted()[0].0.added_headers).into_owned();
    assert!(added.contains("with ESMTPSA\r\n\t(TLSv1.3 TLS_"), "{added}");
}

#[tokio::test]
async fn time_outs_are_told_as_if_it_were_awake() {
    let (commands, _fixture) = inn(Protocol::Smtp, |settings| settings.smtp.command_timeout = Span::secs(4)).await;
    let began = Instant::now();
    let mut idle = greeted(&commands).await;
    commands.asleep(1).await;
    assert!(idle.rest().await.starts_with("421 4.4.2"));
    assert!(began.elapsed() >= Duration::from_millis(3999), "{:?}", began.elapsed());
    // The command's own limit is far off here.
    let (transactions, _fixture) =
        inn(Protocol::Smtp, |settings| settings.smtp.transaction_timeout = Span::secs(4)).await;
    let mut sending = greeted(&transactions).await;
    sending.send("EHLO c\r\nMAIL FROM:<s@far.test>\r\n").await;
    sending.until("250 2.1.0").await;
    transactions.asleep(1).await;
    assert!(sending.rest().await.starts_with("421 4.4.2"));
}

#[tokio::test]
async fn a_node_that_leaves_waits_for_a_transaction_and_tells_the_others() {
    let (inn, _fixture) = inn(Protocol::Smtp, |_| {}).await;
    let (mut idle, mut sending) = (greeted(&inn).await, greeted(&inn).await);
    sending.send("EHLO c\r\nMAIL FROM:<s@far.test>\r\nRCPT TO:<alice@x.test>\r\n").await;
    sending.until("250 2.1.5").await;
    inn.asleep(2).await;
    inn.switch.set(Call::Leave);
    assert!(idle.rest().await.starts_with("421 4.3.2"));
    sending.send("DATA\r\n").await;
    sending.until("354").await;
    sending.send("Subject: hi\r\n\r\nhi\r\n.\r\n").await;
    sending.until("250").await;
    assert!(sending.rest().await.starts_with("421 4.3.2"));
    inn.switch.vacated().await;
    inn.ended().await;
}

#[tokio::test]
async fn a_node_that_drains_wakes_its_sleepers_in_turns() {
    let (inn, _fixture) = inn(Protocol::Smtp, |_| {}).await;
    let mut guests = Vec::new();
    for _ in 0..40 {
        guests.push(greeted(&inn).await);
    }
    inn.asleep(40).await;
    inn.switch.advance(Call::Drain(0));
    for turn in 1..=TURNS {
        inn.switch.advance(Call::Drain(turn));
        inn.asleep(40 - 2 * usize::from(turn)).await;
    }
    for guest in &mut guests {
        assert!(guest.rest().await.starts_with("421 4.3.2"));
    }
    inn.switch.advance(Call::Leave);
    inn.ended().await;
}

#[tokio::test]
async fn time_slept_is_time_passed() {
    for (seconds, heard) in [(240, "250 2.0.0"), (300, "421 4.4.2")] {
        let (first, _fixture) = inn(Protocol::Smtp, |_| {}).await;
        let mut guest = greeted(&first).await;
        first.asleep(1).await;
        first.switch.set(Call::Move);
        first.switch.vacated().await;
        let (_, mut parked) = first.switch.take_parked().pop().expect("a session");
        parked.note_sleep(Duration::from_secs(seconds), true);
        let (second, _fixture) = inn(Protocol::Smtp, |_| {}).await;
        second.arrive(parked);
        if seconds == 240 {
            guest.send("NOOP\r\n").await;
        }
        assert!(guest.line().await.starts_with(heard), "{seconds}");
    }
}

#[tokio::test]
async fn it_moves_as_it_is() {
    let (first, _fixture) = inn(Protocol::Smtp, |_| {}).await;
    let mut guest = greeted(&first).await;
    guest.send("EHLO c\r\nMAIL FROM:<s@far.test>\r\nRCPT TO:<alice@x.test>\r\nDA").await;
    guest.until("250 2.1.5").await;
    first.asleep(1).await;
    first.switch.set(Call::Move);
    first.switch.vacated().await;
    let (_, parked) = first.switch.take_parked().pop().expect("a session");
    let (second, fixture) = inn(Protocol::Smtp, |_| {}).await;
    second.arrive(parked);
    second.asleep(1).await;
    guest.send("TA\r\n").await;
    guest.until("354").await;
    guest.send("Subject: hi\r\n\r\nhi\r\n.\r\n").await;
    guest.until("250").await;
    assert_eq!(fixture.desk.delivered().len(), 1);
}
