//! What is damaged is found and named; what was cut short does no harm; a wrong key opens nothing.

use std::time::Duration;

use bytes::Bytes;
use posthouse_mail::secret::Secret;

use super::{Elsewhere, Kind, Rig, in_every_place, seen};
use crate::backup::lock::{Lock, now_millis};
use crate::backup::record::LockObject;
use crate::backup::target::HEADERS;
use crate::backup::{Access, Target, prune, run, verify};
use crate::error::Error;
use crate::fixture::ALICE;

in_every_place! {
    every_damaged_or_missing_object_is_found
    a_backup_opens_without_either_of_its_headers
    a_damaged_pack_is_written_anew_by_the_next_run
    what_was_found_damaged_is_written_anew
    a_run_that_was_cut_short_leaves_what_was_there_and_its_packs_are_used
    a_lock_holds_until_it_has_been_silent_for_long
    a_lock_is_taken_over_only_as_it_was_seen
    a_holder_whose_clock_is_wrong_keeps_its_lock
    an_encrypted_backup_opens_with_its_key_only
    a_place_with_something_else_is_no_target
}

async fn every_damaged_or_missing_object_is_found(rig: Rig) {
    rig.fill().await;
    rig.take().await;
    let target = rig.target().await;
    assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole());
    let objects: Vec<_> = rig.names().await.into_iter().collect();
    assert!(objects.len() >= 6, "{objects:?}");
    for name in objects {
        let whole = rig.octets(&name).await;
        let mut wrong = whole.clone();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 0x10;
        for damage in [wrong, whole[..whole.len() - 1].to_vec()] {
            rig.lay(&name, &damage).await;
            let verified = verify(&target, &mut |_| {}).await.unwrap();
            assert!(!verified.is_whole(), "{name}");
        }
        rig.place().delete(&name).await.unwrap();
        let is_point = name.starts_with("points/");
        assert_eq!(verify(&target, &mut |_| {}).await.unwrap().is_whole(), is_point, "{name}");
        rig.lay(&name, &whole).await;
    }
    assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole());
}

async fn a_backup_opens_without_either_of_its_headers(rig: Rig) {
    let access = Access { secret: Some(Secret::new("correct horse".to_owned())), ..rig.access() };
    let open = async || Target::open_in(rig.place(), &access, &rig.settings).await;
    rig.fixture.fill(1).await;
    run(&rig.fixture.store, &rig.target_for(&access).await.unwrap(), "h", &mut |_| {}).await.unwrap();
    let whole = rig.octets(HEADERS[0]).await;
    for name in HEADERS {
        assert_eq!(rig.octets(name).await, whole);
        for damage in [None, Some(&whole[..whole.len() - 1]), Some(&[0; 5000][..])] {
            match damage {
                Some(octets) => rig.lay(name, octets).await,
                None => rig.place().delete(name).await.unwrap(),
            }
            let target = open().await.unwrap();
            let verified = verify(&target, &mut |_| {}).await.unwrap();
            assert!(verified.findings.len() == 1 && verified.findings[0].contains(name), "{:?}", verified.findings);
            // The next run mends it.
            assert!(run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap().is_whole());
            assert_eq!(rig.octets(name).await, whole);
        }
    }
    for name in HEADERS {
        rig.lay(name, b"nothing").await;
    }
    assert!(matches!(open().await.err(), Some(Error::BackupDamaged(_))));
}

#[tokio::test]
async fn a_place_that_can_only_be_read_is_verified_all_the_same() {
    let rig = Rig::of(Kind::Memory).await;
    rig.fill().await;
    rig.take().await;
    let hurt: Vec<String> = rig.names().await.into_iter().filter(|name| name.starts_with("packs/")).collect();
    let octets = rig.octets(&hurt[0]).await;
    let mut wrong = octets.clone();
    wrong[100] ^= 1;
    rig.lay(&hurt[0], &wrong).await;
    let target = rig.target().await;
    rig.memory.reads_only.store(true, std::sync::atomic::Ordering::SeqCst);
    let verified = verify(&target, &mut |_| {}).await.unwrap();
    assert!(verified.findings.iter().any(|finding| finding.contains(&hurt[0])), "{:?}", verified.findings);
    assert!(verified.findings.iter().any(|finding| finding.contains("marked")), "{:?}", verified.findings);
    assert!(verified.accounts > 0, "it went on to the end");
}

