//! What only a bucket can do to a backup: an endpoint that dies or hangs, keys and buckets that are wrong, uploads left behind.

use std::sync::atomic::Ordering;

use posthouse_conf::Span;
use posthouse_mail::SpecialUse;

use super::{Elsewhere, Kind, Rig, seen, service};
use crate::backup::place::Place;
use crate::backup::{Access, Phase, Step, Target, run, verify};
use crate::error::Error;
use crate::fixture::ALICE;
use crate::fixture::objects::Moto;
use crate::message::{self, Target as To};

/// A few messages, one of them of several parts.
async fn fill(rig: &Rig) {
    for octets in [20, 900, 200_000] {
        let mut item = rig.fixture.message(To::Role(SpecialUse::Inbox), 0).await;
        item.body = message::AppendBody::Staged(rig.noise(octets).await);
        rig.fixture.append(&item).await.unwrap();
    }
}

async fn try_run(rig: &Rig) -> Result<crate::backup::Taken, Error> {
    let target = rig.target_for(&rig.access()).await?;
    run(&rig.fixture.store, &target, "h", &mut |_| {}).await
}

#[tokio::test]
async fn an_endpoint_that_dies_at_any_request_costs_one_run_and_nothing_else() {
    let mut rig = Rig::of(Kind::Memory).await;
    fill(&rig).await;
    let many = 1_000_000;
    rig.memory.answers(many);
    assert!(try_run(&rig).await.unwrap().is_whole());
    let requests = many - rig.memory.left();
    assert!(requests > 30, "{requests}");
    let mut half_sent = 0;
    for answered in 0..requests {
        rig.memory = std::sync::Arc::default();
        rig.memory.answers(answered);
        let failed = try_run(&rig).await;
        let Err(Error::Unavailable(reason)) = &failed else { panic!("{answered}: {failed:?}") };
        assert!(reason.contains("s3://mail/of/site"), "{answered}: {reason}");
        half_sent += rig.memory.unfinished();
        rig.memory.answers(usize::MAX);
        // Whatever is to be seen is whole.
        if let Ok(target) = Target::open_in(rig.place(), &rig.access(), &rig.settings).await {
            assert!(verify(&target, &mut |_| {}).await.unwrap().is_whole(), "{answered}");
        }
        // The holder could not give it back.
        rig.place().delete("lock").await.unwrap();
        assert!(try_run(&rig).await.unwrap().is_whole(), "{answered}");
        assert_eq!(rig.memory.unfinished(), 0, "{answered}: parts are left behind");
        let left: Vec<String> = rig.names().await.into_iter().filter(|name| name.starts_with("unfinished")).collect();
        assert_eq!(left, Vec::<String>::new(), "{answered}");
    }
    assert!(half_sent > 2, "{half_sent} runs of {requests} died with parts sent");
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&rig.target().await, None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
}

#[tokio::test]
async fn a_name_is_given_once() {
    let rig = Rig::of(Kind::Memory).await;
    let place = rig.place();
    let [one, other] = [place.put_new("a", "one".into()), place.put_new("a", "other".into())];
    let (one, other) = tokio::join!(one, other);
    assert!(one.unwrap() != other.unwrap());
    // A service that knows no condition still keeps what is there.
    rig.memory.overwrites.store(true, Ordering::SeqCst);
    let held = rig.octets("a").await;
    assert_eq!(place.put_new("a", "late".into()).await, Ok(false));
    assert_eq!(rig.octets("a").await, held);
}

