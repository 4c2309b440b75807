//! Bodies at rest are encrypted: nothing shows, keys change under them, and a key that is missing is named.

use super::*;

on_every_place! {
    no_file_shows_a_content
    a_rotation_wraps_every_key_anew_and_loses_nothing
}

async fn no_file_shows_a_content(rig: Rig) {
    for (size, email) in [(500, 1), (5000, 2), (200_000, 3)] {
        let content = b"the quick brown fox jumps over the lazy dog; ".iter().copied().cycle().take(size);
        rig.keep(&content.collect::<Vec<_>>(), email).await;
    }
    rig.store.close().await.expect("closed");
    let store = rig.dir.path().join("segments");
    for dir in [rig.dir.path(), &store] {
        for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            let octets = if entry.is_file() { std::fs::read(&entry).expect("a file") } else { Vec::new() };
            assert!(!octets.windows(9).any(|part| part == b"brown fox"), "{}", entry.display());
        }
    }
}

async fn a_rotation_wraps_every_key_anew_and_loses_nothing(rig: Rig) {
    let mut kept = Vec::new();
    for seed in 0..300 {
        kept.push(rig.keep(&noise(seed, 700), u64::from(seed)).await);
    }
    let staged = rig.stage(b"staged before").await;
    let active = rig.store.rotate_key(UnixMillis(1000)).await.expect("rotated");
    let of = async |body: &BodyRef| {
        let row = rig.store.blobs().row(&body.blob).await.expect("a read").expect("a row");
        key_ring::key_of(&row.key).expect("a key")
    };
    assert_ne!(of(&kept[0]).await, active);
    rig.store.sweep(UnixMillis(2000)).await.expect("swept");
    for body in &kept {
        assert_eq!(of(body).await, active);
    }
    // It was wrapped before, and comes after the first walk.
    let late = rig.store.transact(|txn| {
        let staged = staged.clone();
        Box::pin(async move {
            txn.attach(&staged);
            reference(txn, staged.body, owner(400)).await
        })
    });
    late.await.expect("committed");
    assert_ne!(of(&staged.body).await, active);
    rig.store.sweep(UnixMillis(3000)).await.expect("swept");
    assert_ne!(of(&staged.body).await, active, "the second walk waits until nothing old can be staged");
    rig.store.sweep(UnixMillis(1000 + 24 * 3600 * 1000)).await.expect("swept");
    assert_eq!(of(&staged.body).await, active);
    // Now the first key is needed no more.
    let path = rig.dir.path().join("storage.keys");
    let text = std::fs::read_to_string(&path).expect("a file");
    let newest = text.lines().last().expect("a key").to_owned();
    assert_eq!(newest.split(' ').next(), Some(active.to_string().as_str()));
    std::fs::write(&path, newest).expect("written");
    let rig = rig.reopen().await;
    for (body, seed) in kept.iter().zip(0..) {
        assert_eq!(rig.read(body, 0..u64::MAX).await.expect("a body"), noise(seed, 700));
    }
    assert_eq!(rig.keep(&noise(0, 700), 999).await, kept[0], "ids stay");
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_named_with_what_to_do() {
    let rig = Rig::new(Kind::Segments).await;
    let body = rig.keep(&noise(50, 5000), 1).await;
    rig.store.close().await.expect("closed");
    let path = rig.dir.path().join("storage.keys");
    let away = rig.dir.path().join("away");
    std::fs::rename(&path, &away).expect("moved");
    let open = async || match Store::open(rig.dir.path(), &rig.settings).await {
        Err(Error::Key(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    let reason = open().await;
    assert!(reason.contains("storage.keys is missing") && reason.contains("storage.key_file"), "{reason}");
    assert!(!path.exists(), "no new key takes the place of the lost one");
    key_file::add(&path).expect("another site's key");
    let reason = open().await;
    assert!(reason.contains("storage.keys does not hold key"), "{reason}");
    std::fs::rename(&away, &path).expect("moved back");
    let store = Store::open(rig.dir.path(), &rig.settings).await.expect("the right key");
    assert_eq!(store.body_read(&body, 0..u64::MAX).await.expect("a body"), noise(50, 5000));
}

#[tokio::test]
async fn a_key_brought_to_a_node_that_runs_is_found() {
    let rig = Rig::new(Kind::Segments).await;
    rig.keep(&noise(51, 500), 1).await;
    let added = Store::add_key(rig.dir.path(), &rig.settings).expect("a key");
    assert_eq!(rig.store.rotate_key(UnixMillis(1)).await, Ok(added), "a key that waits is used before a new one");
    let body = rig.keep(&noise(52, 500), 2).await;
    assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), noise(52, 500));
}
