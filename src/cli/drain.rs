//! `posthouse drain`: the running node lets its clients go and takes no new ones.

use std::process::ExitCode;

use clap::Args;
use posthouse_actors::admin::AdminRequest;
use posthouse_actors::node::DrainView;

use super::output::Output;
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct DrainArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// End the node then; without it, it stays up without clients and can be watched and asked.
    #[arg(long)]
    stop: bool,
    /// Give balancers no notice, and let all idle sessions go at once.
    #[arg(long)]
    now: bool,
}

pub async fn run(arguments: DrainArgs, output: Output) -> anyhow::Result<ExitCode> {
    let DrainArgs { site, stop, now } = arguments;
    let drained: DrainView = admin_client::ask(&site, AdminRequest::Drain { now, stop }, output).await?;
    output.result(&drained, text)
}

fn text(view: &DrainView) -> String {
    let deliveries =
        if view.deliveries_finished { "none is under way any more" } else { "some were cut off, and wait" };
    format!(
        "drained      {} sessions: {} ended by themselves, {} were bidden goodbye, {} cut off\ndeliveries   {deliveries}\n\
         took         {} ms",
        view.sessions, view.finished, view.farewelled, view.cut, view.milliseconds
    )
}
