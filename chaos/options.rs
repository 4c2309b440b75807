//! Options that many of the programs take, and what each comes to where it is absent.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use tempfile::TempDir;

#[derive(clap::Args)]
pub struct Seed {
    /// Repeats a run, its moments and its draws; drawn and printed when absent.
    #[arg(long)]
    seed: Option<u64>,
}

impl Seed {
    /// To be asked once a run: without the option every call draws another one.
    pub fn draw(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

#[derive(clap::Args)]
pub struct Program {
    /// The built program; the one beside this one by default.
    #[arg(long)]
    posthouse: Option<PathBuf>,
}

impl Program {
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let program = match &self.posthouse {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("posthouse"),
        };
        ensure!(program.exists(), "{} is not built; name it with --posthouse", program.display());
        Ok(program)
    }
}

#[derive(clap::Args)]
pub struct Folder {
    /// Where files are laid, on the disk that is meant; among the system's temporary ones by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A folder that is removed at the end, unless it was named: then it stays to be looked at.
pub struct Lab {
    named: Option<PathBuf>,
    temporary: TempDir,
}

impl Folder {
    /// The folder itself, for what is to stay.
    pub fn lab(&self, prefix: &str) -> anyhow::Result<Lab> {
        let temporary = tempfile::Builder::new().prefix(prefix).tempdir()?;
        Ok(Lab { named: self.dir.clone(), temporary })
    }

    /// A new one within it, which goes at the end.
    pub fn temporary(&self, prefix: &str) -> anyhow::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(prefix);
        Ok(match &self.dir {
            Some(dir) => builder.tempdir_in(dir)?,
            None => builder.tempdir()?,
        })
    }
}

impl Lab {
    pub fn path(&self) -> &Path {
        self.named.as_deref().unwrap_or(self.temporary.path())
    }
}