async fn a_damaged_pack_is_written_anew_by_the_next_run(rig: Rig) {
    rig.fill().await;
    rig.take().await;
    let pack = rig.names().await.into_iter().find(|name| name.starts_with("packs/")).unwrap();
    let octets = rig.octets(&pack).await;
    rig.lay(&pack, &octets[..octets.len() / 2]).await;
    let again = rig.take().await;
    assert_eq!(again.bodies, 7);
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&rig.target().await, None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
}

async fn what_was_found_damaged_is_written_anew(rig: Rig) {
    rig.fill().await;
    rig.take().await;
    for name in rig.names().await {
        if name.starts_with("rows/") || name.starts_with("packs/") {
            let mut octets = rig.octets(&name).await;
            octets[30] ^= 1;
            rig.lay(&name, &octets).await;
        }
    }
    // What a damaged object named is found by the run that writes it anew, and mended by the next.
    let mut runs = 0;
    loop {
        let target = rig.target().await;
        runs += 1;
        if run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap().is_whole() {
            break;
        }
        assert!(runs < 4);
    }
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&rig.target().await, None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
    let target = rig.target().await;
    prune(&target, 1, &mut |_| {}).await.unwrap();
    assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole());
}

async fn a_run_that_was_cut_short_leaves_what_was_there_and_its_packs_are_used(mut rig: Rig) {
    rig.settings.pack_max = posthouse_conf::Size::kib(1);
    rig.fill().await;
    let first = rig.take().await;
    for _ in 0..600 {
        let item = rig.fixture.message(crate::message::Target::Role(posthouse_mail::SpecialUse::Inbox), 1500).await;
        rig.fixture.append(&item).await.unwrap();
    }
    // The first page of bodies is written when the first step is told.
    let (cut, mut is_cut) = tokio::sync::mpsc::channel(64);
    let mut progress = |_: &crate::backup::Step| {
        let _ = cut.try_send(());
    };
    let target = rig.target().await;
    tokio::select! {
        biased;
        _ = is_cut.recv() => {}
        done = run(&rig.fixture.store, &target, "h", &mut progress) => panic!("not cut: {done:?}"),
    }
    assert_eq!(target.points().await.unwrap().len(), 1);
    assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole());
    // The run that was dropped gives its lock back.
    while rig.names().await.iter().any(|name| name == "lock") {
        tokio::task::yield_now().await;
    }
    let second = rig.take().await;
    assert!(second.bodies < 400, "{} bodies were written again", second.bodies);
    assert_ne!(first.point, second.point);
    let target = rig.target().await;
    prune(&target, 1, &mut |_| {}).await.unwrap();
    assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole());
}

