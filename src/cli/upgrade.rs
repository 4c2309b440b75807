//! `posthouse upgrade`: the running node hands its sessions to a new program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::admin::AdminRequest;
use posthouse_actors::node::UpgradeView;

use super::output::Output;
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// The new program; without it, the node's own as it lies on the disk now.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The new program takes the running process's place and keeps its id, whatever `upgrade.in_place` says.
    #[arg(long)]
    exec: bool,
}

pub async fn run(arguments: UpgradeArgs, output: Output) -> anyhow::Result<ExitCode> {
    let UpgradeArgs { site, binary, exec } = arguments;
    // The node may run in another folder.
    let program = binary.map(|path| path.canonicalize().with_context(|| path.display().to_string())).transpose()?;
    let upgraded: UpgradeView =
        admin_client::ask(&site, AdminRequest::Upgrade { program, in_place: exec }, output).await?;
    output.result(&upgraded, text)
}

fn text(view: &UpgradeView) -> String {
    format!(
        "{} serves now, pid {}\nsessions     {} moved, {} ended by themselves, {} bidden goodbye or cut off\n\
         state        {} octets, {} in the median; the process has {} MiB in memory\n\
         took         {} ms; a session stood still for {} ms in the median, {} ms at worst",
        view.program,
        view.pid,
        view.moved,
        view.finished,
        view.farewelled,
        view.octets,
        view.octets_median,
        view.resident_octets >> 20,
        view.milliseconds,
        view.session_frozen_median_microseconds / 1000,
        view.session_frozen_worst_microseconds / 1000,
    )
}
