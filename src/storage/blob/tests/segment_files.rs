//! Segment files: never written into again, emptied and unlinked, their damage found and placed.

use super::*;

#[tokio::test]
async fn dead_segments_are_unlinked_and_live_ones_kept() {
    let rig = Rig::new(Kind::Segments).await;
    let mut bodies = Vec::new();
    // The next segment is made beside the writing, so that how many bodies fill one is not fixed.
    while rig.segments().len() < 4 {
        let number = u32::try_from(bodies.len()).expect("few");
        assert!(number < 500, "no segment is ever full");
        bodies.push(rig.keep(&noise(100 + number, 60_000), u64::from(number)).await);
    }
    let before = rig.segments().len();
    let (last, dead) = bodies.split_last().expect("some bodies");
    for (body, email) in dead.iter().zip(0..) {
        rig.release(*body, email, 0).await;
    }
    let report = rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    assert_eq!((report.blobs, rig.segments().len()), (dead.len(), before - report.segments));
    assert!(report.segments >= 1, "{report:?}");
    let rig = rig.reopen().await;
    let content = noise(100 + u32::try_from(dead.len()).expect("few"), 60_000);
    assert_eq!(rig.read(last, 0..u64::MAX).await.expect("alive"), content);
}

#[tokio::test]
async fn a_restart_never_writes_into_an_old_segment() {
    let rig = Rig::new(Kind::Segments).await;
    rig.keep(&noise(7, 5000), 1).await;
    let old = rig.segments();
    let contents: Vec<_> = old.iter().map(|path| std::fs::read(path).expect("a file")).collect();
    let rig = rig.reopen().await;
    rig.keep(&noise(8, 5000), 2).await;
    assert_eq!(rig.segments().len(), old.len() + 1);
    assert!(old.iter().zip(contents).all(|(path, content)| std::fs::read(path).expect("a file") == content));
}

#[tokio::test]
async fn a_frame_that_a_power_cut_took_comes_back_from_the_journal() {
    let rig = Rig::new(Kind::Segments).await;
    let body = rig.keep(&noise(7, 5000), 1).await;
    // The journal was synced, the segment was not.
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["index.redb", "journal.0", "journal.1", "storage.keys"] {
        std::fs::copy(rig.dir.path().join(name), dir.path().join(name)).expect("copied");
    }
    std::fs::create_dir(dir.path().join("segments")).expect("made");
    let segment = dir.path().join("segments").join(rig.segments()[0].file_name().expect("a name"));
    std::fs::write(&segment, []).expect("written");
    // At once, wherever it is by then; then from its file, which the checkpoint at the close has synced.
    for round in 0..2 {
        let (store, _) = open(dir.path(), &rig.settings, Kind::Segments, None).await;
        assert_eq!(store.body_read(&body, 0..5000).await.expect("the body"), noise(7, 5000), "start {round}");
        store.close().await.expect("closed");
        assert!(std::fs::metadata(&segment).expect("a file").len() > 5000);
    }
}

async fn hurt(damage: impl Fn(&Path)) -> Result<Bytes, Error> {
    let rig = Rig::new(Kind::Segments).await;
    let body = rig.keep(&noise(9, 100_000), 1).await;
    let rig = rig.reopen().await;
    damage(&rig.segments()[0]);
    // The first frame is whole in both cases.
    assert_eq!(rig.read(&body, 0..65_536).await.expect("the first frame"), noise(9, 65_536));
    rig.read(&body, 0..100_000).await
}

#[tokio::test]
async fn a_flipped_bit_is_found_and_placed() {
    let outcome = hurt(|path| {
        let mut content = std::fs::read(path).expect("a file");
        content[80_000] ^= 4;
        std::fs::write(path, content).expect("written");
    });
    let Err(Error::Corrupt(place)) = outcome.await else { panic!("not found") };
    assert!(place.contains("00000001.seg at octet 65608: a frame's checksum is wrong"), "{place}");
}

#[tokio::test]
async fn a_torn_tail_is_found_and_placed() {
    let outcome = hurt(|path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
        file.set_len(90_000).expect("cut");
    });
    let Err(Error::Corrupt(place)) = outcome.await else { panic!("not found") };
    assert!(place.contains("the file ends within a frame"), "{place}");
}

#[tokio::test]
async fn segments_mostly_dead_are_emptied_under_readers() {
    let rig = Rig::new(Kind::Segments).await;
    let living = mostly_dead(&rig).await;
    let before = rig.segments();
    let mut old = Vec::new();
    for (body, _) in &living {
        old.push(rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row"));
    }
    let readers = async {
        for _ in 0..20 {
            for (body, content) in &living {
                assert_eq!(rig.read(body, 0..u64::MAX).await.expect("alive"), *content);
            }
        }
    };
    let work = async {
        let report = rig.store.rewrite_segments().await.expect("rewritten");
        assert!(report.segments >= 1 && report.bodies >= 1, "{report:?}");
        let swept = rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
        assert_eq!((swept.segments, swept.blobs), (report.segments, 0));
    };
    tokio::join!(readers, work);
    assert!(before.iter().any(|path| !path.exists()));
    for ((body, content), row) in living.iter().zip(old) {
        let read = rig.store.blobs().read_following(&body.blob, row, 0..u64::MAX).await;
        assert_eq!(read.expect("by an old row"), *content);
    }
    assert_counted(&rig).await;
    let rig = rig.reopen().await;
    for (body, content) in &living {
        assert_eq!(rig.read(body, 0..u64::MAX).await.expect("after a restart"), *content);
    }
    assert_eq!(rig.store.scrub(UnixMillis(1), Duration::from_secs(60)).await.expect("scrubbed").damaged, 0);
}

#[tokio::test]
async fn a_damaged_body_keeps_its_segment() {
    let rig = Rig::new(Kind::Segments).await;
    let living = mostly_dead(&rig).await;
    let rig = rig.reopen().await;
    let row = rig.store.blobs().row(&living[0].0.blob).await.expect("a read").expect("a row");
    let (path, at) = (rig.segments()[0].clone(), row.extents[0].offset + 100);
    assert_eq!(row.extents[0].segment, 1, "the first body lies in the first segment");
    let mut octets = std::fs::read(&path).expect("a file");
    octets[usize::try_from(at).expect("small")] ^= 1;
    std::fs::write(&path, octets).expect("written");
    rig.store.rewrite_segments().await.expect("rewritten");
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    assert!(path.exists());
    let report = rig.store.scrub(UnixMillis(1), Duration::from_secs(60)).await.expect("scrubbed");
    assert_eq!((report.damaged, report.bodies), (1, living.len() as u64));
    for (body, content) in &living[1..] {
        assert_eq!(rig.read(body, 0..u64::MAX).await.expect("the others"), *content);
    }
}
