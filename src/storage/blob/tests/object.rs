//! Large bodies in an object store: one in memory that fails when told to, and moto's S3 over HTTP.

use std::sync::atomic::Ordering;

use futures_util::stream::StreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, PutOptions, PutPayload};
use posthouse_conf::storage::ObjectStore as ObjectSettings;

use super::*;
use crate::fixture::objects::{Flaky, Moto};

/// More than one part of an upload.
const LARGE: usize = 9 << 20;
const DAY: u64 = 24 * 3600 * 1000;

struct Site {
    rig: Rig,
    objects: Arc<Flaky>,
}

impl Site {
    async fn new(kind: Kind) -> Self {
        let objects = Arc::new(Flaky::default());
        let client = Objects::new(objects.clone(), &ObjectSettings::default());
        Self { rig: Rig::with_objects(kind, Some(client)).await, objects }
    }

    fn answers(&self, count: usize) {
        self.objects.answers(count);
    }

    async fn count(&self) -> usize {
        self.objects.inner.list(None).count().await
    }
}

async fn is_object(rig: &Rig, body: &BodyRef) -> bool {
    !rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row").object.is_empty()
}

async fn a_large_body_moves_whole_and_a_small_one_stays(kind: Kind) {
    let site = Site::new(kind).await;
    let rig = &site.rig;
    let content = noise(70, LARGE);
    let (large, small) = (rig.keep(&content, 1).await, rig.keep(&noise(71, 100_000), 2).await);
    let report = rig.store.move_large(UnixMillis(1)).await.expect("moved");
    assert_eq!((report.moved, report.octets, site.count().await), (1, LARGE as u64, 1));
    assert!(is_object(rig, &large).await && !is_object(rig, &small).await);
    assert_eq!(rig.rows_of_stages().await.0, if matches!(kind, Kind::Segments) { 0 } else { 2 });
    for (start, end) in [(0, LARGE), (0, 10), (LARGE - 10, LARGE), (65_530, 65_540), (5 << 20, 6 << 20)] {
        let range = u64::try_from(start).expect("small")..u64::try_from(end).expect("small");
        assert_eq!(rig.read(&large, range).await.expect("a part"), content[start..end], "{start}..{end}");
    }
    assert_eq!(rig.keep(&content, 3).await, large, "equal content is found where it is");
    assert_eq!(rig.store.move_large(UnixMillis(2)).await, Ok(Default::default()));
    let scrubbed = rig.store.scrub(UnixMillis(3), Duration::from_secs(600)).await.expect("scrubbed");
    assert_eq!((scrubbed.bodies, scrubbed.damaged), (2, 0));
    for email in [1, 3] {
        rig.release(large, email, 0).await;
    }
    assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 1);
    assert_eq!(rig.store.move_large(UnixMillis(2 * DAY)).await.expect("tidied").removed, 1);
    assert_eq!((site.count().await, rig.read(&large, 0..1).await), (0, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_large_body_moves_from_segments() {
    a_large_body_moves_whole_and_a_small_one_stays(Kind::Segments).await;
}

#[tokio::test]
async fn a_large_body_moves_from_rows() {
    a_large_body_moves_whole_and_a_small_one_stays(Kind::Rows).await;
}

#[tokio::test]
async fn an_object_store_that_fails_half_way_loses_nothing_and_leaves_nothing() {
    let site = Site::new(Kind::Segments).await;
    let rig = &site.rig;
    let content = noise(72, LARGE);
    let body = rig.keep(&content, 1).await;
    // Begin, two parts, complete: each of them fails once.
    for answered in 0..4 {
        site.answers(answered);
        assert!(matches!(rig.store.move_large(UnixMillis(1)).await, Err(Error::Unavailable(_))), "{answered}");
        assert!(!is_object(rig, &body).await);
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("where it was"), content);
    }
    site.answers(usize::MAX);
    assert_eq!(rig.store.move_large(UnixMillis(2)).await.expect("moved").moved, 1);
    assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("moved"), content);
    // What the failed tries may have left is removed when none of them can be under way; the body's own is not.
    assert_eq!(rig.store.move_large(UnixMillis(2 * DAY)).await.expect("tidied").removed, 4);
    assert_eq!((site.count().await, rig.read(&body, 0..9).await.is_ok()), (1, true));
    site.answers(0);
    let Err(error) = rig.read(&body, 0..9).await else { panic!("read from nowhere") };
    assert!(error.failure().try_again, "{error}");
}

#[tokio::test]
async fn an_object_that_is_lost_or_hurt_is_damage() {
    let site = Site::new(Kind::Segments).await;
    let rig = &site.rig;
    let body = rig.keep(&noise(73, LARGE), 1).await;
    rig.store.move_large(UnixMillis(1)).await.expect("moved");
    let at = site.objects.inner.list(None).next().await.expect("an object").expect("a name").location;
    let hurt = PutPayload::from(noise(74, LARGE));
    site.objects.inner.put_opts(&at, hurt, PutOptions::default()).await.expect("overwritten");
    assert!(matches!(rig.read(&body, 0..9).await, Err(Error::Corrupt(_))));
    let gone = futures_util::stream::once(async { Ok(at) }).boxed();
    site.objects.inner.delete_stream(gone).for_each(|_| async {}).await;
    let Err(Error::Corrupt(reason)) = rig.read(&body, 0..9).await else { panic!("not found") };
    assert!(reason.contains("is missing"), "{reason}");
}

