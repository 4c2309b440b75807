//! `posthouse account create|list|show|set|delete`.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use posthouse_actors::admin::{AccountChange, AccountView, AdminRequest};
use posthouse_conf::Size;
use serde_json::Value;

use super::output::{self, Output};
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct AccountArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    verb: AccountVerb,
}

#[derive(Subcommand)]
enum AccountVerb {
    /// Create an account with its default mailboxes.
    Create {
        address: String,
        /// Read the password from standard input (one line).
        #[arg(long, required = true)]
        password_stdin: bool,
        /// For example 1GiB; 0B is none.
        #[arg(long, value_parser = parse_size)]
        quota: Option<Size>,
        /// The account may administer the site.
        #[arg(long)]
        admin: bool,
    },
    /// List accounts, of one domain or of all.
    List { domain: Option<String> },
    /// Show an account with its mailboxes.
    Show { address: String },
    /// Change an account.
    Set {
        address: String,
        /// Read a new password from standard input (one line).
        #[arg(long)]
        password_stdin: bool,
        /// For example 1GiB; 0B is none.
        #[arg(long, value_parser = parse_size)]
        quota: Option<Size>,
        /// Whether the account may log in and receive mail.
        #[arg(long)]
        enabled: Option<bool>,
        /// Whether the account may administer the site.
        #[arg(long)]
        admin: Option<bool>,
    },
    /// Delete an account and all its mail.
    Delete { address: String },
}

pub fn parse_size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| "a size needs a unit: B, KiB, MiB, GiB or TiB, as in 1GiB".to_owned())
}

pub async fn run(arguments: AccountArgs, output: Output) -> anyhow::Result<ExitCode> {
    let site = &arguments.site;
    let request = match arguments.verb {
        AccountVerb::List { domain } => {
            let accounts: Vec<AccountView> =
                admin_client::ask(site, AdminRequest::AccountList { domain }, output).await?;
            return output.result(&accounts, |accounts| list(accounts));
        }
        AccountVerb::Delete { address } => {
            let shown = address.clone();
            let done: Value = admin_client::ask(site, AdminRequest::AccountDelete { address }, output).await?;
            return output.result(&done, |_| format!("deleted {shown}"));
        }
        AccountVerb::Create { address, password_stdin: _, quota, admin } => {
            AdminRequest::AccountCreate { address, password: read_password()?, quota: quota.map(Size::get), admin }
        }
        AccountVerb::Show { address } => AdminRequest::AccountShow { address },
        AccountVerb::Set { address, password_stdin, quota, enabled, admin } => {
            let password = if password_stdin { Some(read_password()?) } else { None };
            AdminRequest::AccountSet {
                address,
                change: AccountChange { password, quota: quota.map(Size::get), enabled, admin },
            }
        }
    };
    let account: AccountView = admin_client::ask(site, request, output).await?;
    output.result(&account, show)
}

/// The first line of standard input.
pub fn read_password() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).context("the password on standard input")?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    anyhow::ensure!(!password.is_empty(), "the password on standard input is empty");
    Ok(password)
}

fn quota(account: &AccountView) -> String {
    if account.quota == 0 { "none".to_owned() } else { output::size(account.quota) }
}

fn list(accounts: &[AccountView]) -> String {
    let row = |account: &AccountView| {
        let role = if account.admin { "admin" } else { "user" };
        let state = if account.enabled { "enabled" } else { "disabled" };
        vec![
            account.address.clone(),
            role.to_owned(),
            state.to_owned(),
            account.messages.to_string(),
            output::size(account.used),
            quota(account),
        ]
    };
    let rows: Vec<Vec<String>> = accounts.iter().map(row).collect();
    output::table(&["address", "role", "state", "messages", "used", "quota"], &rows)
}

fn show(account: &AccountView) -> String {
    let rows: Vec<Vec<String>> =
        account.mailboxes.iter().map(|m| vec![m.name.clone(), m.messages.to_string(), m.unseen.to_string()]).collect();
    format!("{}\n{}", list(std::slice::from_ref(account)), output::table(&["mailbox", "messages", "unseen"], &rows))
}
