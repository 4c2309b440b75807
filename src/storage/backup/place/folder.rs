//! A backup in a folder: one file an object, made under a name of its own, synced, then renamed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Listed, UNFINISHED};
use crate::error::{Error, from_io};

/// The file whose lock `Alone` holds, among what has no name yet.
const ALONE: &str = "alone";

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

impl Made {
    /// A name that nobody else has; the folder above it is made.
    fn in_folder(root: &Path) -> Result<Self, Error> {
        let path = root.join(UNFINISHED).join(format!("{:032x}", rand::random::<u128>()));
        make_parent(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.0);
    }
}

/// The right to compare a file and then write it, which a folder cannot do in one step: a lock of the system's on a file
/// that is made for it. It ends with its process. Where the file system knows no locks it is worth nothing, and what is
/// left is that two at the same moment may both believe that they were first.
struct Alone {
    path: PathBuf,
    /// Unlocked when it is closed, after the file is gone.
    _locked: File,
}

impl Alone {
    fn in_folder(root: &Path) -> Result<Self, Error> {
        let path = root.join(UNFINISHED).join(ALONE);
        make_parent(&path)?;
        loop {
            let opened = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = opened.map_err(|error| failed(&error, &path))?;
            let is_locked = file.lock().is_ok();
            // Whoever had it removes the file: a lock on what has no name any more keeps nobody out.
            if !is_locked || is_at(&file, &path).map_err(|error| failed(&error, &path))? {
                return Ok(Self { path, _locked: file });
            }
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // One that is left behind is taken by the next.
        let _ = fs::remove_file(&self.path);
    }
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub async fn put_new(&self, name: &str, content: Bytes) -> Result<bool, Error> {
        let (root, name) = (self.root.clone(), name.to_owned());
        blocking(move || {
            let _alone = Alone::in_folder(&root)?;
            put_new(&root, &root.join(name), &content)
        })
        .await
    }

    pub async fn replace(&self, name: &str, old: Bytes, new: Bytes) -> Result<bool, Error> {
        let (root, path) = (self.root.clone(), self.root.join(name));
        blocking(move || {
            let _alone = Alone::in_folder(&root)?;
            let max = u64::try_from(old.len()).unwrap_or(u64::MAX);
            if read(&path, max)?.is_none_or(|found| found != old) {
                return Ok(false);
            }
            let made = Made::in_folder(&root)?;
            write_new(&made.0, &new).map_err(|error| failed(&error, &made.0))?;
            fs::rename(&made.0, &path).map_err(|error| failed(&error, &path))?;
            sync_folders(&root, &path)?;
            Ok(true)
        })
        .await
    }

    pub async fn remove_if(
        &self,
        (name, max): (&str, u64),
        is_meant: impl Fn(Bytes) -> bool + Send + 'static,
    ) -> Result<bool, Error> {
        let (root, path) = (self.root.clone(), self.root.join(name));
        blocking(move || {
            let _alone = Alone::in_folder(&root)?;
            if !read(&path, max)?.is_some_and(&is_meant) {
                return Ok(false);
            }
            fs::remove_file(&path).map_err(|error| failed(&error, &path))?;
            Ok(true)
        })
        .await
    }

    pub async fn written_at(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        let path = self.root.join(name);
        blocking(move || match fs::metadata(&path).and_then(|found| found.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error, &path)),
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
        blocking(move || remove(&path)).await
    }

    pub async fn upload(&self, name: &str) -> Result<Part, Error> {
        let (root, name) = (self.root.clone(), name.to_owned());
        blocking(move || {
            let made = Made::in_folder(&root)?;
            let file = Arc::new(open_new(&made.0).map_err(|error| failed(&error, &made.0))?);
            Ok(Part { root, file, made, name })
        })
        .await
    }

    pub async fn tidy(&self) -> Result<(), Error> {
        let root = self.root.clone();
        blocking(move || {
            // What somebody else makes while it is alone is not left behind.
            let _alone = Alone::in_folder(&root)?;
            let mut left = Vec::new();
            walk(&root, &root.join(UNFINISHED), &mut left)?;
            for left in left.iter().filter(|left| left.name.strip_prefix(UNFINISHED) != Some(ALONE)) {
                remove(&root.join(&left.name))?;
            }
            Ok(())
        })
        .await
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

/// Whether the file of this name is still the one that was opened.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The caller is alone.
fn put_new(root: &Path, path: &Path, content: &[u8]) -> Result<bool, Error> {
    let made = Made::in_folder(root)?;
    make_parent(path)?;
    write_new(&made.0, content).map_err(|error| failed(&error, &made.0))?;
    let is_new = link_new(&made.0, path, content)?;
    sync_folders(root, path)?;
    Ok(is_new)
}

/// A whole file; `None`: there is none, or one of more than `max` octets, which is none that is looked for.
fn read(path: &Path, max: u64) -> Result<Option<Bytes>, Error> {
    let content = || {
        let mut octets = Vec::new();
        File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut octets)?;
        Ok::<_, io::Error>(octets)
    };
    match content() {
        Ok(found) => Ok(Some(found).filter(|found| found.len() as u64 <= max).map(Bytes::from)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error, path)),
    }
}

/// One that is gone is no error.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error, path)),
        _ => Ok(()),
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = open_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives a file, whole as it is, another name too, unless there is one of that name; whether it did.
fn link_new(from: &Path, to: &Path, content: &[u8]) -> Result<bool, Error> {
    let linked = match fs::hard_link(from, to) {
        // Some file systems know one name for a file only: there it is seen while it is written.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            write_new(to, content)
        }
        linked => linked,
    };
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(&error, to)),
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
