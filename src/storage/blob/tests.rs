//! Bodies on every place: the same cases on segments and on chunk rows.

use std::path::{Path, PathBuf};

use posthouse_mail::{AccountId, EmailId};

use super::object::Objects;
use super::*;
use crate::engine::served::fixture::{self, Network};
use crate::engine::{Embedded, RangeRequest};
use crate::keys::KeyRange;
use crate::store::Store;

mod client;
mod object;

/// Which place a case runs on; rows are those of the embedded engine.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Segments,
    Rows,
    /// The rows of an engine behind a connection.
    Served,
}

/// Runs a case on every place.
macro_rules! on_every_place {
    ($($case:ident)*) => {
        mod segments { $(#[tokio::test] async fn $case() { super::$case(super::Rig::new(super::Kind::Segments).await).await; })* }
        mod rows { $(#[tokio::test] async fn $case() { super::$case(super::Rig::new(super::Kind::Rows).await).await; })* }
        mod served { $(#[tokio::test] async fn $case() { super::$case(super::Rig::new(super::Kind::Served).await).await; })* }
    };
}

on_every_place! {
    any_range_of_any_size_is_read
    equal_content_is_stored_once
    a_body_that_nobody_attached_cannot_be_referred_to
    a_blob_is_freed_only_after_its_retention
    a_reference_that_came_back_outlives_its_tombstone
    an_attached_body_without_a_reference_is_swept_in_time
    concurrent_writers_of_long_bodies_keep_them_apart
    bodies_are_there_after_a_restart
    no_file_shows_a_content
    a_scrub_reads_every_body_in_its_time
    a_rotation_wraps_every_key_anew_and_loses_nothing
    a_body_that_is_staged_again_while_it_is_read_is_found
    a_damaged_row_stops_no_work_on_the_others
    a_damaged_body_is_whole_again_once_it_is_brought_back
    a_body_whose_row_is_damaged_is_whole_again_once_it_is_brought_back
}

struct Rig {
    store: Store,
    settings: Settings,
    dir: tempfile::TempDir,
    kind: Kind,
    /// What a served engine's connections lead to.
    network: Option<Network>,
}

impl Rig {
    async fn new(kind: Kind) -> Self {
        Self::with_objects(kind, None).await
    }

    async fn with_objects(kind: Kind, objects: Option<Objects>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Small segments, so that a few bodies fill one.
        let settings = Settings {
            segment_max: posthouse_conf::Size::kib(256),
            background_rate: posthouse_conf::Size::mib(1 << 12),
            ..Settings::default()
        };
        let (store, network) = open(dir.path(), &settings, kind, objects).await;
        Self { store, settings, dir, kind, network }
    }

    async fn reopen(self) -> Self {
        let kind = self.kind;
        self.reopen_as(kind, None).await
    }

    async fn reopen_as(self, kind: Kind, objects: Option<Objects>) -> Self {
        self.store.close().await.expect("closed");
        if let Some(network) = &self.network {
            network.engine().close().await.expect("closed");
        }
        let (store, network) = open(self.dir.path(), &self.settings, kind, objects).await;
        Self { store, network, kind, ..self }
    }

    /// Chunk rows and stage rows.
    async fn rows_of_stages(&self) -> (usize, usize) {
        let mut txn = self.store.snapshot();
        let [first, last] = [0, 0xff].map(|octet| frame::StageId::new([octet; 16]));
        let chunks =
            KeyRange { begin: keys::blob_chunk(&first, 0).to_vec(), end: keys::blob_chunk(&last, u32::MAX).to_vec() };
        let stages = keys::blob_stages_before(UnixMillis(u64::MAX));
        let mut count = [0, 0];
        for (range, count) in [chunks, stages].iter().zip(&mut count) {
            let request = RangeRequest::new(&range.begin, &range.end).bytes(usize::MAX);
            *count = txn.range(request).await.expect("a scan").rows.len();
        }
        (count[0], count[1])
    }

    async fn stage(&self, content: &[u8]) -> StagedBody {
        let mut writer = self.store.body_writer();
        for chunk in content.chunks(10_000) {
            writer.write(chunk).await.expect("written");
        }
        writer.finish().await.expect("staged")
    }

    /// Stages and refers.
    async fn keep(&self, content: &[u8], email: u64) -> BodyRef {
        let staged = self.stage(content).await;
        let kept = self.store.transact(|txn| {
            let staged = staged.clone();
            Box::pin(async move {
                txn.attach(&staged);
                reference(txn, staged.body, owner(email)).await
            })
        });
        kept.await.expect("committed");
        staged.body
    }

    async fn release(&self, body: BodyRef, email: u64, now: u64) {
        let released = self.store.transact(|txn| {
            release(txn, body.blob, owner(email), UnixMillis(now));
            Box::pin(async { Ok(()) })
        });
        released.await.expect("committed");
    }

    async fn read(&self, body: &BodyRef, range: Range<u64>) -> Result<Bytes, Error> {
        self.store.body_read(body, range).await
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("segments")).expect("a directory");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }
}

async fn open(dir: &Path, settings: &Settings, kind: Kind, objects: Option<Objects>) -> (Store, Option<Network>) {
    let embedded = Embedded::open(dir, settings).await.expect("an engine");
    let (engine, place, network) = match kind {
        Kind::Segments => (Engine::Embedded(embedded.clone()), Place::Segments(embedded.segments()), None),
        Kind::Rows => (Engine::Embedded(embedded), Place::Rows, None),
        Kind::Served => {
            let (served, network) = fixture::serve(embedded).await;
            (Engine::Served(served.clone()), Place::Served(served), Some(network))
        }
    };
    (Store::with(engine, place, objects, (dir, settings)).await.expect("a store"), network)
}

fn owner(email: u64) -> BlobOwner {
    BlobOwner::Email { account: AccountId::new(1), email: EmailId::new(email) }
}

/// Content without repetition, so that its frames keep their size.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut content = vec![0; length];
    reader.fill(&mut content);
    content
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

async fn concurrent_writers_of_long_bodies_keep_them_apart(rig: Rig) {
    let tasks = (0..4u32).map(|seed| rig.keep_owned(seed));
    for (body, seed) in futures_util::future::join_all(tasks).await.into_iter().zip(0..) {
        assert_eq!(rig.read(&body, 0..u64::MAX).await.expect("a body"), noise(seed, 400_000));
    }
}

impl Rig {
    async fn keep_owned(&self, seed: u32) -> BodyRef {
        self.keep(&noise(seed, 400_000), u64::from(seed)).await
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

/// Bodies of which the first of each four lives, over several segments.
async fn mostly_dead(rig: &Rig) -> Vec<(BodyRef, Vec<u8>)> {
    let mut kept = Vec::new();
    while rig.segments().len() < 4 {
        let seed = 1000 + u32::try_from(kept.len()).expect("few");
        assert!(kept.len() < 1000, "no segment is ever full");
        // One frame, and two.
        let content = noise(seed, if seed % 8 == 0 { 90_000 } else { 20_000 });
        kept.push((rig.keep(&content, u64::from(seed)).await, content));
    }
    let mut living = Vec::new();
    for ((body, content), number) in kept.into_iter().zip(0..) {
        match number % 4 {
            0 => living.push((body, content)),
            _ => rig.release(body, 1000 + number, 0).await,
        }
    }
    rig.store.sweep(UnixMillis(u64::MAX)).await.expect("swept");
    living
}

/// What the counters of segments say is what the rows say.
async fn assert_counted(rig: &Rig) {
    let mut sums = HashMap::new();
    let range = keys::blob_states();
    let request = RangeRequest::new(&range.begin, &range.end).bytes(usize::MAX);
    for (_, value) in rig.store.snapshot().range(request).await.expect("a scan").rows {
        for (segment, octets) in BlobRow::decode(&value).expect("a row").stored_in_segments() {
            *sums.entry(segment).or_insert(0) += octets;
        }
    }
    for number in (1..20).map(segment::SegmentNumber::new) {
        let counted = rig.store.live_octets(number).await.expect("a counter");
        assert_eq!(counted, sums.get(&number).copied().unwrap_or(0), "{number:?}");
    }
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
