//! Either end dies at each point: a session goes on in exactly one process, or it is closed and counted as lost.

use super::super::giver::Interrupted;
use super::*;

/// The last thing that a taker does before it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TakerLast {
    Greeted,
    ReadSessions,
    SentReceived,
    ReadCommit,
    SentStarted,
}

/// Does as a taker of batch 1 does, up to a point; gives back the sessions that it holds when it dies.
async fn take_until(last: TakerLast, mut link: Link) -> Vec<Parcel> {
    if last == TakerLast::Greeted {
        return Vec::new();
    }
    let heard = link.hear_up_to(batch::BODY_MAX, "test", LIMITS.answer).await;
    let Ok(Message::Sessions(batch)) = heard else { panic!("no sessions") };
    if last >= TakerLast::SentReceived {
        link.tell("test", &Outgoing::received(1, &[]), LIMITS.answer).await.expect("told");
    }
    if last >= TakerLast::ReadCommit {
        assert!(matches!(link.hear("test", LIMITS.answer).await, Ok(Message::Commit(1))));
    }
    if last == TakerLast::SentStarted {
        link.tell("test", &Outgoing::started(1), LIMITS.answer).await.expect("told");
    }
    batch.parcels
}

#[tokio::test]
async fn until_commit_a_dead_takers_batch_is_back_and_then_it_is_lost() {
    use TakerLast::*;
    for last in [Greeted, ReadSessions, SentReceived, ReadCommit, SentStarted] {
        let (mut giver, link) = giver_and_link().await;
        let (parcels, mut clients) = sessions(3);
        let (given, taken) = tokio::join!(giver.sessions(parcels), take_until(last, link));
        // The process is dead: nothing that it held is used, and the kernel closes all of it.
        drop(taken);
        let (moved, back, lost) = match given {
            Ok(moved) => (moved.moved.len(), Vec::new(), 0),
            Err(interrupted) => {
                let Interrupted { error, so_far, back, lost } = *interrupted;
                assert!(error.is_gone(), "{last:?}: {error}");
                (so_far.moved.len(), back, lost)
            }
        };
        let expected = match last {
            Greeted | ReadSessions | SentReceived => (0, 3, 0),
            ReadCommit => (0, 0, 3),
            SentStarted => (3, 0, 0),
        };
        assert_eq!((moved, back.len(), lost), expected, "{last:?}");
        assert!(giver.done().await.is_err(), "{last:?}: nobody is there");

        let is_back = !back.is_empty();
        back.into_iter().for_each(use_session);
        for (number, client) in clients.iter_mut().enumerate() {
            let words = if is_back { number.to_string() } else { String::new() };
            assert_eq!(heard(client), words, "{last:?}: the client hears one process, or the end");
        }
    }
}

#[tokio::test]
async fn a_taker_that_dies_in_a_later_batch_keeps_the_earlier_ones() {
    allow_files();
    let (mut giver, mut taker) = ends().await;
    let (parcels, mut clients) = sessions(450);
    let taking = async move {
        let parcels = taker.next_batch().await.expect("a batch").expect("sessions");
        let committed = taker.accept(&[]).await.expect("the giver's word");
        parcels.into_iter().for_each(use_session);
        taker.started(committed).await.expect("told");
        taker.next_batch().await.expect("a batch").expect("sessions").len()
    };
    let (given, second) = tokio::join!(giver.sessions(parcels), taking);
    let interrupted = *given.expect_err("the taker died");
    assert_eq!((second, interrupted.so_far.moved.len(), interrupted.back.len(), interrupted.lost), (200, 200, 250, 0));
    assert_eq!(numbers(&interrupted.back)[0], "200");
    interrupted.back.into_iter().for_each(use_session);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(heard(client), number.to_string());
    }
}

#[tokio::test]
async fn a_giver_that_dies_before_commit_leaves_sessions_that_nobody_uses() {
    for sends_sessions in [false, true] {
        let (mut link, mut taker) = link_and_taker().await;
        let (parcels, mut clients) = sessions(2);
        if sends_sessions {
            link.tell("test", &Outgoing::sessions(1, &parcels), LIMITS.answer).await.expect("told");
        }
        drop((link, parcels));
        if sends_sessions {
            let offered = taker.next_batch().await.expect("what the kernel still had").expect("sessions");
            assert_eq!(numbers(&offered), ["0", "1"]);
            assert!(taker.accept(&[]).await.expect_err("no word of the giver").is_gone());
        }
        assert!(taker.next_batch().await.expect_err("nobody is there").is_gone());
        assert_eq!((heard(&mut clients[0]), heard(&mut clients[1])), (String::new(), String::new()));
    }
}

#[tokio::test]
async fn a_giver_that_dies_after_commit_has_given() {
    let (mut link, mut taker) = link_and_taker().await;
    let (parcels, mut clients) = sessions(2);
    link.tell("test", &Outgoing::sessions(1, &parcels), LIMITS.answer).await.expect("told");
    let offered = taker.next_batch().await.expect("a batch").expect("sessions");
    let dying = async {
        assert!(matches!(link.hear("test", LIMITS.answer).await, Ok(Message::Received(_))));
        link.tell("test", &Outgoing::commit(1), LIMITS.answer).await.expect("told");
        drop((link, parcels));
    };
    let (committed, ()) = tokio::join!(taker.accept(&[]), dying);
    let committed = committed.expect("the giver's last word");
    offered.into_iter().for_each(use_session);
    assert!(taker.started(committed).await.is_err(), "nobody listens, and that changes nothing");
    assert_eq!((heard(&mut clients[0]), heard(&mut clients[1])), ("0".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn a_giver_that_dies_after_done_was_done() {
    let (mut link, mut taker) = link_and_taker().await;
    link.tell("test", &Outgoing::done(), LIMITS.answer).await.expect("told");
    drop(link);
    assert!(taker.next_batch().await.expect("the end").is_none());
}

#[tokio::test]
async fn the_commit_of_another_batch_starts_nothing() {
    let (mut link, mut taker) = link_and_taker().await;
    link.tell("test", &Outgoing::sessions(2, &[]), LIMITS.answer).await.expect("told");
    taker.next_batch().await.expect("a batch").expect("sessions");
    link.tell("test", &Outgoing::commit(1), LIMITS.answer).await.expect("told");
    let error = taker.accept(&[]).await.expect_err("another batch");
    assert!(matches!(error, HandoffError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_commit_cut_at_any_octet_starts_nothing() {
    let commit = octets_of(&Outgoing::commit(1));
    assert_eq!(octets_of(&Outgoing::sessions(1, &[]))[..2], [b'S', 0]);
    let whole = commit.len();
    for cut in 0..=whole {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("giver");
        let listener = UnixListener::bind(&path).expect("a socket");
        let said = [octets_of(&Outgoing::welcome(1, "old")), octets_of(&Outgoing::sessions(1, &[]))].concat();
        let commit = commit[..cut].to_vec();
        let dying = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the taker");
            stream.write_all(&said).expect("written");
            // HELLO and RECEIVED are read, or their loss would be an error before the cut.
            read_message(&mut stream, b'H');
            read_message(&mut stream, b'A');
            stream.write_all(&commit).expect("written");
        });
        let mut taker = Taker::connect(&path, Hello::of("new"), LIMITS).await.expect("a taker");
        taker.next_batch().await.expect("a batch").expect("sessions");
        let committed = taker.accept(&[]).await;
        dying.join().expect("no panic");
        assert_eq!(committed.is_ok(), cut == whole, "cut at {cut}");
    }
}