#[tokio::test]
async fn an_object_that_is_dropped_unfinished_never_appears() {
    let rig = Rig::of(Kind::Memory).await;
    let mut upload = rig.place().upload("packs/x").await.unwrap();
    upload.write(vec![7; 200_000].into()).await.unwrap();
    assert_eq!(rig.memory.unfinished(), 1);
    drop(upload);
    while rig.memory.unfinished() > 0 || !rig.names().await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_object_is_read_in_ranges_and_its_end_is_found() {
    let rig = Rig::of(Kind::Memory).await;
    rig.lay("a", &[7; 100]).await;
    let place = rig.place();
    assert_eq!(place.read("a", 90..100).await.unwrap().len(), 10);
    assert_eq!(place.read("a", 5..5).await.unwrap().len(), 0);
    for range in [90..101, 100..101, 500..501] {
        let cut = place.read("a", range.clone()).await;
        assert!(
            matches!(&cut, Err(Error::BackupDamaged(r)) if r.contains("s3://mail/of/site/a")),
            "{range:?}: {cut:?}"
        );
    }
    assert!(matches!(place.read("b", 0..1).await, Err(Error::BackupDamaged(_))));
    assert_eq!((place.size("b").await, place.get("b", 9).await), (Ok(None), Ok(None)));
    assert!(matches!(place.get("a", 99).await, Err(Error::BackupDamaged(_))));
    place.delete("b").await.unwrap();
}

#[test]
fn a_location_that_cannot_be_is_told_without_its_secrets() {
    let settings = posthouse_conf::Backup::default();
    for wrong in ["s3://", "s3:///x", "s3://key:hidden@mail/x", "s3://mail/a//b", "ftp://mail/x", "s3://mail/../x"] {
        let Err(Error::Refused(reason)) = Place::at(wrong, &settings) else { panic!("{wrong} is a place") };
        assert!(reason.contains("s3://") && !reason.contains("hidden"), "{wrong}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto: .ci/run installs it"]
async fn an_endpoint_that_hangs_in_the_middle_fails_this_run_only() {
    let mut rig = Rig::of(Kind::Moto).await;
    rig.fill().await;
    let first = rig.take().await.point;
    // More than a part of an upload.
    let mut item = rig.fixture.message(To::Role(SpecialUse::Inbox), 0).await;
    item.body = message::AppendBody::Staged(rig.noise(9 << 20).await);
    rig.fixture.append(&item).await.unwrap();
    let patient = std::mem::replace(&mut rig.settings.timeout, Span::secs(10));
    let target = rig.target().await;
    rig.settings.timeout = patient;
    let moto = rig.moto.as_ref().unwrap();
    let mut hang = |step: &Step| {
        if step.phase == Phase::Bodies {
            moto.signal("-STOP");
        }
    };
    let failed = run(&rig.fixture.store, &target, "h", &mut hang).await;
    assert!(matches!(&failed, Err(Error::Unavailable(r)) if r.contains("s3://mail/of/site/packs/")), "{failed:?}");
    moto.signal("-CONT");
    let target = rig.target().await;
    let points: Vec<String> = target.points().await.unwrap().into_iter().map(|point| point.id).collect();
    assert_eq!(points, [first]);
    target.place.delete("lock").await.unwrap();
    rig.take().await;
    assert_eq!(moto.unfinished(), 0);
    let elsewhere = Elsewhere::new().await;
    elsewhere.restore(&target, None).await.unwrap();
    assert_eq!(seen(&elsewhere.store, ALICE).await, seen(&rig.fixture.store, ALICE).await);
    // Nobody listens.
    rig.moto = None;
    let away = try_run(&rig).await;
    assert!(matches!(&away, Err(Error::Unavailable(r)) if r.contains("s3://mail/of/site/")), "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto: .ci/run installs it"]
async fn a_bucket_that_is_missing_and_a_key_that_is_wrong_are_told() {
    let rig = Rig::of(Kind::Moto).await;
    let access = Access { location: "s3://nowhere/x".to_owned(), secret: None };
    for opened in [Target::open(&access, &rig.settings).await, Target::open_or_create(&access, &rig.settings).await] {
        let Err(Error::Refused(reason)) = opened else { panic!("a bucket that is not there") };
        assert!(reason.contains("s3://nowhere/x") && reason.contains("no such bucket"), "{reason}");
    }
    let guarded = Moto::guarded();
    let mut settings = rig.settings.clone();
    settings.object_store = service(&guarded, rig.dir.path());
    let access = rig.access();
    for opened in [Target::open(&access, &settings).await, Target::open_or_create(&access, &settings).await] {
        let Err(Error::Refused(reason)) = opened else { panic!("a key that nobody has given") };
        assert!(reason.contains("s3://mail/of/site") && reason.contains("access key"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto: .ci/run installs it"]
async fn moto_gives_a_name_once() {
    let rig = Rig::of(Kind::Moto).await;
    let place = rig.place();
    // One after the other: moto looks and writes in two steps.
    for (number, won) in [true, false, false].into_iter().enumerate() {
        assert_eq!(place.put_new("a", format!("{number}").into()).await, Ok(won));
    }
    assert_eq!(place.get("a", 9).await, Ok(Some("0".into())));
}