#[tokio::test]
async fn a_body_freed_while_it_moves_leaves_no_object() {
    let site = Site::new(Kind::Segments).await;
    let rig = &site.rig;
    let body = rig.keep(&noise(75, LARGE), 1).await;
    rig.release(body, 1, 0).await;
    let sweep = async { rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept") };
    let (moved, swept) = tokio::join!(rig.store.move_large(UnixMillis(1)), sweep);
    moved.expect("a pass");
    assert_eq!(swept.blobs, 1);
    rig.store.move_large(UnixMillis(2 * DAY)).await.expect("tidied");
    assert_eq!((site.count().await, rig.read(&body, 0..1).await), (0, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto: .ci/run installs it"]
async fn large_bodies_lie_in_s3() {
    let moto = Moto::start();
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "secret\n").expect("written");
    let settings = ObjectSettings {
        bucket: "mail".to_owned(),
        endpoint: moto.endpoint.clone(),
        access_key_id: "key".to_owned(),
        secret_key_file: secret.path().to_owned(),
        timeout: posthouse_conf::Span::secs(15),
        ..ObjectSettings::default()
    };
    let client = Objects::configured(&settings).expect("a client");
    let rig = Rig::with_objects(Kind::Segments, client).await;
    let content = noise(76, 2 * LARGE);
    let body = rig.keep(&content, 1).await;
    // An endpoint that hangs costs a deadline, not the body.
    moto.signal("-STOP");
    assert!(matches!(rig.store.move_large(UnixMillis(1)).await, Err(Error::Unavailable(_))));
    moto.signal("-CONT");
    assert_eq!(rig.store.move_large(UnixMillis(2)).await.expect("moved").moved, 1);
    assert!(is_object(&rig, &body).await);
    assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("whole"), content);
    assert_eq!(rig.read(&body, 9_000_000..9_000_010).await.expect("a part"), content[9_000_000..9_000_010]);
    rig.release(body, 1, 0).await;
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    let other = rig.keep(&noise(77, LARGE), 2).await;
    // The object of the freed body, and what the hanging endpoint may have kept.
    let report = rig.store.move_large(UnixMillis(2 * DAY)).await.expect("tidied");
    assert_eq!((report.moved, report.removed), (1, 2));
    drop(moto);
    let Err(error) = rig.read(&other, 0..9).await else { panic!("read from nowhere") };
    assert!(matches!(error, Error::Unavailable(_)) && error.failure().try_again, "{error}");
}

#[tokio::test]
async fn an_object_that_cannot_be_removed_keeps_no_body_from_moving() {
    let site = Site::new(Kind::Segments).await;
    let rig = &site.rig;
    let first = rig.keep(&noise(80, LARGE), 1).await;
    assert_eq!(rig.store.move_large(UnixMillis(1)).await.expect("moved").moved, 1);
    rig.release(first, 1, 0).await;
    assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 1);
    rig.keep(&noise(81, LARGE), 2).await;
    site.objects.keeps.store(true, Ordering::SeqCst);
    let report = rig.store.move_large(UnixMillis(2 * DAY)).await.expect("moved");
    assert_eq!((report.moved, report.removed), (1, 0));
    site.objects.keeps.store(false, Ordering::SeqCst);
    assert_eq!(rig.store.move_large(UnixMillis(2 * DAY)).await.expect("tidied").removed, 1);
    assert_eq!(site.count().await, 1);
}

#[tokio::test]
async fn an_object_that_is_cut_short_anywhere_is_damage_and_no_weather() {
    let site = Site::new(Kind::Segments).await;
    let rig = &site.rig;
    let body = rig.keep(&noise(82, LARGE), 1).await;
    rig.store.move_large(UnixMillis(1)).await.expect("moved");
    let listed = site.objects.inner.list(None).next().await.expect("an object").expect("listed");
    let whole = site.objects.inner.get(&listed.location).await.expect("read").bytes().await.expect("read");
    for length in [whole.len() - 1, whole.len() / 2, 0] {
        let cut = PutPayload::from(whole.slice(..length));
        site.objects.inner.put(&listed.location, cut).await.expect("written");
        let read = rig.read(&body, 0..LARGE as u64).await;
        assert!(matches!(read, Err(Error::Corrupt(_))), "{length}: {read:?}");
        let end = rig.read(&body, LARGE as u64 - 10..LARGE as u64).await;
        assert!(matches!(end, Err(Error::Corrupt(_))), "{length}: {end:?}");
    }
}
