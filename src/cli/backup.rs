//! `posthouse backup TARGET`, `backup list|prune TARGET`: taking backups, reading them back, looking after them.
//!
//! A backup is taken by the running node, or of a stopped store by this command. What only reads the target needs neither.

mod target;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use posthouse_actors::admin::{AdminRequest, BackupView};
use posthouse_storage::backup::{self, PointView, Pruned, Step, Verified};
use serde_json::json;

use super::output::{self, Output};
use super::{SiteArgs, admin_client};
pub use target::TargetArgs;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackupArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    target: Option<TargetArgs>,
    /// Take none: read everything back that is there.
    #[arg(long)]
    verify: bool,
    #[command(subcommand)]
    verb: Option<BackupVerb>,
}

#[derive(Subcommand)]
enum BackupVerb {
    /// List the points that a backup can be restored to.
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Remove old points, and what only they needed.
    Prune {
        #[command(flatten)]
        target: TargetArgs,
        /// How many of the newest points stay.
        #[arg(long, value_name = "N")]
        keep: usize,
    },
}

pub async fn run(arguments: BackupArgs, output: Output) -> anyhow::Result<ExitCode> {
    let site = &arguments.site;
    match (arguments.verb, arguments.target) {
        (Some(BackupVerb::List { target }), _) => {
            let points = target.open(site).await?.points().await?;
            let shown: Vec<serde_json::Value> = points.iter().map(point).collect();
            output.result(&shown, |_| list(&points))
        }
        (Some(BackupVerb::Prune { target, keep }), _) => {
            let target = target.open(site).await?;
            let pruned = backup::prune(&target, keep, &mut |step| show(output, step)).await?;
            let Pruned { points, objects, octets, kept } = pruned;
            let shown = json!({ "points": points, "objects": objects, "octets": octets, "kept": kept });
            output.result(&shown, |_| format!("{points} points removed, {kept} kept; {} freed", output::size(octets)))
        }
        (None, Some(target)) if arguments.verify => verify(site, &target, output).await,
        (None, Some(target)) => take(site, &target, output).await,
        (None, None) => anyhow::bail!("name the backup: a folder, or s3://BUCKET/PREFIX"),
    }
}

async fn take(site: &SiteArgs, target: &TargetArgs, output: Output) -> anyhow::Result<ExitCode> {
    let request = AdminRequest::Backup { target: target.spec()? };
    let taken: BackupView = admin_client::ask(site, request, output).await?;
    output.result(&taken, |taken| {
        let BackupView { point, accounts, messages, under_way, new_bodies, written, read_back, .. } = taken;
        let mut lines = taken.findings.clone();
        lines.push(format!(
            "point {point}: {accounts} accounts, {messages} messages, {under_way} under way; {new_bodies} new bodies, {} written, {} read back",
            output::size(*written),
            output::size(*read_back),
        ));
        lines.extend((!taken.whole).then(|| "not whole: see above; `posthouse check --store` tells of the store".to_owned()));
        lines.join("\n")
    })?;
    Ok(code(taken.whole))
}

async fn verify(site: &SiteArgs, target: &TargetArgs, output: Output) -> anyhow::Result<ExitCode> {
    let target = target.open(site).await?;
    let verified = backup::verify(&target, &mut |step| show(output, step)).await?;
    let Verified { points, packs, bodies, octets, accounts, messages, truncated, .. } = verified;
    let shown = json!({
        "whole": verified.is_whole(), "points": points, "packs": packs, "bodies": bodies, "octets": octets,
        "accounts": accounts, "messages": messages, "findings": verified.findings, "truncated": truncated,
    });
    output.result(&shown, |_| {
        let mut lines = verified.findings.clone();
        let state = if verified.is_whole() { "whole" } else { "damaged: the next backup writes anew what it needs" };
        lines.push(format!("the backup is {state}; {points} points, {bodies} bodies, {} read", output::size(octets)));
        lines.join("\n")
    })?;
    Ok(code(verified.is_whole()))
}

fn code(whole: bool) -> ExitCode {
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(output: Output, step: &Step) {
    output.progress(step.done, step.total, &format!("{} bodies, {}", step.bodies, output::size(step.octets)));
}

fn point(point: &PointView) -> serde_json::Value {
    json!({
        "point": point.id, "started_at": point.started_at.0, "finished_at": point.finished_at.0,
        "hostname": point.hostname, "version": point.version, "accounts": point.accounts,
        "messages": point.messages, "written": point.written,
        "damaged": point.damaged,
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn list(points: &[PointView]) -> String {
    let row = |point: &PointView| {
        let begun = format!("{} ago", output::stretch(now().saturating_sub(point.started_at.0) / 1000));
        if point.damaged.is_some() {
            return vec![point.id.clone(), begun, "damaged".to_owned()];
        }
        vec![
            point.id.clone(),
            begun,
            output::stretch(point.finished_at.0.saturating_sub(point.started_at.0) / 1000),
            point.hostname.clone(),
            point.accounts.to_string(),
            point.messages.to_string(),
            output::size(point.written),
        ]
    };
    let rows: Vec<Vec<String>> = points.iter().map(row).collect();
    let mut shown = output::table(&["point", "begun", "took", "host", "accounts", "messages", "added"], &rows);
    for (point, damaged) in points.iter().filter_map(|point| Some((&point.id, point.damaged.as_ref()?))) {
        shown.push_str(&format!("point {point} cannot be read: {damaged}\n"));
    }
    shown
}
