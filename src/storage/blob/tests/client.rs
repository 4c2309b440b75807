//! A store whose bodies lie in segments, opened by a client of the node that has them.

use super::*;
use posthouse_conf::storage::ObjectStore as ObjectSettings;

/// Bodies in segments: short ones, and long ones whose frames lie among each other's.
async fn filled() -> (Rig, Vec<(BodyRef, Vec<u8>)>) {
    let rig = Rig::new(Kind::Segments).await;
    let mut kept = Vec::new();
    for (seed, size) in (70..).zip([0, 1, 1000, 1025, 40_000, 65_536, 65_537, 300_000, 4 << 20]) {
        kept.push((rig.keep(&noise(seed, size), u64::from(seed)).await, noise(seed, size)));
    }
    let scattered = (0..4u32).map(|seed| rig.keep_owned(seed));
    for (body, seed) in futures_util::future::join_all(scattered).await.into_iter().zip(0..) {
        kept.push((body, noise(seed, 400_000)));
    }
    (rig, kept)
}

#[tokio::test]
async fn a_client_reads_what_the_segments_hold_in_whole_and_in_part() {
    let (rig, kept) = filled().await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    for (body, content) in &kept {
        assert_eq!(rig.read(body, 0..u64::MAX).await.expect("a body"), *content);
        for (start, end) in [(0, 10), (65_530, 65_540), (1, 1), (299_000, 999_999), (3_000_000, 3_000_001)] {
            let [from, to] = [start, end].map(|place: usize| place.min(content.len()));
            let range = u64::try_from(start).expect("small")..u64::try_from(end).expect("small");
            assert_eq!(rig.read(body, range).await.expect("a part"), content[from..to], "{start}..{end}");
        }
    }
    // Equal content is found again, whichever place it lies in.
    assert_eq!(rig.keep(&kept[4].1, 900).await, kept[4].0);
    let fresh = rig.keep(&noise(99, 200_000), 901).await;
    let report = rig.store.scrub(UnixMillis(1), Duration::from_secs(60)).await.expect("scrubbed");
    assert_eq!((report.bodies, report.damaged), (kept.len() as u64 + 1, 0));
    // The node that has the segments reads what its client wrote as rows.
    let rig = rig.reopen_as(Kind::Segments, None).await;
    assert_eq!(rig.read(&fresh, 0..u64::MAX).await.expect("chunk rows"), noise(99, 200_000));
    assert_counted(&rig).await;
}

#[tokio::test]
async fn a_long_body_costs_few_calls() {
    let (rig, kept) = filled().await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    let network = rig.network.clone().expect("a connection");
    let (body, content) = &kept[8];
    assert_eq!(content.len(), 4 << 20);
    let before = network.carried();
    rig.read(body, 0..u64::MAX).await.expect("a body");
    // The row and its snapshot's end, and three calls for 64 frames.
    let carried = network.carried() - before;
    assert!(carried <= 12, "{carried} messages");
}

#[tokio::test]
async fn what_a_client_frees_the_node_with_the_segments_removes() {
    let (rig, kept) = filled().await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    // All but the one that the data node has just begun.
    let segments = rig.segments().len() - 1;
    for (body, _) in &kept[..9] {
        let owner = kept.iter().position(|(other, _)| other == body).expect("kept");
        rig.release(*body, 70 + owner as u64, 0).await;
    }
    for (seed, (body, _)) in kept[9..].iter().enumerate() {
        rig.release(*body, seed as u64, 0).await;
    }
    let report = rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    assert_eq!((report.blobs, report.segments), (kept.len(), 0));
    assert_eq!(rig.read(&kept[3].0, 0..1).await, Err(Error::NotFound));
    assert_counted(&rig).await;
    let rig = rig.reopen_as(Kind::Segments, None).await;
    let (removed, octets) = rig.store.remove_dead_segments().await.expect("removed");
    assert!(removed >= segments && octets > 4 << 20, "{removed} of {segments}, {octets} octets");
}

