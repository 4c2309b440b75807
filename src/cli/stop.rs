//! `posthouse stop`: ends a running node cleanly.

use std::process::ExitCode;

use clap::Args;
use posthouse_actors::admin::AdminRequest;
use serde_json::Value;

use super::output::Output;
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct StopArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// Return only when the node has ended, and its store is free.
    #[arg(long)]
    wait: bool,
}

pub async fn run(arguments: StopArgs, output: Output) -> anyhow::Result<ExitCode> {
    let StopArgs { site, wait } = arguments;
    if !wait {
        let stopping: Value = admin_client::ask(&site, AdminRequest::Stop, output).await?;
        return output.result(&stopping, |_| "stopping".to_owned());
    }
    let stopped = admin_client::ask_to_the_end(&site, AdminRequest::Stop, output).await?;
    output.result(&stopped, |_| "stopped".to_owned())
}
