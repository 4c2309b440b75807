//! `posthouse key rotate|add`: the keys that bodies in the store are encrypted under.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use posthouse_actors::admin::{AdminRequest, KeyView};
use posthouse_storage::Store;

use super::output::Output;
use super::{SiteArgs, admin_client, site};

#[derive(Args)]
pub struct KeyArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Subcommand)]
enum KeyVerb {
    /// Encrypt new bodies under the newest key of the key file, adding one if there is none that waits.
    Rotate,
    /// Add a key to the key file without using it yet, to bring the file to all nodes before `rotate`.
    Add,
}

pub async fn run(arguments: KeyArgs, output: Output) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        KeyVerb::Rotate => {
            let key: KeyView = admin_client::ask(&arguments.site, AdminRequest::KeyRotate, output).await?;
            output.result(&key, |view| format!("key {} is in use; keep a copy of the key file", view.key))
        }
        KeyVerb::Add => {
            let settings = site::settings(&arguments.site)?;
            let key = Store::add_key(&posthouse_actors::node::store_dir(&settings), &settings.storage)?;
            let view = KeyView { key: key.to_string() };
            output.result(&view, |view| format!("key {} is in the file and waits for `key rotate`", view.key))
        }
    }
}
