//! The walk over the store, for a command: how far it is, and what it found.

use posthouse_storage::check::{self, Finding, Options, Walked};

use super::{AdminResult, CheckView, FindingView, Progress, view, words};
use crate::node::Services;

/// Proves the store's invariants.
pub(super) async fn store(services: &Services, bodies: bool, progress: Progress<'_>) -> AdminResult {
    let mut step = |walked: &Walked| {
        let Walked { rows, accounts, emails, bodies, .. } = walked;
        let what = format!("{rows} rows, {accounts} accounts, {emails} messages, {bodies} bodies");
        progress(walked.done, Walked::DONE, &what);
    };
    let report = check::run(&services.store, Options { bodies }, &mut step).await.map_err(words)?;
    let Walked { accounts, emails, bodies, spooled, queued, .. } = report.walked;
    view(&CheckView {
        whole: report.is_whole(),
        accounts,
        emails,
        bodies,
        spooled,
        queued,
        truncated: report.truncated,
        findings: report.findings.iter().map(finding).collect(),
    })
}

fn finding(finding: &Finding) -> FindingView {
    FindingView {
        rule: format!("{:?}", finding.rule),
        place: finding.place.clone(),
        detail: finding.detail.clone(),
        remedy: finding.remedy.words().to_owned(),
    }
}
