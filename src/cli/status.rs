//! `posthouse status`: what a running node is doing.

use std::process::ExitCode;

use posthouse_actors::admin::{AdminRequest, StatusView};

use super::output::{Output, stretch};
use super::{SiteArgs, admin_client};

pub async fn run(site: SiteArgs, output: Output) -> anyhow::Result<ExitCode> {
    let status: StatusView = admin_client::ask(&site, AdminRequest::Status, output).await?;
    output.result(&status, text)
}

fn text(status: &StatusView) -> String {
    let state = match (status.draining, status.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "starting",
    };
    let mut lines = vec![
        format!("{} (posthouse {}, pid {})", status.hostname, status.version, status.pid),
        format!("state        {state}, up {}", stretch(status.uptime_seconds)),
        format!("connections  {}, {} of them asleep", status.connections, status.asleep),
        format!("mailboxes    {} active", status.active_mailboxes),
        format!("queue        {} waiting, {} being handed on", status.queued_messages, status.spooled_messages),
    ];
    lines.extend(status.listeners.iter().map(|l| format!("{:<12} {}", l.protocol, l.address)));
    lines.join("\n")
}
