//! `posthouse alias create|list|show|set|delete`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use posthouse_actors::admin::{AdminRequest, AliasView};
use serde_json::Value;

use super::output::{self, Output};
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct AliasArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    verb: AliasVerb,
}

#[derive(Subcommand)]
enum AliasVerb {
    /// Make an address stand for others, local or remote.
    Create {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// List aliases, of one domain or of all.
    List { domain: Option<String> },
    /// Show an alias.
    Show { address: String },
    /// Replace the targets of an alias.
    Set {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Delete an alias.
    Delete { address: String },
}

pub async fn run(arguments: AliasArgs, output: Output) -> anyhow::Result<ExitCode> {
    let site = &arguments.site;
    let request = match arguments.verb {
        AliasVerb::List { domain } => {
            let aliases: Vec<AliasView> = admin_client::ask(site, AdminRequest::AliasList { domain }, output).await?;
            return output.result(&aliases, |aliases| list(aliases));
        }
        AliasVerb::Delete { address } => {
            let shown = address.clone();
            let done: Value = admin_client::ask(site, AdminRequest::AliasDelete { address }, output).await?;
            return output.result(&done, |_| format!("deleted {shown}"));
        }
        AliasVerb::Create { address, targets } => AdminRequest::AliasCreate { address, targets },
        AliasVerb::Show { address } => AdminRequest::AliasShow { address },
        AliasVerb::Set { address, targets } => AdminRequest::AliasSet { address, targets },
    };
    let alias: AliasView = admin_client::ask(site, request, output).await?;
    output.result(&alias, |alias| list(std::slice::from_ref(alias)))
}

fn list(aliases: &[AliasView]) -> String {
    let rows: Vec<Vec<String>> = aliases.iter().map(|a| vec![a.address.clone(), a.targets.join(", ")]).collect();
    output::table(&["alias", "targets"], &rows)
}
