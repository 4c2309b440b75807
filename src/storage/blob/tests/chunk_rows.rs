//! Chunk rows of engines without files: swept with their stage, freed with their body, their damage found.

use super::*;

#[tokio::test]
async fn chunks_of_a_stage_given_up_are_swept_in_time() {
    let rig = Rig::new(Kind::Rows).await;
    let mut writer = rig.store.body_writer();
    writer.write(&noise(40, 500_000)).await.expect("written");
    drop(writer);
    assert_eq!(rig.rows_of_stages().await, (4, 1), "the rest never left memory");
    rig.store.sweep(UnixMillis(0)).await.expect("swept");
    assert_eq!(rig.rows_of_stages().await, (4, 1));
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    assert_eq!(rig.rows_of_stages().await, (0, 0));
}

#[tokio::test]
async fn a_stage_that_was_swept_is_refused_and_leaves_nothing() {
    let rig = Rig::new(Kind::Rows).await;
    let staged = rig.stage(&noise(41, 100_000)).await;
    let mut writer = rig.store.body_writer();
    writer.write(&noise(42, 400_000)).await.expect("written");
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    let kept = rig.store.transact(|txn| {
        let staged = staged.clone();
        Box::pin(async move {
            txn.attach(&staged);
            reference(txn, staged.body, owner(1)).await
        })
    });
    assert!(matches!(kept.await, Err(Error::Unavailable(_))));
    assert!(matches!(writer.finish().await, Err(Error::Unavailable(_))));
    assert_eq!(rig.rows_of_stages().await, (0, 0));
}

#[tokio::test]
async fn a_freed_blob_takes_its_chunks_along() {
    let rig = Rig::new(Kind::Rows).await;
    for (size, chunks) in [(500, 0), (7000, 1), (60_000, 1), (300_000, 5)] {
        let body = rig.keep(&noise(43, size), 1).await;
        assert_eq!(rig.rows_of_stages().await, (chunks, 0), "{size}");
        rig.release(body, 1, 0).await;
        assert_eq!(rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept").blobs, 1);
        assert_eq!(rig.rows_of_stages().await, (0, 0), "{size}");
    }
}

#[tokio::test]
async fn a_hurt_or_missing_chunk_is_found_and_placed() {
    let rig = Rig::new(Kind::Rows).await;
    let body = rig.keep(&noise(44, 150_000), 1).await;
    let stage = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row").stage().expect("a stage");
    let overwrite = async |value: Option<&'static [u8]>| {
        let key = keys::blob_chunk(&stage, 1);
        let written = rig.store.transact(|txn| {
            match value {
                Some(value) => txn.set(&key, value),
                None => txn.clear(&key),
            }
            Box::pin(async { Ok(()) })
        });
        written.await.expect("committed");
        rig.read(&body, 0..150_000).await
    };
    for (value, reason) in [(Some(b"no frame".as_slice()), "a frame is cut short"), (None, "the row is missing")] {
        let Err(Error::Corrupt(place)) = overwrite(value).await else { panic!("not found") };
        assert!(place.ends_with(reason), "{place}");
        assert_eq!(rig.read(&body, 0..65_536).await.expect("the first frame"), noise(44, 65_536));
    }
}
