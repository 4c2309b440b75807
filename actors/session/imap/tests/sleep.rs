//! Sessions that sleep, and clients that do not notice.

use std::time::Instant;

use posthouse_conf::Span;

use super::hops::{SCRIPT, three, told};
use super::*;
use crate::listener::fixture::{Guest, Inn};
use crate::session::Call;

/// A moment after which a session sleeps.
const BRIEF: Span = Span::ms(5);

async fn logged_in(inn: &Inn) -> Guest {
    let mut guest = inn.connect().await;
    guest.line().await;
    guest.send("a LOGIN alice pw\r\nb SELECT INBOX\r\n").await;
    guest.until("b OK").await;
    guest
}

async fn idling(inn: &Inn) -> Guest {
    let mut guest = logged_in(inn).await;
    guest.send("i IDLE\r\n").await;
    guest.until("+ ").await;
    guest
}

#[tokio::test]
async fn a_session_that_sleeps_between_any_two_octets_answers_as_if_it_stayed_awake() {
    let server = three().await;
    let awake = server.inn(Span::secs(0)).await;
    let mut guest = awake.connect().await;
    guest.send(SCRIPT).await;
    let expect = told(&guest.rest().await);
    assert!(expect.contains("\r\ne OK") && expect.ends_with("n OK logged out\r\n"), "{expect}");
    for cut in (0..SCRIPT.len() - 61).step_by(23) {
        let server = three().await;
        let inn = server.inn(BRIEF).await;
        let mut guest = inn.connect().await;
        let mut sent = 0;
        for end in [cut, cut + 7, cut + 60] {
            guest.send(&SCRIPT[sent..end]).await;
            inn.asleep(1).await;
            sent = end;
        }
        guest.send(&SCRIPT[sent..]).await;
        assert_eq!(told(&guest.rest().await), expect, "cut at {cut}");
    }
}

#[tokio::test]
async fn in_idle_each_change_wakes_and_is_told_and_the_session_sleeps_on() {
    let server = Server::start().await;
    let mut other = open(&server, &[]).await;
    // Only its client's silence counts: after the first time it sleeps whenever there is nothing to tell.
    let inn = server.inn(Span::ms(50)).await;
    let (mut guest, mut second) = (idling(&inn).await, idling(&inn).await);
    for count in 1..=3 {
        inn.asleep(2).await;
        other.append("INBOX", "", MESSAGE).await;
        for guest in [&mut guest, &mut second] {
            assert_eq!(guest.line().await, format!("* {count} EXISTS"));
        }
    }
    inn.asleep(2).await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    guest.until("* 1 FETCH").await;
    drop(second);
    inn.asleep(1).await;
    other.ok("EXPUNGE").await;
    assert_eq!(guest.line().await, "* 1 EXPUNGE");
    inn.asleep(1).await;
    guest.send("DO").await;
    inn.asleep(1).await;
    guest.send("NE\r\nc NOOP\r\n").await;
    assert_eq!(guest.until("c OK").await, ["i OK idle no more", "c OK done"]);
}

#[tokio::test]
async fn changes_while_it_falls_asleep_are_not_lost() {
    let server = Server::start().await;
    let mut other = open(&server, &[MESSAGE]).await;
    let inn = server.inn(Span::ms(1)).await;
    let mut guest = idling(&inn).await;
    // As fast as they come, whatever the session is at: the last one is always told.
    for _ in 0..40 {
        other.append("INBOX", "", MESSAGE).await;
        other.ok("STORE 2:* +FLAGS.SILENT (\\Deleted)").await;
        other.ok("EXPUNGE").await;
    }
    other.append("INBOX", "", MESSAGE).await;
    inn.asleep(1).await;
    other.ok("STORE 1 FLAGS (\\Flagged)").await;
    let last = guest.until("* 1 FETCH").await;
    assert!(last.last().is_some_and(|line| line.contains("\\Flagged")), "{last:?}");
}

