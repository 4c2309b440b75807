//! A backup in a folder: one file an object, made under a name of its own, synced, then renamed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Listed, UNFINISHED};
use crate::error::{Error, from_io};

#[derive(Clone)]
pub(super) struct Folder {
    root: Arc<Path>,
}

/// A file in the making.
pub(super) struct Part {
    root: Arc<Path>,
    file: Arc<File>,
    made: Made,
    name: String,
}

/// Where it is made; removed with this value unless it got its name.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.0);
    }
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub async fn put_new(&self, name: &str, content: Bytes) -> Result<bool, Error> {
        let (root, name) = (self.root.clone(), name.to_owned());
        blocking(move || {
            let path = root.join(&name);
            make_parent(&path)?;
            let mut file = match File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                file => file.map_err(|error| failed(&error, &path))?,
            };
            file.write_all(&content).and_then(|()| file.sync_all()).map_err(|error| failed(&error, &path))?;
            sync_folders(&root, &path)?;
            Ok(true)
        })
        .await
    }

    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let path = self.root.join(name);
        blocking(move || {
            let file = File::open(&path).map_err(|error| failed(&error, &path))?;
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let held = file.metadata().map_err(|error| failed(&error, &path))?.len();
            if range.end > held {
                return Err(Error::BackupDamaged(format!("{} ends at {held} of {}", path.display(), range.end)));
            }
            let mut octets = vec![0; length];
            file.read_exact_at(&mut octets, range.start).map_err(|error| failed(&error, &path))?;
            Ok(octets.into())
        })
        .await
    }

    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        let path = self.root.join(name);
        blocking(move || match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error, &path)),
        })
        .await
    }

    pub async fn list(&self, below: &str) -> Result<Vec<Listed>, Error> {
        let (root, below) = (self.root.clone(), below.to_owned());
        blocking(move || {
            let mut found = Vec::new();
            walk(&root, &root.join(&below), &mut found)?;
            Ok(found)
        })
        .await
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error, &path)),
            _ => Ok(()),
        })
        .await
    }

    pub async fn upload(&self, name: &str) -> Result<Part, Error> {
        let (root, name) = (self.root.clone(), name.to_owned());
        blocking(move || {
            let path = root.join(UNFINISHED).join(format!("{:032x}", rand::random::<u128>()));
            make_parent(&path)?;
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let file = Arc::new(file.map_err(|error| failed(&error, &path))?);
            Ok(Part { root, file, made: Made(path), name })
        })
        .await
    }

    pub async fn tidy(&self) -> Result<(), Error> {
        for left in self.list(UNFINISHED).await? {
            self.delete(&left.name).await?;
        }
        Ok(())
    }
}

impl Part {
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        let (file, path) = (self.file.clone(), self.made.0.clone());
        blocking(move || (&*file).write_all(&content).map_err(|error| failed(&error, &path))).await
    }

    pub async fn finish(self) -> Result<(), Error> {
        blocking(move || {
            let path = self.root.join(&self.name);
            self.file.sync_all().map_err(|error| failed(&error, &self.made.0))?;
            make_parent(&path)?;
            fs::rename(&self.made.0, &path).map_err(|error| failed(&error, &path))?;
            sync_folders(&self.root, &path)
        })
        .await
    }
}

/// Makes the folders above a file: what is in them is for their owner only, as it holds mail and keys.
fn make_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|error| failed(&error, parent))
}

/// A file has its name durably only with the folders above it.
fn sync_folders(root: &Path, path: &Path) -> Result<(), Error> {
    let within = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
    for folder in within {
        let synced = File::open(folder).and_then(|opened| opened.sync_all());
        synced.map_err(|error| failed(&error, folder))?;
    }
    Ok(())
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Listed>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| failed(&error, folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(&error, folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(|error| failed(&error, &path))?;
        if metadata.is_dir() {
            walk(root, &path, found)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            found.push(Listed { name: name.to_owned(), octets: metadata.len() });
        }
    }
    Ok(())
}

fn failed(error: &std::io::Error, path: &Path) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::BackupDamaged(format!("{} is missing", path.display())),
        _ => from_io(error, &path.display().to_string()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Unavailable(format!("a task of the backup ended early: {error}")))?
}
