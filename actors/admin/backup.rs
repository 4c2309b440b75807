//! Backups, for a command: taking one of the store that this node serves, and bringing a site or a part of it back.
//!
//! What only reads a target (list, verify, prune) needs no node and is done by the command itself.

mod part;

use posthouse_mail::Secret;
use posthouse_storage::backup::restore::{self, Wish};
use posthouse_storage::backup::{self, Access, Phase, Step, Target};

use super::{AdminResult, BackupTargetSpec, BackupView, Progress, RestoreOrder, RestoreView, view, words};
use crate::clock;
use crate::node::Services;

/// Takes a backup.
pub(super) async fn take(services: &Services, spec: BackupTargetSpec, progress: Progress<'_>) -> AdminResult {
    let target = Target::open_or_create(&access(spec), &services.settings.backup).await.map_err(words)?;
    let mut step = |step: &Step| tell(step, progress);
    let hostname = &services.settings.node.hostname;
    let taken = backup::run(&services.store, &target, hostname, &mut step).await.map_err(words)?;
    view(&BackupView {
        whole: taken.is_whole(),
        findings: taken.damaged.iter().chain(&taken.verified.findings).cloned().collect(),
        point: taken.point,
        accounts: taken.accounts,
        messages: taken.messages,
        under_way: taken.under_way,
        new_bodies: taken.bodies,
        written: taken.written,
        read_back: taken.verified.octets,
    })
}

/// Brings back a whole site, an account or a mailbox.
pub(super) async fn restore(services: &Services, order: RestoreOrder, progress: Progress<'_>) -> AdminResult {
    let target = Target::open(&access(order.target.clone()), &services.settings.backup).await.map_err(words)?;
    if order.account.is_some() {
        return view(&part::run(services, &target, &order, progress).await?);
    }
    // Accounts come one by one: mail to one that is not there yet would be refused for good.
    if services.queues().is_ok() {
        return Err("the node is running: stop it, then restore the whole site".to_owned());
    }
    let wish = Wish { point: order.point, without_queue: order.without_queue };
    let fences = |shard| services.placement.fence(shard);
    let mut step = |step: &Step| tell(step, progress);
    let restored = restore::whole(&services.store, &target, &wish, (&fences, clock::now()), &mut step).await;
    let restored = restored.map_err(words)?;
    view(&RestoreView {
        point: restored.point,
        accounts: restored.accounts,
        mailboxes: Vec::new(),
        messages: restored.messages,
        under_way: restored.under_way,
        left_out: restored.left_out,
    })
}

fn access(spec: BackupTargetSpec) -> Access {
    Access { location: spec.location, secret: spec.secret.map(Secret::new) }
}

/// One phase after the other as one bar: each has its share.
fn tell(step: &Step, progress: Progress<'_>) {
    let Step { accounts, messages, bodies, octets, .. } = step;
    let mebibytes = octets >> 20;
    let (begins, share, what) = match step.phase {
        Phase::Bodies => (0, 40, format!("{bodies} new bodies, {mebibytes} MiB")),
        Phase::Site => (40, 1, "domains and mail under way".to_owned()),
        Phase::Accounts => (41, 19, format!("{accounts} accounts, {messages} messages")),
        Phase::Verify => (60, 40, format!("read back: {bodies} bodies, {mebibytes} MiB")),
        Phase::Prune => (0, 100, "objects that no point needs".to_owned()),
        Phase::Restore => (0, 100, format!("{accounts} accounts, {messages} messages")),
    };
    let done = step.done.saturating_mul(share).checked_div(step.total).unwrap_or(0).min(share);
    progress(begins + done, 100, &what);
}
