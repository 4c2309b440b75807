//! Unix sockets of a node, for commands and for its successor; apart from listeners because their safety is file permissions.
//!
//! A socket lies in the data folder with mode 0600. A data folder whose path is too long for a socket name (108 octets with
//! the final NUL on Linux) falls back to a short path in the runtime folder, the same for node and command.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use tokio::net::{UnixListener, UnixStream};

/// The listening end, for crates that name no socket type.
pub type AdminListener = UnixListener;
/// A connection to it.
pub type AdminStream = UnixStream;

/// Octets in a socket path that every supported system takes.
const PATH_MAX: usize = 100;

/// Where the socket of a data folder lies.
pub fn path(data_dir: &Path) -> io::Result<PathBuf> {
    place(data_dir, "admin.sock", "sock")
}

/// Where a node waits for the process that takes its sessions over.
pub(crate) fn handoff_path(data_dir: &Path) -> io::Result<PathBuf> {
    place(data_dir, "handoff.sock", "handoff.sock")
}

/// Where a custodian waits for whoever is to have what it keeps.
pub(crate) fn custody_path(data_dir: &Path) -> io::Result<PathBuf> {
    place(data_dir, "custody.sock", "custody.sock")
}

/// `near` is a name in the data folder, `far` what follows the folder's hash in the runtime folder.
fn place(data_dir: &Path, near: &str, far: &str) -> io::Result<PathBuf> {
    let whole = std::path::absolute(data_dir)?;
    let near = whole.join(near);
    if near.as_os_str().len() <= PATH_MAX {
        return Ok(near);
    }
    let hash = digest::digest(&digest::SHA256, whole.as_os_str().as_encoded_bytes());
    let name: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(runtime_dir()?.join(format!("{name}.{far}")))
}

/// A folder that only this user can enter: `$XDG_RUNTIME_DIR/posthouse`, or `/tmp/posthouse-UID` made so.
fn runtime_dir() -> io::Result<PathBuf> {
    let uid = std::fs::metadata("/proc/self")?.uid();
    let dir = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if runtime.len() < 40 => PathBuf::from(runtime).join("posthouse"),
        _ => PathBuf::from(format!("/tmp/posthouse-{uid}")),
    };
    if let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(&dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    // Somebody else could have made the folder first, to read what we send.
    let found = std::fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let message = format!("{} is not a folder of this user with mode 0700", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(dir)
}

/// Listens on the socket of a data folder. The caller holds the folder's lock, so a socket file that is there is stale.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    listen(&path(data_dir)?)
}

/// Listens on a path that nobody listens on, in place of a stale socket file.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    // The socket is made under a name of its own and shown under its real one only when nobody else can open it.
    let hidden = path.with_extension("new");
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Connects to the node that serves a data folder.
pub async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path(data_dir)?).await
}

/// Removes the socket when the node ends.
pub fn unbind(data_dir: &Path) {
    if let Ok(path) = path(data_dir) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_data_path_falls_back_to_a_short_one() {
        let long = Path::new("/").join("d".repeat(150));
        let path = path(&long).expect("a path");
        assert!(path.as_os_str().len() <= PATH_MAX, "{}", path.display());
        let short = super::path(Path::new("/srv/mail")).expect("a path");
        assert_eq!(short, Path::new("/srv/mail/admin.sock"));
    }

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().expect("a folder");
        let _listener = bind(dir.path()).expect("a socket");
        let mode = std::fs::metadata(path(dir.path()).expect("a path")).expect("the socket").mode();
        assert_eq!(mode & 0o777, 0o600);
        connect(dir.path()).await.expect("the owner connects");
    }
}
