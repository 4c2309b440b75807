//! Backups: what was taken, what was pruned, what failed.

use std::sync::LazyLock;

use prometheus::IntCounterVec;

use crate::emit::event;
use crate::registry::counter;

static RUNS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("backup_runs_total", "Backups by what became of them.", &["outcome"]));
static OCTETS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("backup_written_bytes_total", "Octets written to backups.", &[]));

pub(crate) fn register() {
    LazyLock::force(&RUNS);
    LazyLock::force(&OCTETS);
}

event! {
    /// A point was written.
    BackupTaken { point: String, accounts: u64, messages: u64, octets: u64 }
    info "backup taken"
    |event| {
        RUNS.with_label_values(&["taken"]).inc();
        OCTETS.with_label_values::<&str>(&[]).inc_by(event.octets);
    }
}

event! {
    /// A backup was given up; the points before it are as they were.
    BackupFailed { reason: String }
    error "backup failed"
    |event| RUNS.with_label_values(&["failed"]).inc()
}

event! {
    /// Something of a backup cannot be read back, or something of the store could not be taken.
    BackupNotWhole { findings: usize, first: String }
    error "backup is not whole"
    |event| RUNS.with_label_values(&["not_whole"]).inc()
}

event! {
    /// Old points went.
    BackupPruned { points: usize, objects: u64, octets: u64 }
    info "backup pruned"
    |event| RUNS.with_label_values(&["pruned"]).inc()
}

event! {
    /// A site came back from a backup.
    BackupRestored { point: String, accounts: u64, messages: u64 }
    info "backup restored"
    |event| RUNS.with_label_values(&["restored"]).inc()
}
