//! Bodies on every place: the same cases on segments and on chunk rows.

use std::path::{Path, PathBuf};

use posthouse_mail::{AccountId, EmailId};

use super::object::Objects;
use super::*;
use crate::engine::served::fixture::{self, Network};
use crate::engine::{Embedded, RangeRequest};
use crate::keys::KeyRange;
use crate::store::Store;

mod chunk_rows;
mod client;
mod damage;
mod life;
mod object;
mod sealed;
mod segment_files;

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

use on_every_place;

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

impl Rig {
    async fn keep_owned(&self, seed: u32) -> BodyRef {
        self.keep(&noise(seed, 400_000), u64::from(seed)).await
    }
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
