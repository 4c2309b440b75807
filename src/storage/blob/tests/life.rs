//! Bodies are kept once, read in any range, and freed when nothing refers to them any more.

use super::*;

on_every_place! {
    any_range_of_any_size_is_read
    equal_content_is_stored_once
    a_body_that_nobody_attached_cannot_be_referred_to
    a_blob_is_freed_only_after_its_retention
    a_reference_that_came_back_outlives_its_tombstone
    an_attached_body_without_a_reference_is_swept_in_time
    concurrent_writers_of_long_bodies_keep_them_apart
    bodies_are_there_after_a_restart
    a_body_that_is_staged_again_while_it_is_read_is_found
}

async fn any_range_of_any_size_is_read(rig: Rig) {
    for (size, email) in [0, 1, 1000, 1025, 40_000, 65_536, 65_537, 300_000].into_iter().zip(0..) {
        let content = noise(1, size);
        let staged = rig.stage(&content).await;
        let body = staged.body;
        assert_eq!(body.size, size as u64);
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a staged body"), content, "{size} staged");
        drop(staged);
        rig.keep(&content, email).await;
        for (start, end) in [(0, 10), (65_530, 65_540), (1, 1), (9, 3), (299_000, 999_999), (0, 300_000)] {
            let expect = &content[start.min(size).min(end)..end.min(size).max(start.min(size).min(end))];
            let range = u64::try_from(start).expect("small")..u64::try_from(end).expect("small");
            assert_eq!(rig.read(&body, range).await.expect("a kept body"), expect, "{size}: {start}..{end}");
        }
    }
}

async fn equal_content_is_stored_once(rig: Rig) {
    let content = noise(2, 100_000);
    let first = rig.keep(&content, 1).await;
    let live = keys::segment(segment::SegmentNumber::new(1));
    let octets = rig.store.snapshot().get(&live).await.expect("a read");
    let second = rig.keep(&content, 2).await;
    assert_eq!(first, second);
    let after = rig.store.snapshot().get(&live).await.expect("a read");
    assert_eq!(octets, after, "no second copy is counted as live");
    rig.release(first, 1, 10).await;
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    // The second writing is given up, so that its chunks are gone with the sweep: two frames are left.
    let expect = if matches!(rig.kind, Kind::Segments) { (0, 0) } else { (2, 0) };
    assert_eq!(rig.rows_of_stages().await, expect);
    assert_eq!(rig.read(&second, 0..u64::MAX).await.expect("the other reference holds it"), content);
}

async fn a_body_that_nobody_attached_cannot_be_referred_to(rig: Rig) {
    let body = rig.stage(b"never attached").await.body;
    let refer = rig.store.transact(|txn| Box::pin(reference(txn, body, owner(1))));
    assert_eq!(refer.await, Err(Error::NotFound));
    assert_eq!(rig.read(&body, 0..9).await, Err(Error::NotFound));
}

async fn a_blob_is_freed_only_after_its_retention(rig: Rig) {
    let [one, two] = [rig.keep(&noise(3, 90_000), 1).await, rig.keep(&noise(4, 300), 2).await];
    let day = 24 * 3600 * 1000;
    rig.release(one, 1, 1000).await;
    rig.release(two, 2, 2000).await;
    let free = async |now| rig.store.sweep(UnixMillis(now)).await.expect("swept").blobs;
    assert_eq!(free(day).await, 0);
    assert_eq!(free(day + 1001).await, 1);
    assert_eq!(rig.read(&one, 0..1).await, Err(Error::NotFound));
    assert_eq!(rig.read(&two, 0..300).await.expect("its time has not come"), noise(4, 300));
    assert_eq!(free(day + 2001).await, 1);
    assert_eq!(rig.read(&two, 0..1).await, Err(Error::NotFound));
}

async fn a_reference_that_came_back_outlives_its_tombstone(rig: Rig) {
    let content = noise(5, 2000);
    let body = rig.keep(&content, 1).await;
    rig.release(body, 1, 1000).await;
    rig.keep(&content, 1).await;
    assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 0);
    assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("alive"), content);
}

async fn an_attached_body_without_a_reference_is_swept_in_time(rig: Rig) {
    let staged = rig.stage(&noise(6, 5000)).await;
    let attached = rig.store.transact(|txn| {
        txn.attach(&staged);
        Box::pin(async { Ok(()) })
    });
    attached.await.expect("committed");
    let staged_at = staged.staged.stage.at;
    assert_eq!(rig.store.sweep(staged_at).await.expect("swept").blobs, 0);
    assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 1);
}

async fn concurrent_writers_of_long_bodies_keep_them_apart(rig: Rig) {
    let tasks = (0..4u32).map(|seed| rig.keep_owned(seed));
    for (body, seed) in futures_util::future::join_all(tasks).await.into_iter().zip(0..) {
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), noise(seed, 400_000));
    }
}

async fn bodies_are_there_after_a_restart(rig: Rig) {
    let mut kept = Vec::new();
    for (seed, size) in [(20, 500), (21, 6000), (22, 50_000), (23, 700_000)] {
        kept.push((rig.keep(&noise(seed, size), u64::from(seed)).await, noise(seed, size)));
    }
    let rig = rig.reopen().await;
    for (body, content) in kept {
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), content);
    }
}

async fn a_body_that_is_staged_again_while_it_is_read_is_found(rig: Rig) {
    let content = noise(30, 100_000);
    let body = rig.keep(&content, 1).await;
    let old = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
    rig.release(body, 1, 0).await;
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    rig.keep(&content, 2).await;
    let now = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
    assert_ne!(old, now);
    let read = rig.store.blobs().read_following(&body.blob, old, 0..u64::MAX).await;
    assert_eq!(read.expect("the new place"), content);
}
