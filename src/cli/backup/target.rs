//! Which backup a command is for, and what opens it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::admin::BackupTargetSpec;
use posthouse_conf::Backup;
use posthouse_mail::Secret;
use posthouse_storage::backup::{Access, Target};

use super::super::{SiteArgs, site};

#[derive(Args)]
pub struct TargetArgs {
    /// The folder of the backup, or `s3://BUCKET/PREFIX`.
    #[arg(value_name = "TARGET")]
    location: String,
    /// The file with the key or passphrase of an encrypted backup; a new one is encrypted when this is given.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Octets of a key file that are read.
const KEY_MAX: u64 = 64 * 1024;

impl TargetArgs {
    /// The target as a node is told of it: its folder may be another one than this command's.
    pub fn spec(&self) -> anyhow::Result<BackupTargetSpec> {
        if self.location.contains("://") {
            return Ok(BackupTargetSpec { location: self.location.clone(), secret: self.secret()? });
        }
        let location = std::path::absolute(&self.location).with_context(|| self.location.clone())?;
        let location = location.to_str().context("the folder of the backup has a name that is no text")?.to_owned();
        Ok(BackupTargetSpec { location, secret: self.secret()? })
    }

    /// Opens a target that is there; without a site's configuration by the defaults.
    pub async fn open(&self, site: &SiteArgs) -> anyhow::Result<Target> {
        let settings = match site.config.is_none() && site.data.is_none() {
            true => site::settings(site).map(|settings| settings.backup.clone()).unwrap_or_default(),
            false => site::settings(site)?.backup.clone(),
        };
        let BackupTargetSpec { location, secret } = self.spec()?;
        let settings: Backup = settings;
        Ok(Target::open(&Access { location, secret: secret.map(Secret::new) }, &settings).await?)
    }

    /// The key without the line's end behind it.
    fn secret(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.key_file else { return Ok(None) };
        let shown = || file.display().to_string();
        let size = std::fs::metadata(file).with_context(shown)?.len();
        anyhow::ensure!(size <= KEY_MAX, "{} is too long for a key", shown());
        let text = std::fs::read_to_string(file).with_context(shown)?;
        let key = text.trim_end_matches(['\r', '\n']);
        anyhow::ensure!(!key.is_empty(), "{} is empty", shown());
        Ok(Some(key.to_owned()))
    }
}
