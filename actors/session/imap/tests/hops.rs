//! A session that goes from process to process, and a client that does not notice.

use futures_util::FutureExt as _;

use super::harness::Journey;
use super::*;
use crate::session::{Call, Protocol};

pub(super) const SCRIPT: &str = "a LOGIN alice pw\r\nb SELECT INBOX\r\nc FETCH 1:* (UID FLAGS BODY[HEADER.FIELDS (Subject)])\r\n\
    d STORE 1 +FLAGS (\\Deleted $Work)\r\ne UID FETCH 1:* BODY[]\r\nf SEARCH ALL\r\ng EXPUNGE\r\nh IDLE\r\nDONE\r\n\
    i FETCH 1:2 FLAGS\r\nj LIST \"\" *\r\nk FROB\r\nl EXAMINE INBOX\r\nm FETCH 3 FLAGS\r\nn LOGOUT\r\n";

/// A server whose INBOX holds three messages.
pub(super) async fn three() -> Server {
    let server = Server::with(|settings| settings.imap.io_buffer = Size::bytes(50)).await;
    open(&server, &[MESSAGE, MESSAGE, MESSAGE]).await;
    server
}

/// What was heard, without the one number that is another for each mailbox.
pub(super) fn told(heard: &str) -> String {
    let mut told = String::new();
    for piece in heard.split_inclusive("UIDVALIDITY ") {
        told.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    told
}

#[tokio::test]
async fn a_session_that_hops_three_times_answers_as_if_it_stayed() {
    let server = three().await;
    let mut stays = server.journey(Protocol::Imap).await;
    stays.client.send(SCRIPT).await;
    let expect = told(&stays.rest().await);
    assert!(expect.contains("\r\ne OK") && expect.ends_with("n OK logged out\r\n"), "{expect}");
    for cut in (0..SCRIPT.len()).step_by(11) {
        let server = three().await;
        let mut moves = server.journey(Protocol::Imap).await;
        let mut sent = 0;
        for cut in [cut, cut + 7, cut + 60] {
            let end = cut.min(SCRIPT.len());
            moves.client.send(&SCRIPT[sent..end]).await;
            sent = end;
            // Sometimes the session has read all of it by then, sometimes nothing.
            for _ in 0..cut % 7 {
                tokio::task::yield_now().await;
            }
            if !moves.hop().await {
                break;
            }
        }
        moves.client.send(&SCRIPT[sent..]).await;
        assert_eq!(told(&moves.rest().await), expect, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_large_fetch_moves_in_the_middle_while_its_client_does_not_read() {
    let server = Server::start().await;
    let mut other = server.logged_in().await;
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n";
    let message = format!("Subject: big\r\n\r\n{}", line.repeat(70_000));
    other.append("INBOX", "", &message).await;
    other.ok("SELECT INBOX").await;
    for _ in 0..3 {
        other.ok("COPY 1 INBOX").await;
    }
    let mut journey = server.journey(Protocol::Imap).await;
    journey.client.line().await;
    journey.client.ok("LOGIN alice pw").await;
    journey.client.ok("SELECT INBOX").await;
    journey.client.send("f UID FETCH 1:* BODY[]\r\ng NO").await;
    let mut heard = journey.client.octets(100).await;
    for count in [0, 1, 2_000_000] {
        assert!(journey.hop().await, "the answer is under way");
        heard.extend(journey.client.octets(count).await);
    }
    // It goes before its turn, and the client hears of it as if the session had stayed.
    other.ok("UID STORE 4 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    assert!(journey.hop().await, "the answer is under way");
    journey.client.send("OP\r\nh LOGOUT\r\n").await;
    heard.extend(journey.rest().await.into_bytes());
    let one =
        |uid: u32| format!("* {uid} FETCH (UID {uid} BODY[] {{{}}}\r\n{message} FLAGS (\\Seen))\r\n", message.len());
    let expect = [one(1), one(2), one(3), "* 4 EXPUNGE\r\nf OK [EXPUNGEISSUED] fetched\r\ng OK done\r\n".to_owned()];
    let heard = String::from_utf8(heard).expect("text");
    assert!(heard.starts_with(&expect.concat()), "octet for octet: {:?}", heard.get(heard.len() - 300..));
}

#[tokio::test]
async fn in_idle_the_news_of_the_way_are_told_and_those_after_it() {
    let server = Server::start().await;
    let mut other = open(&server, &[]).await;
    let mut journey = server.journey(Protocol::Imap).await;
    journey.client.line().await;
    journey.client.ok("LOGIN alice pw").await;
    journey.client.ok("SELECT INBOX").await;
    journey.client.send("i IDLE\r\n").await;
    assert!(journey.client.line().await.starts_with("+ "));
    for count in [1, 3, 5] {
        journey.switch.set(Call::Move);
        let parked = journey.parked().await.expect("a session");
        other.append("INBOX", "", MESSAGE).await;
        journey.arrive(parked);
        assert_eq!(journey.client.line().await, format!("* {count} EXISTS"));
        other.append("INBOX", "", MESSAGE).await;
        assert_eq!(journey.client.line().await, format!("* {} EXISTS", count + 1));
    }
    other.ok("NOOP").await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert_eq!(journey.client.line().await, "* 1 FETCH (UID 1 FLAGS (\\Deleted))");
    journey.switch.set(Call::Move);
    let parked = journey.parked().await.expect("a session");
    other.ok("EXPUNGE").await;
    journey.arrive(parked);
    assert_eq!(journey.client.line().await, "* 1 EXPUNGE");
    journey.client.send("DO").await;
    journey.hop().await;
    journey.client.send("NE\r\n").await;
    assert_eq!(journey.client.line().await, "i OK idle no more");
}

async fn logged_in(server: &Server) -> Journey {
    let mut journey = server.journey(Protocol::Imap).await;
    journey.client.line().await;
    journey.client.ok("LOGIN alice pw").await;
    journey
}

#[tokio::test]
async fn under_hold_no_literal_is_asked_for_until_the_session_is_served_again() {
    let server = Server::start().await;
    let mut journey = logged_in(&server).await;
    for hops in [false, true] {
        journey.switch.set(Call::Hold);
        journey.client.send("a NOOP\r\nb APPEND INBOX (\\Seen) {3}\r\n").await;
        assert_eq!(journey.client.line().await, "a OK done");
        journey.switch.idle().await;
        if hops {
            assert!(journey.hop().await);
        } else {
            journey.switch.set(Call::Serve);
        }
        assert!(journey.client.line().await.starts_with("+ "));
        // Now it runs, and is waited for.
        journey.switch.set(Call::Hold);
        assert!(journey.switch.idle().now_or_never().is_none());
        journey.client.send("abc\r\n").await;
        assert!(journey.client.line().await.starts_with("b OK [APPENDUID "));
        journey.switch.idle().await;
        journey.switch.set(Call::Serve);
    }
    // A name that is a literal itself cannot be asked for twice: this one waits where it is.
    journey.client.send("c APPEND {5}\r\n").await;
    assert!(journey.client.line().await.starts_with("+ "));
    journey.switch.set(Call::Hold);
    journey.client.send("INBOX {3}\r\n").await;
    journey.switch.set(Call::Serve);
    assert!(journey.client.line().await.starts_with("+ "));
    journey.switch.set(Call::Move);
    journey.client.send("abc\r\nd NOOP\r\n").await;
    assert!(journey.hop().await);
    assert!(journey.client.line().await.starts_with("c OK [APPENDUID "));
    assert_eq!(journey.client.line().await, "d OK done");
}

#[tokio::test]
async fn a_handshake_is_not_begun_under_hold() {
    let server = Server::start().await;
    let mut journey = server.journey(Protocol::Imaps).await;
    assert!(journey.hop().await && journey.hop().await, "before the handshake");
    let mut journey = server.journey(Protocol::Imap).await;
    journey.client.line().await;
    journey.switch.set(Call::Hold);
    journey.client.send("a NOOP\r\nb STARTTLS\r\n").await;
    assert_eq!(journey.client.line().await, "a OK done");
    assert!(journey.hop().await);
    assert_eq!(journey.client.line().await, "b OK begin TLS now");
    assert!(journey.switch.idle().now_or_never().is_none(), "the handshake runs");
}

#[tokio::test]
async fn authenticate_is_finished_first() {
    let server = Server::start().await;
    let mut journey = server.journey(Protocol::Imap).await;
    journey.client.line().await;
    journey.client.send("a AUTHENTICATE PLAIN\r\n").await;
    assert_eq!(journey.client.line().await, "+ ");
    journey.switch.set(Call::Move);
    journey.client.send("AGFsaWNlAHB3\r\n").await;
    assert!(journey.hop().await);
    assert!(journey.client.line().await.starts_with("a OK "));
    journey.client.ok("SELECT INBOX").await;
}

#[tokio::test]
async fn a_large_answer_of_another_kind_goes_along_unsent() {
    let server = Server::with(|settings| settings.imap.line_max = Size::mib(4)).await;
    let mut other = server.logged_in().await;
    for number in 0..40 {
        other.ok(&format!("CREATE Folder{number}")).await;
    }
    let mut journey = logged_in(&server).await;
    let lists = "x LIST \"\" *\r\n".repeat(9_000);
    journey.client.send(&format!("{lists}y NOOP\r\n")).await;
    let one = other.ok("LIST \"\" *").await;
    let length: usize = one[..one.len() - 1].iter().map(|line| line.len() + 2).sum::<usize>() + "x OK listed\r\n".len();
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.extend(journey.client.octets(3 * length + 5).await);
        assert!(journey.hop().await);
    }
    heard.extend(journey.client.octets(9_000 * length - heard.len()).await);
    let answer = one[..one.len() - 1].iter().map(|line| format!("{line}\r\n")).collect::<String>() + "x OK listed\r\n";
    assert!(heard == answer.repeat(9_000).into_bytes(), "octet for octet");
    assert_eq!(journey.client.line().await, "y OK done");
}
