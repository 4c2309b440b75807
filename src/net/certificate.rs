//! Certificates of our own making: a private CA, and a server certificate under it.
//!
//! `demo` and `init` use them so that TLS works from the first minute; whoever trusts `ca.pem` can verify the server. Keys
//! are readable by their owner only. Nothing here is asked for by clients: they see it as any other certificate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::KeyUsagePurpose;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::error::Error;

/// Where the files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CA's certificate, for clients to trust.
    pub ca: PathBuf,
    /// The server's certificate with its chain.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFETIME: Duration = DAY.saturating_mul(3650);
/// Clients of some makers refuse a longer life, even under a private CA.
const SERVER_LIFETIME: Duration = DAY.saturating_mul(820);
/// A certificate older than this is issued anew.
const SERVER_RENEWAL: Duration = DAY.saturating_mul(400);

/// The CA's certificate.
pub const CA_FILE: &str = "ca.pem";
/// The server's certificate.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// The server's private key.
pub const PRIVATE_KEY_FILE: &str = "key.pem";
/// The CA's private key.
const CA_KEY_FILE: &str = "ca.key";
/// What the server's certificate was made for, one name a line.
const NAMES_FILE: &str = "cert.names";

/// Makes what is missing in `dir`. What exists stays, so that clients that trust the CA go on working; the server's pair is
/// made anew when it grows old or its names change. A name may be the text of an address.
pub fn ensure(dir: &Path, names: &[String]) -> Result<Files, Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let files = Files {
        ca: dir.join(CA_FILE),
        certificate: dir.join(CERTIFICATE_FILE),
        private_key: dir.join(PRIVATE_KEY_FILE),
    };
    let (ca_key, ca_is_new) = authority(dir, &files.ca)?;
    let wanted = names.join("\n");
    let names_file = dir.join(NAMES_FILE);
    if !ca_is_new && is_current(&files, &names_file, &wanted) {
        return Ok(files);
    }
    let issuer = Issuer::new(authority_params(), ca_key);
    let key = KeyPair::generate().map_err(issue)?;
    let certificate = server_params(names)?.signed_by(&key, &issuer).map_err(issue)?;
    write(&files.private_key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.certificate, certificate.pem().as_bytes(), 0o644)?;
    write(&names_file, wanted.as_bytes(), 0o644)?;
    Ok(files)
}

/// Makes the pair with which a node shows itself to other nodes: in `out`, under the CA in `authority`, which is made when it
/// is not there. What `out` has already is replaced.
pub fn issue_node(authority_dir: &Path, out: &Path, names: &[String]) -> Result<Files, Error> {
    for dir in [authority_dir, out] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let ca_file = authority_dir.join(CA_FILE);
    let (ca_key, _) = authority(authority_dir, &ca_file)?;
    let issuer = Issuer::new(authority_params(), ca_key);
    let mut params = server_params(names)?;
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let key = KeyPair::generate().map_err(issue)?;
    let certificate = params.signed_by(&key, &issuer).map_err(issue)?;
    let files = Files {
        ca: out.join(CA_FILE),
        certificate: out.join(CERTIFICATE_FILE),
        private_key: out.join(PRIVATE_KEY_FILE),
    };
    write(&files.private_key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.certificate, certificate.pem().as_bytes(), 0o644)?;
    if ca_file != files.ca {
        write(&files.ca, &fs::read(&ca_file)?, 0o644)?;
    }
    Ok(files)
}

/// The CA's key, and whether it was made just now.
fn authority(dir: &Path, certificate: &Path) -> Result<(KeyPair, bool), Error> {
    let key_file = dir.join(CA_KEY_FILE);
    if key_file.exists() && certificate.exists() {
        let pem = fs::read_to_string(&key_file)?;
        let key = KeyPair::from_pem(&pem)
            .map_err(|error| Error::Certificate { path: key_file, reason: error.to_string() })?;
        return Ok((key, false));
    }
    let key = KeyPair::generate().map_err(issue)?;
    let root = authority_params().self_signed(&key).map_err(issue)?;
    write(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
    write(certificate, root.pem().as_bytes(), 0o644)?;
    Ok((key, true))
}

/// The same in every run: an existing CA is rebuilt from these and its key alone.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Posthouse private CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, CA_LIFETIME);
    params
}

fn server_params(names: &[String]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(issue)?;
    let common = names.first().map_or("Posthouse", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, SERVER_LIFETIME);
    Ok(params)
}

/// From an hour ago, for clients whose clocks lag.
fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + lifetime).into();
}

fn is_current(files: &Files, names_file: &Path, wanted: &str) -> bool {
    let age = fs::metadata(&files.certificate).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    files.private_key.exists()
        && age.is_some_and(|age| age < SERVER_RENEWAL)
        && fs::read_to_string(names_file).is_ok_and(|names| names == wanted)
}

/// Writes a file whole or not at all, with `mode` from its first octet on.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let staged = path.with_extension("new");
    // A leftover of a crash may have another mode, which `open` would keep.
    let _ = fs::remove_file(&staged);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    Ok(())
}

fn issue(error: rcgen::Error) -> Error {
    Error::Issue(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("a file")
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().expect("a folder");
        ensure(dir.path(), &["localhost".to_owned()]).expect("certificates");
        for name in [CA_KEY_FILE, PRIVATE_KEY_FILE] {
            let mode = fs::metadata(dir.path().join(name)).expect("a key").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_second_call_keeps_what_is_there_and_new_names_keep_the_ca() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = ["localhost".to_owned()];
        let files = ensure(dir.path(), &names).expect("certificates");
        let (ca, server) = (read(&files.ca), read(&files.certificate));
        ensure(dir.path(), &names).expect("certificates");
        assert_eq!((read(&files.ca), read(&files.certificate)), (ca.clone(), server.clone()));
        ensure(dir.path(), &["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("certificates");
        assert_eq!(read(&files.ca), ca);
        assert_ne!(read(&files.certificate), server);
    }
}