#[tokio::test]
async fn damage_in_a_segment_is_an_error_at_the_client_too() {
    let (rig, kept) = filled().await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    let place = async |body: &BodyRef| {
        let row = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
        let extent = row.extents[0];
        (rig.dir.path().join("segments").join(format!("{:08}.seg", extent.segment)), extent.offset)
    };
    let (path, offset) = place(&kept[4].0).await;
    let mut octets = std::fs::read(&path).expect("a file");
    octets[usize::try_from(offset).expect("small") + 100] ^= 1;
    std::fs::write(&path, octets).expect("written");
    let Err(Error::Corrupt(reason)) = rig.read(&kept[4].0, 0..u64::MAX).await else { panic!("not found") };
    let segment = format!("at octet {offset}: a frame's checksum is wrong");
    assert!(reason.contains("the node that serves the store") && reason.contains(&segment), "{reason}");
    let (path, offset) = place(&kept[8].0).await;
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(offset + 100).expect("cut");
    let Err(Error::Corrupt(reason)) = rig.read(&kept[8].0, 0..u64::MAX).await else { panic!("not found") };
    assert!(reason.contains("the file ends within a frame"), "{reason}");
    std::fs::remove_file(&path).expect("removed");
    let rig = rig.reopen_as(Kind::Served, None).await;
    let Err(Error::Corrupt(reason)) = rig.read(&kept[8].0, 0..u64::MAX).await else { panic!("not found") };
    assert!(reason.contains("is missing"), "{reason}");
    let report = rig.store.scrub(UnixMillis(1), Duration::from_secs(60)).await.expect("scrubbed");
    assert!(report.damaged >= 2, "{report:?}");
}

#[tokio::test]
async fn a_body_moved_under_a_clients_feet_is_found() {
    let rig = Rig::new(Kind::Segments).await;
    let living = mostly_dead(&rig).await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    let mut rows = Vec::new();
    for (body, _) in &living {
        rows.push(rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row"));
    }
    // What the data node itself does in the background.
    let engine = rig.network.as_ref().expect("a connection").engine();
    let place = Place::Segments(engine.segments());
    let own = Store::with(Engine::Embedded(engine), place, None, (rig.dir.path(), &rig.settings)).await;
    let own = own.expect("the data node's own handle");
    assert!(own.rewrite_segments().await.expect("rewritten").bodies > 0);
    assert!(own.remove_dead_segments().await.expect("removed").0 > 0);
    for ((body, content), row) in living.iter().zip(rows) {
        let read = rig.store.blobs().read_following(&body.blob, row, 0..u64::MAX).await;
        assert_eq!(read.expect("by an old row"), *content);
    }
}

#[tokio::test]
async fn a_client_brings_large_bodies_out_of_segments_to_the_object_store() {
    let memory = Arc::new(object_store::memory::InMemory::new());
    let objects = || Some(Objects::new(memory.clone(), &ObjectSettings::default()));
    let rig = Rig::with_objects(Kind::Segments, objects()).await;
    let content = noise(80, 9 << 20);
    let body = rig.keep(&content, 1).await;
    let rig = rig.reopen_as(Kind::Served, objects()).await;
    assert_eq!(rig.store.move_large(UnixMillis(1)).await.expect("moved").moved, 1);
    assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), content);
    assert_counted(&rig).await;
}

#[tokio::test]
async fn a_client_without_the_sites_keys_is_told_what_to_do() {
    let (rig, kept) = filled().await;
    let rig = rig.reopen_as(Kind::Served, None).await;
    let network = rig.network.clone().expect("a connection");
    let own = tempfile::tempdir().expect("a directory");
    let connect = async || Store::connect(Box::new(network.clone()), own.path(), &rig.settings).await;
    let refused = async || match connect().await {
        Err(Error::Key(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    let reason = refused().await;
    assert!(reason.contains("storage.keys is missing") && reason.contains("storage.key_file"), "{reason}");
    key_file::add(&own.path().join("storage.keys")).expect("another site's key");
    let reason = refused().await;
    assert!(reason.contains("storage.keys does not hold key"), "{reason}");
    std::fs::copy(rig.dir.path().join("storage.keys"), own.path().join("storage.keys")).expect("copied");
    let store = connect().await.expect("the right key");
    assert_eq!(store.body_read(&kept[7].0, 0..u64::MAX).await.expect("a body"), kept[7].1);
    store.close().await.expect("closed");
}
