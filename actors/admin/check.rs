//! The walk over the store, for a command: how far it is, what it found, and what a repair made of that.

use posthouse_storage::check::{self, Finding, Options, Walked};
use posthouse_storage::repair;
use posthouse_wire::mime::{Limits, parse_structure};

use super::{AdminResult, CheckView, FindingView, MendedView, Progress, RepairView, view, words};
use crate::clock;
use crate::node::Services;

/// Proves the store's invariants.
pub(super) async fn store(services: &Services, bodies: bool, progress: Progress<'_>) -> AdminResult {
    let mut step = |walked: &Walked| tell(walked, progress);
    let report = check::run(&services.store, Options { bodies }, &mut step).await.map_err(words)?;
    let Walked { accounts, emails, bodies, spooled, queued, laid_aside, .. } = report.walked;
    view(&CheckView {
        whole: report.is_whole(),
        accounts,
        emails,
        bodies,
        spooled,
        queued,
        laid_aside,
        truncated: report.truncated,
        findings: report.findings.iter().map(finding).collect(),
    })
}

/// Mends the store, then proves it anew with its bodies.
pub(super) async fn repair(services: &Services, progress: Progress<'_>) -> AdminResult {
    // A node that was opened sends and receives; one that only runs this command does neither.
    if services.queues().is_ok() {
        return Err("the node is running: stop it, then repair its store".to_owned());
    }
    let parse =
        |octets: &[u8]| parse_structure(octets, u64::try_from(octets.len()).unwrap_or(u64::MAX), Limits::default());
    let mut step = |walked: &Walked| tell(walked, progress);
    let outcome = repair::run(&services.store, clock::now(), &parse, &mut step).await.map_err(words)?;
    let report = check::run(&services.store, Options::default(), &mut step).await.map_err(words)?;
    let mended = outcome.mended.into_iter().map(|mended| MendedView { place: mended.place, what: mended.what });
    view(&RepairView {
        whole: report.is_whole(),
        mended: mended.collect(),
        findings: report.findings.iter().map(finding).collect(),
    })
}

fn tell(walked: &Walked, progress: Progress<'_>) {
    let Walked { rows, accounts, emails, bodies, .. } = walked;
    let what = format!("{rows} rows, {accounts} accounts, {emails} messages, {bodies} bodies");
    progress(walked.done, Walked::DONE, &what);
}

fn finding(finding: &Finding) -> FindingView {
    FindingView {
        rule: format!("{:?}", finding.rule),
        place: finding.place.clone(),
        detail: finding.detail.clone(),
        remedy: finding.remedy.words().to_owned(),
    }
}