async fn a_lock_holds_until_it_has_been_silent_for_long(mut rig: Rig) {
    let held = Lock::take(&rig.target().await).await.unwrap();
    // However impatient the other one is: the holder renews by its own settings.
    rig.settings.lock_ttl = posthouse_conf::Span::ms(0);
    let target = rig.target().await;
    let refused = run(&rig.fixture.store, &target, "h", &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    held.release().await.unwrap();
    let held = Lock::take(&target).await.unwrap();
    rig.take().await;
    assert!(matches!(held.release().await, Err(Error::Refused(_))), "it is another's");
}

async fn a_lock_is_taken_over_only_as_it_was_seen(rig: Rig) {
    let place = rig.place();
    rig.lay("lock", b"silent").await;
    let silent = Bytes::from_static(b"silent");
    assert_eq!(place.replace("lock", &silent, "one".into()).await, Ok(true));
    assert_eq!(place.replace("lock", &silent, "other".into()).await, Ok(false));
    assert_eq!(rig.octets("lock").await, b"one");
    place.delete("lock").await.unwrap();
    assert_eq!(place.replace("lock", &silent, "third".into()).await, Ok(false));
    assert_eq!(place.put_new("lock", "third".into()).await, Ok(true));
    assert_eq!(place.remove_if(("lock", 9), |found| found != "third").await, Ok(false));
    assert_eq!(place.remove_if(("lock", 4), |_| true).await, Ok(false), "too long to be one");
    assert_eq!(place.remove_if(("lock", 9), |found| found == "third").await, Ok(true));
    assert_eq!(place.remove_if(("lock", 9), |_| true).await, Ok(false));
    let left: Vec<String> = rig.names().await.into_iter().filter(|name| name.starts_with("unfinished")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_takes_a_silent_lock_over() {
    for kind in [Kind::Folder, Kind::Memory] {
        let rig = Rig::of(kind).await;
        for _ in 0..50 {
            rig.lay("lock", b"silent").await;
            let mut takers = tokio::task::JoinSet::new();
            for number in 0..4 {
                let place = rig.place();
                let silent = Bytes::from_static(b"silent");
                takers.spawn(async move { place.replace("lock", &silent, format!("{number}").into()).await.unwrap() });
            }
            let won = takers.join_all().await.into_iter().filter(|won| *won).count();
            assert_eq!(won, 1, "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_others_try_to_take_is_never_seen_gone() {
    let rig = Rig::new().await;
    rig.lay("lock", b"held").await;
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let place = rig.place();
        takers.spawn(async move {
            for _ in 0..50 {
                assert_eq!(place.replace("lock", &"silent".into(), "other".into()).await, Ok(false));
            }
        });
    }
    while takers.try_join_next().is_none() {
        assert_eq!(rig.place().get("lock", 100).await.unwrap(), Some("held".into()));
    }
    takers.join_all().await;
    assert_eq!(rig.names().await, ["lock"]);
}

#[tokio::test]
async fn a_target_whose_making_was_cut_short_is_made_by_the_next() {
    let rig = Rig::new().await;
    for left in ["unfinished/alone", "unfinished/00ff"] {
        rig.lay(left, b"").await;
    }
    rig.fill().await;
    rig.take().await;
    assert!(!rig.names().await.iter().any(|name| name.starts_with("unfinished")));
}

/// The wall clocks of two machines need not agree: how old a lock is, is told by the clock of the place.
async fn a_holder_whose_clock_is_wrong_keeps_its_lock(rig: Rig) {
    let target = rig.target().await;
    // As a release before this one writes it: it does not say how long it lives.
    for renewed_at in [0, 1, now_millis() / 2, u64::MAX] {
        let other = LockObject { holder: "other".to_owned(), renewed_at, ttl: 0 };
        rig.lay("lock", &prost::Message::encode_to_vec(&other)).await;
        let refused = Lock::take(&target).await.err();
        assert!(matches!(refused, Some(Error::Refused(_))), "{renewed_at}: {refused:?}");
    }
    // Nor is one that is still empty, as it was made this moment.
    rig.lay("lock", b"").await;
    assert!(matches!(Lock::take(&target).await.err(), Some(Error::Refused(_))));
}

#[tokio::test]
async fn a_silent_holder_whose_clock_is_ahead_loses_its_lock() {
    let rig = Rig::new().await;
    let target = rig.target().await;
    let other = LockObject { holder: "other".to_owned(), renewed_at: u64::MAX, ttl: 1000 };
    rig.lay("lock", &prost::Message::encode_to_vec(&other)).await;
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let lock = std::fs::File::options().write(true).open(rig.dir.path().join("backup/lock")).unwrap();
    lock.set_modified(long_ago).unwrap();
    Lock::take(&target).await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_folder_appears_with_all_of_its_content() {
    let rig = Rig::new().await;
    let content = vec![7; 100_000];
    for number in 0..50 {
        let name = format!("a{number}");
        let path = rig.dir.path().join("backup").join(&name);
        let looked = std::thread::spawn(move || {
            loop {
                if let Ok(octets) = std::fs::read(&path) {
                    return octets.len();
                }
            }
        });
        assert_eq!(rig.place().put_new(&name, content.clone().into()).await, Ok(true));
        assert_eq!(looked.join().unwrap(), content.len());
    }
}

#[tokio::test]
async fn the_lock_is_held_while_a_run_is_read_back() {
    let mut rig = Rig::new().await;
    rig.settings.lock_ttl = posthouse_conf::Span::ms(0);
    rig.fill().await;
    let lock = rig.dir.path().join("backup/lock");
    let (mut begun, mut is_read) = (false, false);
    let mut take_away = |step: &crate::backup::Step| {
        if step.phase == crate::backup::Phase::Verify {
            if !begun {
                std::fs::remove_file(&lock).unwrap();
            }
            begun = true;
            is_read = step.done == step.total;
        }
    };
    let ended = run(&rig.fixture.store, &rig.target().await, "h", &mut take_away).await;
    assert!(matches!(ended, Err(Error::Refused(_))), "{ended:?}");
    assert!(begun && !is_read, "nobody asked for the lock while the packs were read");
}

#[tokio::test]
async fn a_run_whose_lock_was_taken_away_makes_no_point() {
    let mut rig = Rig::new().await;
    rig.settings.lock_ttl = posthouse_conf::Span::ms(0);
    rig.fill().await;
    // Nothing is new for the second one.
    rig.take().await;
    let lock = rig.dir.path().join("backup/lock");
    let mut take_away = |step: &crate::backup::Step| {
        if step.phase == crate::backup::Phase::Accounts && step.done == step.total {
            std::fs::remove_file(&lock).unwrap();
        }
    };
    let target = rig.target().await;
    let ended = run(&rig.fixture.store, &target, "h", &mut take_away).await;
    assert!(matches!(ended, Err(Error::Refused(_))), "{ended:?}");
    assert_eq!(target.points().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_prune_whose_lock_was_taken_away_removes_nothing() {
    let rig = Rig::new().await;
    rig.take().await;
    rig.take().await;
    let lock = rig.dir.path().join("backup/lock");
    // So recently was it renewed that nobody would ask by himself.
    let mut take_away = |step: &crate::backup::Step| {
        if step.done + 1 == step.total {
            std::fs::remove_file(&lock).unwrap();
        }
    };
    let target = rig.target().await;
    let ended = prune(&target, 1, &mut take_away).await;
    assert!(matches!(ended, Err(Error::Refused(_))), "{ended:?}");
    assert_eq!(target.points().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_lock_is_renewed_whatever_takes_long() {
    let mut rig = Rig::of(Kind::Memory).await;
    rig.settings.lock_ttl = posthouse_conf::Span::ms(0);
    rig.settings.pack_max = posthouse_conf::Size::kib(1);
    rig.fill().await;
    // Many packs, and an account of many parts.
    rig.add(60).await;
    rig.take().await;
    rig.add(60).await;
    rig.memory.asked_for();
    rig.take().await;
    let of_run = rig.memory.asked_for();
    let target = rig.target().await;
    rig.memory.asked_for();
    prune(&target, 1, &mut |_| {}).await.unwrap();
    let of_prune = rig.memory.asked_for();
    for asked in [of_run, of_prune] {
        let asked: Vec<&String> = asked.iter().skip_while(|name| !name.ends_with("/lock")).collect();
        let longest = asked.split(|name| name.ends_with("/lock")).max_by_key(|between| between.len()).unwrap();
        assert!(asked.len() > 20, "{asked:?}");
        // With a lifetime of zero every chance to renew it is taken.
        assert!(longest.len() <= 8, "between two renewals: {longest:?}");
    }
}

async fn an_encrypted_backup_opens_with_its_key_only(rig: Rig) {
    rig.fill().await;
    let access = |secret: Option<&str>| Access { secret: secret.map(|s| Secret::new(s.to_owned())), ..rig.access() };
    let right = access(Some("correct horse"));
    let target = rig.target_for(&right).await.unwrap();
    let taken = run(&rig.fixture.store, &target, "h", &mut |_| {}).await.unwrap();
    assert!(taken.is_whole());
    for wrong in [None, Some("battery staple")] {
        let opened = Target::open_in(rig.place(), &access(wrong), &rig.settings).await;
        assert!(matches!(opened, Err(Error::Refused(_))), "{wrong:?}");
    }
    for name in rig.names().await {
        let octets = rig.octets(&name).await;
        for plain in [b"alice@x.test".as_slice(), b"Return-Path", b"Work"] {
            assert!(!octets.windows(plain.len()).any(|window| window == plain), "{name}");
        }
    }
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&rig.target_for(&right).await.unwrap(), None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
}

async fn a_place_with_something_else_is_no_target(rig: Rig) {
    rig.lay("letter.txt", b"Dear Bob").await;
    assert!(matches!(Target::open_in(rig.place(), &rig.access(), &rig.settings).await, Err(Error::Refused(_))));
    assert!(matches!(rig.target_for(&rig.access()).await, Err(Error::Refused(_))));
}
