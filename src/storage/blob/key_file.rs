//! The file of the site's keys: whoever has it can read every body, without it nobody can.
//!
//! Apart from the store on purpose: a copy of the store alone tells nothing. One line is one key: its name, which is a hash
//! of it, so that a key never goes by a wrong name, and the key itself; the last line is the newest. The file is replaced
//! as a whole and only by a longer one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use posthouse_mail::secret::Secret;

use super::cipher::{self, KEY};
use super::segment::sync_dir;
use crate::error::{Error, from_io};

const HEAD: &str = "# The keys of a Posthouse store. Without this file no body in the store can be read again: keep a copy of\n\
    # it, apart from copies of the store. Lines are only added; the last key is the newest.\n";
/// Far more than keys that anybody ever makes.
const OCTETS_MAX: u64 = 1 << 20;

/// The name of one of the site's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KeyId::LENGTH]);

impl KeyId {
    pub(crate) const LENGTH: usize = 8;

    pub(crate) const fn new(octets: [u8; Self::LENGTH]) -> Self {
        Self(octets)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    fn of(key: &Secret<[u8; KEY]>) -> Self {
        let hash = blake3::derive_key("posthouse 2026-11 name of a storage key", key.reveal());
        let mut id = [0; Self::LENGTH];
        id.copy_from_slice(&hash[..Self::LENGTH]);
        Self(id)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A key with its name.
pub(crate) struct SiteKey {
    pub(crate) id: KeyId,
    pub(crate) octets: Secret<[u8; KEY]>,
}

/// The keys of a file, the newest last; none when there is no file.
pub(crate) fn read(path: &Path) -> Result<Vec<SiteKey>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(broken(path, &format!("it cannot be read: {error}"))),
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, OCTETS_MAX), &mut text)
        .map_err(|error| broken(path, &format!("it cannot be read: {error}")))?;
    let text = Secret::new(text);
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.reveal().lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        keys.push(parse(line).ok_or_else(|| broken(path, &format!("line {number} is damaged")))?);
    }
    match keys.is_empty() {
        true => Err(broken(path, "it holds no key")),
        false => Ok(keys),
    }
}

/// Adds a new key, making the file if there is none, and returns all.
pub(crate) fn add(path: &Path) -> Result<Vec<SiteKey>, Error> {
    // A node that rotates and a command that adds would else each write a file without the other's key.
    let _alone = lock(path).map_err(|error| from_io(&error, &format!("locking the key file {}", path.display())))?;
    let mut keys = read(path)?;
    let octets = cipher::random_key()?;
    keys.push(SiteKey { id: KeyId::of(&octets), octets });
    let mut text = Secret::new(HEAD.to_owned());
    for key in &keys {
        text = Secret::new(format!("{}{} {}\n", text.reveal(), key.id, hex(key.octets.reveal()).reveal()));
    }
    let fresh = path.with_added_extension("new");
    let replace = || {
        // What a start that was killed left behind.
        let _ = std::fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.reveal().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    };
    replace().map_err(|error| from_io(&error, &format!("writing the key file {}", path.display())))?;
    Ok(keys)
}

/// Keeps others from replacing the file until it is dropped. The file itself cannot be locked, as another takes its place.
fn lock(path: &Path) -> std::io::Result<File> {
    let beside = path.with_added_extension("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside)?;
    file.lock().map(|()| file)
}

fn parse(line: &str) -> Option<SiteKey> {
    let (name, octets) = line.split_once(' ')?;
    let octets = Secret::new(unhex::<KEY>(octets)?);
    let id = KeyId::of(&octets);
    (unhex(name)? == id.0).then_some(SiteKey { id, octets })
}

fn broken(path: &Path, reason: &str) -> Error {
    Error::Key(format!("the key file {}: {reason}; put a copy of it in its place", path.display()))
}

fn hex(octets: &[u8]) -> Secret<String> {
    Secret::new(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (place, octet) in octets.iter_mut().enumerate() {
        *octet = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_added_and_read_back_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("storage.keys");
        assert!(read(&path).expect("no file is no key").is_empty());
        let first = add(&path).expect("a key")[0].id;
        let second = add(&path).expect("a key")[1].id;
        let keys = read(&path).expect("keys");
        assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [first, second]);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    }

    #[test]
    fn keys_added_at_once_are_all_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("storage.keys");
        let added: Vec<KeyId> = std::thread::scope(|scope| {
            let add_some =
                || (0..10).map(|_| add(&path).expect("a key").last().expect("the newest").id).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(add_some)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
        });
        let kept: Vec<KeyId> = read(&path).expect("keys").iter().map(|key| key.id).collect();
        let lost = added.iter().filter(|id| !kept.contains(id)).count();
        assert_eq!((lost, kept.len()), (0, 40));
    }

    #[test]
    fn a_damaged_file_names_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("storage.keys");
        add(&path).expect("a key");
        let text = std::fs::read_to_string(&path).expect("a text");
        let last = text.trim_end().chars().last().expect("a digit");
        let other = if last == '0' { '1' } else { '0' };
        std::fs::write(&path, format!("{}{other}\n", &text[..text.len() - 2])).expect("written");
        let Err(Error::Key(reason)) = read(&path) else { panic!("not found") };
        assert!(reason.contains("line 3 is damaged"), "{reason}");
        for text in ["", "# nothing\n", "abcd", "abcd efgh", "é é"] {
            std::fs::write(&path, text).expect("written");
            assert!(matches!(read(&path), Err(Error::Key(_))), "{text:?}");
        }
    }
}