/// A session at the end of its time is told so, no earlier than when it would have been awake.
async fn check_autologout(begin: impl AsyncFn(&Inn) -> Guest) {
    let server = Server::with(|settings| {
        settings.imap.idle_timeout = Span::secs(4);
        settings.imap.login_timeout = Span::secs(4);
    });
    let server = server.await;
    let inn = server.inn(BRIEF).await;
    let began = Instant::now();
    let mut guest = begin(&inn).await;
    inn.asleep(1).await;
    assert_eq!(guest.rest().await, "* BYE idle for too long\r\n");
    assert!(began.elapsed() >= Duration::from_millis(3999), "{:?}", began.elapsed());
    inn.asleep(0).await;
    while inn.lodging.guests() > 0 || inn.admission.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn autologout_comes_in_time_between_commands_in_idle_and_before_the_login() {
    check_autologout(logged_in).await;
    check_autologout(idling).await;
    check_autologout(silent).await;
}

/// The session after so many minutes of sleep.
async fn after_minutes(begin: impl AsyncFn(&Inn) -> Guest, minutes: u64) -> (Server, Inn, Guest) {
    let server = Server::start().await;
    let inn = server.inn(BRIEF).await;
    let guest = begin(&inn).await;
    inn.asleep(1).await;
    inn.switch.set(Call::Move);
    inn.switch.vacated().await;
    let (_, mut parked) = inn.switch.take_parked().pop().expect("a session");
    parked.note_sleep(Duration::from_secs(minutes * 60), true);
    let inn = server.inn(BRIEF).await;
    inn.arrive(parked);
    (server, inn, guest)
}

async fn silent(inn: &Inn) -> Guest {
    let mut guest = inn.connect().await;
    guest.line().await;
    guest
}

#[tokio::test]
async fn time_slept_is_time_passed() {
    let over = "* BYE idle for too long\r\n";
    assert_eq!(after_minutes(logged_in, 30).await.2.rest().await, over);
    assert_eq!(after_minutes(idling, 30).await.2.rest().await, over);
    assert_eq!(after_minutes(silent, 3).await.2.rest().await, over);
    for (begin, minutes, say, hear) in
        [(0, 29, "c NOOP\r\n", "c OK"), (1, 29, "DONE\r\n", "i OK"), (2, 2, "c LOGIN alice pw\r\n", "c OK")]
    {
        let (_server, inn, mut guest) = match begin {
            0 => after_minutes(logged_in, minutes).await,
            1 => after_minutes(idling, minutes).await,
            _ => after_minutes(silent, minutes).await,
        };
        inn.asleep(1).await;
        guest.send(say).await;
        guest.until(hear).await;
    }
}

#[tokio::test]
async fn a_node_that_leaves_wakes_it_for_the_farewell() {
    let server = Server::start().await;
    let inn = server.inn(BRIEF).await;
    let mut guests = [logged_in(&inn).await, idling(&inn).await];
    inn.asleep(2).await;
    inn.switch.set(Call::Leave);
    for guest in &mut guests {
        assert_eq!(guest.rest().await, "* BYE [UNAVAILABLE] the server is going down, please come back\r\n");
    }
    inn.switch.vacated().await;
    inn.ended().await;
}

#[tokio::test]
async fn it_moves_as_it_is_and_sleeps_on_in_the_next_process() {
    let server = Server::start().await;
    let mut other = open(&server, &[MESSAGE]).await;
    let mut inn = server.inn(BRIEF).await;
    let mut guests = [idling(&inn).await, logged_in(&inn).await];
    for count in [2, 4] {
        inn.asleep(2).await;
        inn.switch.set(Call::Move);
        inn.switch.vacated().await;
        let parked: Vec<_> = inn.switch.take_parked().into_iter().map(|(_, parked)| parked).collect();
        assert_eq!((parked.len(), inn.admission.connections_open()), (2, 0));
        inn.ended().await;
        // What happens while nobody has them is told as soon as somebody does.
        other.append("INBOX", "", MESSAGE).await;
        inn = server.inn(BRIEF).await;
        parked.into_iter().for_each(|parked| inn.arrive(parked));
        assert_eq!(guests[0].line().await, format!("* {count} EXISTS"));
        inn.asleep(2).await;
        other.append("INBOX", "", MESSAGE).await;
        assert_eq!(guests[0].line().await, format!("* {} EXISTS", count + 1));
    }
    guests[1].send("c NOOP\r\n").await;
    assert_eq!(guests[1].until("c OK").await, ["* 5 EXISTS", "c OK done"]);
}

#[tokio::test]
async fn what_cannot_move_does_not_sleep() {
    let server = Server::start().await;
    let inn = server.inn(BRIEF).await;
    let mut login = inn.connect().await;
    login.send("a AUTHENTICATE PLAIN\r\n").await;
    login.until("+ ").await;
    let mut literal = logged_in(&inn).await;
    literal.send("c APPEND INBOX {10}\r\n").await;
    literal.until("+ ").await;
    let mut reads_nothing = logged_in(&inn).await;
    let body = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(100_000);
    reads_nothing.send(&format!("c APPEND INBOX {{{}}}\r\n", body.len())).await;
    reads_nothing.until("+ ").await;
    reads_nothing.send(&format!("{body}\r\nd FETCH 1:* BODY.PEEK[]\r\n")).await;
    reads_nothing.until("* 1 FETCH").await;
    // This one has waited less long than each of them when it sleeps, and it is the only one.
    let mut last = logged_in(&inn).await;
    inn.asleep(1).await;
    last.send("c NOOP\r\n").await;
    last.until("c OK").await;
    inn.asleep(1).await;
    login.send("AGFsaWNlAHB3\r\n").await;
    login.until("a OK").await;
    literal.send("0123456789\r\n").await;
    literal.until("c OK").await;
    inn.asleep(3).await;
    reads_nothing.until("d OK").await;
    inn.asleep(4).await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_sleeps_is_noticed() {
    let server = Server::start().await;
    let inn = server.inn(BRIEF).await;
    let (gone, reset) = (idling(&inn).await, logged_in(&inn).await);
    inn.asleep(2).await;
    assert_eq!(inn.admission.connections_open(), 2);
    drop(gone);
    reset.reset();
    while inn.admission.connections_open() > 0 || inn.lodging.guests() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((inn.lodging.asleep(), inn.switch.sessions()), (0, 0));
}
