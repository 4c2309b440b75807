//! Real clients against the built program: what people will use on the first day. `.ci/run` installs them.
//!
//! Each test starts a demo of its own, lets a foreign program send or read, and looks at the other end. Ignored by
//! default, since a machine for development need not have them: `cargo test --test main interop -- --include-ignored`.

mod desktop;
mod dkim;
mod fetch;
mod libraries;
mod send;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::program::{Demo, Port};

/// Longest time of one foreign program.
const LIMIT: Duration = Duration::from_secs(120);

/// A demo, and a folder for a client's files.
struct Site {
    demo: Demo,
    folder: TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("posthouse-interop-").tempdir().expect("a folder for the client");
        Self { demo: Demo::start(), folder }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn port(&self, port: Port) -> String {
        self.demo.port(port).to_string()
    }

    fn authority(&self) -> String {
        self.demo.authority().to_string_lossy().into_owned()
    }

    /// Writes a file that only its owner may read, as clients want for passwords.
    fn write(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder().join(name);
        std::fs::write(&path, text).expect("a writable folder");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a file of ours");
        path.to_string_lossy().into_owned()
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A script that lies beside these tests.
fn script(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    path.to_string_lossy().into_owned()
}
