//! The other end lives and says nothing: each wait ends at its limit, and what comes too late meets a closed connection.

use super::*;

/// Whether an error is a wait that ended at its limit.
fn is_timeout(error: &HandoffError) -> bool {
    matches!(error, HandoffError::Link { source: NetError::ReadTimeout, .. })
}

#[tokio::test(start_paused = true)]
async fn a_giver_waits_for_each_answer_until_its_limit() {
    let nobody = Giver::invite(place().invitation, Hello::of("old"), LIMITS).await;
    assert!(is_timeout(&nobody.err().expect("nobody came")));

    let place = place();
    let (silent, _link) = tokio::join!(Giver::invite(place.invitation, Hello::of("old"), LIMITS), connect(&place.path));
    assert!(is_timeout(&silent.err().expect("nobody greeted")));

    let (mut giver, _link) = giver_and_link().await;
    assert!(is_timeout(&giver.doors(&[]).await.expect_err("no answer")));
    assert!(giver.store_is_free().await.expect_err("closed").is_gone());
    let (mut giver, _link) = giver_and_link().await;
    assert!(is_timeout(&giver.store_is_free().await.expect_err("no answer")));
    let (giver, _link) = giver_and_link().await;
    assert!(is_timeout(&giver.done().await.expect_err("no answer")));
}

#[tokio::test(start_paused = true)]
async fn a_taker_waits_for_each_step_until_its_limit() {
    let place = place();
    let silent = Taker::connect(&place.path, Hello::of("new"), LIMITS).await;
    assert!(is_timeout(&silent.err().expect("nobody greeted")));

    let (_link, mut taker) = link_and_taker().await;
    assert!(is_timeout(&taker.doors().await.expect_err("no listeners")));
    let (_link, mut taker) = link_and_taker().await;
    assert!(is_timeout(&taker.store_is_free().await.expect_err("no store")));
    let (_link, mut taker) = link_and_taker().await;
    assert!(is_timeout(&taker.next_batch().await.expect_err("no sessions")));
}

#[tokio::test(start_paused = true)]
async fn a_taker_that_says_nothing_to_a_batch_has_not_got_it() {
    let (mut giver, mut link) = giver_and_link().await;
    let (parcels, _clients) = sessions(2);
    let interrupted = giver.sessions(parcels).await.expect_err("no answer");
    assert!(is_timeout(&interrupted.error), "{interrupted:?}");
    assert_eq!((interrupted.back.len(), interrupted.lost), (2, 0));

    // It wakes and says yes: the giver no longer listens, and no COMMIT can come.
    let heard = link.hear_up_to(batch::BODY_MAX, "test", LIMITS.answer).await;
    assert!(matches!(heard, Ok(Message::Sessions(_))));
    let late = link.tell("test", &Outgoing::received(1, &[]), LIMITS.answer).await;
    assert!(late.expect_err("closed").is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_taker_that_says_nothing_after_commit_has_what_it_was_given() {
    let (mut giver, mut link) = giver_and_link().await;
    let (parcels, _clients) = sessions(2);
    let stalling = async {
        let heard = link.hear_up_to(batch::BODY_MAX, "test", LIMITS.answer).await;
        link.tell("test", &Outgoing::received(1, &[]), LIMITS.answer).await.expect("told");
        heard
    };
    let (given, _heard) = tokio::join!(giver.sessions(parcels), stalling);
    let interrupted = given.expect_err("no word that they started");
    assert!(is_timeout(&interrupted.error), "{interrupted:?}");
    assert_eq!((interrupted.back.len(), interrupted.lost), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_giver_that_says_nothing_before_commit_has_the_batch_back() {
    let (mut link, mut taker) = link_and_taker().await;
    let (parcels, _clients) = sessions(1);
    link.tell("test", &Outgoing::sessions(1, &parcels), LIMITS.answer).await.expect("told");
    taker.next_batch().await.expect("a batch").expect("sessions");
    assert!(is_timeout(&taker.accept(&[]).await.expect_err("no word of the giver")));

    // It wakes and says COMMIT: no octet of it goes out, so it knows that the sessions are its own.
    let unsent = link.try_tell(&Outgoing::commit(1), LIMITS.answer).await.expect_err("closed");
    assert!(!unsent.is_begun, "{unsent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_reads_is_back() {
    let (mut giver, _link) = giver_and_link().await;
    let (mut parcels, _clients) = sessions(2);
    for parcel in &mut parcels {
        parcel.state = Zeroizing::new(vec![7; 1_000_000]);
    }
    let interrupted = giver.sessions(parcels).await.expect_err("nobody reads");
    let is_write_timeout = matches!(interrupted.error, HandoffError::Link { source: NetError::WriteTimeout, .. });
    assert!(is_write_timeout, "{interrupted:?}");
    assert_eq!((interrupted.back.len(), interrupted.lost), (2, 0));
}
