//! The store: how long commits take, how many share a sync, what conflicts, what fails.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::emit::event;
use crate::registry::{counter, gauge, histogram};

static COMMIT: LazyLock<HistogramVec> =
    LazyLock::new(|| histogram("store_commit_seconds", "Time from a group's start to its publication.", &[]));
static TRANSACTIONS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_transactions_total", "Transactions by outcome.", &["outcome"]));
static GROUPS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_groups_total", "Groups of transactions committed with one sync.", &[]));
static CHECKPOINT: LazyLock<HistogramVec> =
    LazyLock::new(|| histogram("store_checkpoint_seconds", "Time to take what the journal holds into the index.", &[]));
static BLOBS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_blobs_total", "Bodies by what became of them.", &["change"]));
static BLOB_OCTETS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_blob_bytes_total", "Octets of bodies staged.", &[]));
static FREED_OCTETS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_segment_freed_bytes_total", "Octets of segment files removed.", &[]));
static LINKS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("store_links_total", "Connections between a store's server and its clients.", &["change"])
});
static SCRUBBED_OCTETS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_scrubbed_bytes_total", "Octets of bodies that scrubs have verified.", &[]));
static SCRUB_PROGRESS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("store_scrub_progress_permille", "How far the scrub's pass over all bodies is.", &[]));
static SCRUB_DAMAGED: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("store_scrub_damaged", "Damaged bodies that the last whole scrub found.", &[]));
static MOVED_OCTETS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_moved_bytes_total", "Octets of bodies moved, by where to.", &["to"]));
static KEYS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("store_key_changes_total", "Rotations of the storage key, begun and finished.", &["change"])
});
static ERRORS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("store_errors_total", "Operations of the store that failed.", &["operation"]));

pub(crate) fn register() {
    LazyLock::force(&COMMIT);
    LazyLock::force(&TRANSACTIONS);
    LazyLock::force(&GROUPS);
    LazyLock::force(&CHECKPOINT);
    LazyLock::force(&BLOBS);
    LazyLock::force(&BLOB_OCTETS);
    LazyLock::force(&FREED_OCTETS);
    LazyLock::force(&LINKS);
    LazyLock::force(&SCRUBBED_OCTETS);
    LazyLock::force(&SCRUB_PROGRESS);
    LazyLock::force(&SCRUB_DAMAGED);
    LazyLock::force(&MOVED_OCTETS);
    LazyLock::force(&KEYS);
    LazyLock::force(&ERRORS);
}

event! {
    /// A group of transactions is durable and visible.
    StoreCommitted { group: usize, seconds: f64 }
    silent ""
    |event| {
        COMMIT.with_label_values::<&str>(&[]).observe(event.seconds);
        GROUPS.with_label_values::<&str>(&[]).inc();
        TRANSACTIONS.with_label_values(&["committed"]).inc_by(u64::try_from(event.group).unwrap_or(u64::MAX));
    }
}

event! {
    /// The index holds what the journal held.
    StoreCheckpointed { seconds: f64 }
    silent ""
    |event| CHECKPOINT.with_label_values::<&str>(&[]).observe(event.seconds)
}

event! {
    /// A transaction has to run again.
    StoreConflict { is_too_old: bool }
    silent ""
    |event| TRANSACTIONS.with_label_values(&[if event.is_too_old { "too_old" } else { "conflict" }]).inc()
}

event! {
    /// A body was staged.
    BodyStaged { octets: u64 }
    silent ""
    |event| {
        BLOBS.with_label_values(&["staged"]).inc();
        BLOB_OCTETS.with_label_values::<&str>(&[]).inc_by(event.octets);
    }
}

event! {
    /// A sweep freed something.
    StoreSwept { blobs: usize, segments: usize, octets: u64 }
    info "store swept"
    |event| {
        BLOBS.with_label_values(&["freed"]).inc_by(u64::try_from(event.blobs).unwrap_or(u64::MAX));
        FREED_OCTETS.with_label_values::<&str>(&[]).inc_by(event.octets);
    }
}

