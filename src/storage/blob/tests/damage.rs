//! Damage in one body: found by the scrub, no hindrance to the work on others, and mended by what a restore brings.

use super::*;

on_every_place! {
    a_scrub_reads_every_body_in_its_time
    a_damaged_row_stops_no_work_on_the_others
    a_damaged_body_is_whole_again_once_it_is_brought_back
    a_body_whose_row_is_damaged_is_whole_again_once_it_is_brought_back
}

async fn a_scrub_reads_every_body_in_its_time(rig: Rig) {
    let sizes = [0, 500, 6000, 100_000];
    for (size, email) in sizes.into_iter().zip(0..) {
        rig.keep(&noise(60, size), email).await;
    }
    let slice = Duration::from_secs(60);
    let paused = rig.store.scrub(UnixMillis(1000), Duration::ZERO).await.expect("begun");
    assert!(paused.more && paused.bodies == 0);
    let rig = rig.reopen().await;
    let report = rig.store.scrub(UnixMillis(2000), slice).await.expect("scrubbed");
    let octets = sizes.iter().map(|size| *size as u64).sum();
    assert_eq!(report, scrub::ScrubReport { bodies: 4, octets, damaged: 0, more: false });
    rig.keep(&noise(61, 10), 9).await;
    let interval = 30 * 24 * 3600 * 1000;
    assert_eq!(rig.store.scrub(UnixMillis(interval), slice).await.expect("not yet").bodies, 4);
    assert_eq!(rig.store.scrub(UnixMillis(interval + 1000), slice).await.expect("again").bodies, 5);
}

/// One row is not what was written: what is swept, verified, wrapped anew and emptied behind it is so all the same.
async fn a_damaged_row_stops_no_work_on_the_others(rig: Rig) {
    let mut bodies = Vec::new();
    for number in 0..6_u32 {
        bodies.push((rig.keep(&noise(number, 100_000), number.into()).await, number));
    }
    bodies.sort_by_key(|(body, _)| body.blob);
    // The first that any walk comes to.
    let hurt = keys::blob_state(&bodies[0].0.blob);
    let laid = rig.store.transact(|txn| {
        txn.set_sealed(&hurt, b"not what was written");
        Box::pin(async { Ok(()) })
    });
    laid.await.expect("committed");
    let scrubbed = rig.store.scrub(UnixMillis(1), Duration::from_secs(600)).await.expect("scrubbed");
    assert_eq!((scrubbed.bodies, scrubbed.damaged, scrubbed.more), (6, 1, false));
    rig.store.rotate_key(UnixMillis(2)).await.expect("rotated");
    for (body, email) in &bodies[..2] {
        rig.release(*body, (*email).into(), 5).await;
    }
    let report = rig.store.sweep(UnixMillis(5 + 25 * 3600 * 1000)).await.expect("swept");
    assert_eq!((report.rows, report.blobs), (2, 1));
    assert_eq!(rig.read(&bodies[1].0, 0..10).await, Err(Error::NotFound));
    let active = rig.store.blobs().keys.active();
    for (body, _) in &bodies[2..] {
        let row = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
        assert_eq!(key_ring::key_of(&row.key), active, "wrapped anew");
    }
    rig.store.rewrite_segments().await.expect("rewritten");
}

/// What a restore does: equal content comes again, while the one that is there cannot be read.
async fn a_damaged_body_is_whole_again_once_it_is_brought_back(rig: Rig) {
    let content = noise(40, 100_000);
    let (body, other) = (rig.keep(&content, 1).await, rig.keep(&noise(41, 100_000), 2).await);
    let rig = rig.reopen().await;
    assert_eq!(rig.store.heal(&rig.stage(&content).await).await, Ok(false), "it is sound");
    match rig.kind {
        Kind::Segments => {
            let row = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
            let place = row.placed().next().expect("a frame").offset + 100;
            let file = std::fs::File::options().write(true).open(&rig.segments()[0]).expect("a segment");
            std::os::unix::fs::FileExt::write_all_at(&file, b"damage", place).expect("written");
        }
        Kind::Rows | Kind::Served => {
            let stage =
                rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row").stage().expect("a stage");
            let laid = rig.store.transact(|txn| {
                txn.set(&keys::blob_chunk(&stage, 0), b"damage");
                Box::pin(async { Ok(()) })
            });
            laid.await.expect("committed");
        }
    }
    assert!(matches!(rig.read(&body, 0..100_000).await, Err(Error::Corrupt(_))));
    rig.keep(&content, 3).await;
    assert!(matches!(rig.read(&body, 0..100_000).await, Err(Error::Corrupt(_))), "a reference alone mends nothing");
    assert_eq!(rig.store.heal(&rig.stage(&content).await).await, Ok(true));
    assert_eq!(rig.read(&body, 0..100_000).await.expect("read"), content);
    assert_eq!(rig.read(&other, 0..100_000).await.expect("read"), noise(41, 100_000));
    assert_counted(&rig).await;
    let rig = rig.reopen().await;
    assert_eq!(rig.read(&body, 0..100_000).await.expect("read"), content);
    assert_eq!(
        rig.rows_of_stages().await,
        if matches!(rig.kind, Kind::Segments) { (0, 0) } else { (8, 2) },
        "two stagings that nobody took"
    );
}

async fn a_body_whose_row_is_damaged_is_whole_again_once_it_is_brought_back(rig: Rig) {
    let content = noise(42, 100_000);
    let body = rig.keep(&content, 1).await;
    let laid = rig.store.transact(|txn| {
        txn.set_sealed(&keys::blob_state(&body.blob), b"not what was written");
        Box::pin(async { Ok(()) })
    });
    laid.await.expect("committed");
    assert!(matches!(rig.read(&body, 0..9).await, Err(Error::Corrupt(_))));
    assert_eq!(rig.store.heal(&rig.stage(&content).await).await, Ok(true));
    assert_eq!(rig.read(&body, 0..100_000).await.expect("read"), content);
}
