//! Which node a command is for: a configuration file, or the data folder of a demo.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use posthouse_conf::Settings;

use super::SiteArgs;

/// The data folder of a demo unless `--data` says otherwise.
pub const DEMO_DIR: &str = "posthouse-demo";
/// The configuration that a demo leaves in its folder, for the other commands.
pub const DEMO_CONFIG: &str = "posthouse.toml";

/// The settings of the node, environment applied.
pub fn settings(site: &SiteArgs) -> anyhow::Result<Arc<Settings>> {
    let file = config_file(site);
    if site.config.is_none() && !file.exists() {
        anyhow::bail!(
            "{} has no {DEMO_CONFIG}: start `posthouse demo`, or name a node with --config",
            folder(site).display()
        );
    }
    load(&file)
}

/// Reads a configuration file; a relative `node.data_dir` lies beside the file.
pub fn load(file: &Path) -> anyhow::Result<Arc<Settings>> {
    let mut settings = posthouse_conf::load(file, environment())?;
    let base = std::path::absolute(file).with_context(|| file.display().to_string())?;
    let base = base.parent().unwrap_or(Path::new("/"));
    // Walking the components drops a lone `.`, so that errors show the folder as a person writes it.
    settings.node.data_dir = base.join(&settings.node.data_dir).components().collect();
    let Settings { tls, queue, storage, backup, .. } = &mut settings;
    let (served, serve) = (&mut storage.served, &mut storage.serve);
    for path in [
        &mut tls.certificate,
        &mut tls.private_key,
        &mut queue.smarthost_password_file,
        &mut served.ca,
        &mut served.certificate,
        &mut served.private_key,
        &mut serve.ca,
        &mut serve.certificate,
        &mut serve.private_key,
        &mut storage.key_file,
        &mut storage.object_store.secret_key_file,
        &mut backup.object_store.secret_key_file,
    ] {
        if !path.as_os_str().is_empty() {
            *path = base.join(&path);
        }
    }
    Ok(Arc::new(settings))
}

/// The environment as text; a variable that is not UTF-8 is none of ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn folder(site: &SiteArgs) -> PathBuf {
    site.data.clone().unwrap_or_else(|| PathBuf::from(DEMO_DIR))
}

fn config_file(site: &SiteArgs) -> PathBuf {
    site.config.clone().unwrap_or_else(|| folder(site).join(DEMO_CONFIG))
}