event! {
    /// A scrub read a body to its end.
    BodyVerified { octets: u64 }
    silent ""
    |event| {
        BLOBS.with_label_values(&["verified"]).inc();
        SCRUBBED_OCTETS.with_label_values::<&str>(&[]).inc_by(event.octets);
    }
}

event! {
    /// A body can't be read, or is not what it was.
    BodyDamaged { blob: String, reason: String }
    error "a body is damaged"
    |event| BLOBS.with_label_values(&["damaged"]).inc()
}

event! {
    /// A restore brought a body whose like could not be read any more, and it took its place.
    BodyHealed { blob: String }
    info "a damaged body is whole again"
    |event| BLOBS.with_label_values(&["healed"]).inc()
}

event! {
    /// How far the pass of the scrub is.
    ScrubAdvanced { permille: i64 }
    silent ""
    |event| SCRUB_PROGRESS.with_label_values::<&str>(&[]).set(event.permille)
}

event! {
    /// Every body was read.
    ScrubFinished { bodies: u64, octets: u64, damaged: u64 }
    info "scrub finished"
    |event| SCRUB_DAMAGED.with_label_values::<&str>(&[]).set(i64::try_from(event.damaged).unwrap_or(i64::MAX))
}

event! {
    /// Live bodies were moved out of segments that are mostly dead.
    SegmentsRewritten { segments: usize, bodies: usize, octets: u64 }
    info "segments rewritten"
    |event| MOVED_OCTETS.with_label_values(&["segments"]).inc_by(event.octets)
}

event! {
    /// Large bodies went to the object store, or objects went that no body has.
    ObjectsMoved { moved: usize, octets: u64, removed: usize }
    info "object store tidied"
    |event| MOVED_OCTETS.with_label_values(&["objects"]).inc_by(event.octets)
}

event! {
    /// New bodies are encrypted under another key of the site.
    KeyRotated { key: String }
    info "storage key rotated"
    |event| KEYS.with_label_values(&["rotated"]).inc()
}

event! {
    /// Every body's key lies under the active key of the site; older ones may leave the key file.
    KeysRewrapped { key: String }
    info "older storage keys are no longer needed"
    |event| KEYS.with_label_values(&["rewrapped"]).inc()
}

event! {
    /// An operation failed; the store goes on.
    StoreFailed { operation: &'static str, reason: String }
    warn "store operation failed"
    |event| ERRORS.with_label_values(&[event.operation]).inc()
}

event! {
    /// What the disk holds is unknown: no more writes until somebody restarts the server.
    StoreStopped { reason: String }
    error "store refuses all writes until a restart"
    |event| ERRORS.with_label_values(&["sync"]).inc()
}

event! {
    /// A sweep could not finish; the next one tries again.
    SweepFailed { what: &'static str, reason: String }
    warn "sweep not finished"
    |event| ERRORS.with_label_values(&["sweep"]).inc()
}

event! {
    /// The connection to the store's server is up.
    StoreLinkUp { }
    info "store server connected"
    |event| LINKS.with_label_values(&["up"]).inc()
}

event! {
    /// There is no connection to the store's server; it is tried again until there is one.
    StoreLinkLost { reason: String }
    warn "store server lost"
    |event| LINKS.with_label_values(&["lost"]).inc()
}

event! {
    /// A client of our store has connected.
    StoreClientCame { client: String }
    info "store client connected"
    |event| LINKS.with_label_values(&["client came"]).inc()
}

event! {
    /// A client of our store is gone, or its connection is.
    StoreClientLeft { client: String }
    info "store client gone"
    |event| LINKS.with_label_values(&["client left"]).inc()
}

event! {
    /// This process owns the store from now on.
    StoreTaken { epoch: u64 }
    info "store taken"
}

event! {
    /// Another process took the store: nothing more is written here.
    StoreLost { }
    error "store taken by another process"
    |event| ERRORS.with_label_values(&["owner"]).inc()
}

event! {
    /// A connection to our store failed, or was none of a node's.
    StoreClientRefused { client: String, reason: String }
    warn "store connection ended"
    |event| LINKS.with_label_values(&["refused"]).inc()
}
