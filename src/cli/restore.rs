//! `posthouse restore TARGET`: a whole site into an empty store, or an account, or a mailbox of it.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::admin::{AdminRequest, RestoreOrder, RestoreView};

use super::backup::TargetArgs;
use super::output::Output;
use super::{SiteArgs, admin_client, site};

#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// The point to restore to, as `backup list` shows it; else the one that was cut short, or the newest.
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// Only this account, by its address.
    #[arg(long, value_name = "ADDRESS")]
    account: Option<String>,
    /// Only this mailbox of the account.
    #[arg(long, value_name = "PATH", requires = "account")]
    mailbox: Option<String>,
    /// The mailbox that a restored one becomes, or under which those of an account go; it must not exist.
    #[arg(long, value_name = "PATH", requires = "account")]
    into: Option<String>,
    /// Leave the mail that was under way then: what has been sent since would be sent again.
    #[arg(long, conflicts_with = "account")]
    without_queue: bool,
}

pub async fn run(arguments: RestoreArgs, output: Output) -> anyhow::Result<ExitCode> {
    let RestoreArgs { site, target, point, account, mailbox, into, without_queue } = arguments;
    if account.is_none() {
        // A whole site goes into a store that need not be there yet.
        let folder = &site::settings(&site)?.node.data_dir;
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let order = RestoreOrder { target: target.spec()?, point, account, mailbox, into, without_queue };
    let restored: RestoreView = admin_client::ask(&site, AdminRequest::Restore(order), output).await?;
    output.result(&restored, text)?;
    Ok(if restored.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(restored: &RestoreView) -> String {
    let RestoreView { point, accounts, mailboxes, messages, under_way, left_out } = restored;
    let mut lines: Vec<String> = left_out.iter().map(|what| format!("left out: {what}")).collect();
    lines.push(match mailboxes.as_slice() {
        [] => format!("point {point}: {accounts} accounts, {messages} messages, {under_way} under way"),
        names => format!("point {point}: {messages} messages in {}", names.join(", ")),
    });
    lines.join("\n")
}
