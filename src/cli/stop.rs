//! `posthouse stop`: ends a running node cleanly.

use std::process::ExitCode;

use posthouse_actors::admin::AdminRequest;
use serde_json::Value;

use super::output::Output;
use super::{SiteArgs, admin_client};

pub async fn run(site: SiteArgs, output: Output) -> anyhow::Result<ExitCode> {
    let stopped: Value = admin_client::ask(&site, AdminRequest::Stop, output).await?;
    output.result(&stopped, |_| "stopped".to_owned())
}
