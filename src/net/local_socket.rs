//! Unix sockets of a node, for commands and for its successor; apart from listeners because their safety is file permissions.
//!
//! A socket lies in the data folder with mode 0600, and is made where nobody else can reach it, whatever the umask. Whoever is
//! let in is of the node's own user, or root: the kernel says so. A data folder whose path is too long for a socket name (108 octets with
//! the final NUL on Linux) falls back to a short path in the runtime folder, the same for node and command.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use posthouse_obs::emit;
use posthouse_obs::event::net::StrangerRefused;
use tokio::net::{UnixListener, UnixStream};

use crate::descriptors::own_uid;

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
    // Between its birth and the change of its mode a socket is open to whomever the umask lets in. So it is made in a folder
    // that nobody else can enter, and moved to its real name when nobody else can open it.
    let hidden = path.with_extension("new");
    let inside = hidden.join("s");
    // Of a run that was killed in the middle.
    let _ = std::fs::remove_file(&inside);
    let _ = std::fs::remove_dir(&hidden);
    let _ = std::fs::remove_file(&hidden);
    std::fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    let listener = UnixListener::bind(&inside)?;
    std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&inside, path)?;
    std::fs::remove_dir(&hidden)?;
    Ok(listener)
}

/// The next connection of somebody who may give this process commands; others are closed without a word.
pub async fn accept(listener: &AdminListener) -> io::Result<AdminStream> {
    accept_from(listener, |user| may_command(user, own_uid())).await
}

async fn accept_from(listener: &AdminListener, admits: impl Fn(u32) -> bool) -> io::Result<AdminStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        // Who has gone already has nothing to say.
        let Ok(peer) = stream.peer_cred() else { continue };
        if admits(peer.uid()) {
            return Ok(stream);
        }
        emit(StrangerRefused { uid: peer.uid() });
    }
}

/// Root could as well become the owner.
fn may_command(user: u32, owner: u32) -> bool {
    user == owner || user == 0
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(names, ["admin.sock"]);
        connect(dir.path()).await.expect("the owner connects");
    }

    #[tokio::test]
    async fn what_a_run_left_that_was_killed_is_no_hindrance() {
        let dir = tempfile::tempdir().expect("a folder");
        let hidden = dir.path().join("admin.new");
        let _old = UnixListener::bind(&hidden).expect("a socket");
        bind(dir.path()).expect("a socket");
        std::fs::create_dir(&hidden).expect("a folder");
        let _half = UnixListener::bind(hidden.join("s")).expect("a socket");
        bind(dir.path()).expect("a socket");
        assert!(!hidden.exists());
    }

    #[tokio::test]
    async fn a_stranger_who_connects_all_the_same_is_closed_and_the_next_one_served() {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = bind(dir.path()).expect("a socket");
        let (mut first, mut second) =
            (connect(dir.path()).await.expect("one"), connect(dir.path()).await.expect("another"));
        let asked = std::cell::Cell::new(0);
        let every_second = |_| {
            asked.set(asked.get() + 1);
            asked.get() == 2
        };
        let mut served = accept_from(&listener, every_second).await.expect("a connection");
        served.write_all(b"x").await.expect("it is open");
        let mut octet = [0];
        assert_eq!(first.read(&mut octet).await.ok(), Some(0), "closed");
        assert_eq!(second.read(&mut octet).await.ok(), Some(1));
    }

    #[test]
    fn the_owner_and_root_may_give_commands() {
        assert!(may_command(1000, 1000) && may_command(0, 1000) && may_command(0, 0));
        assert!(!may_command(1001, 1000) && !may_command(1000, 0));
    }
}
