//! An open target: where it lies, its key, and the objects in it.
//!
//! Row objects are named by their contents, so that one which is there already need not be written again and one that is
//! not what its name says is damage.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use posthouse_conf::Backup as Settings;
use posthouse_mail::secret::Secret;
use prost::Message as _;

use super::object::{self, OBJECT_MAX};
use super::place::Place;
use super::record::{FORMAT, KeyRow, TargetRow};
use super::seal::{self, Kind, Sealer};
use crate::error::Error;

/// Where a backup lies, and what opens it.
#[derive(Debug, Clone)]
pub struct Access {
    /// The path of a folder, or `s3://BUCKET/PREFIX`.
    pub location: String,
    /// A passphrase or the content of a key file; `None`: not encrypted.
    pub secret: Option<Secret<String>>,
}

/// A target; a cheap clone.
#[derive(Clone)]
pub struct Target {
    pub(crate) place: Place,
    pub(crate) sealer: Sealer,
    pub(crate) settings: Settings,
    /// As the administrator named it.
    pub(crate) location: String,
    header: Bytes,
    /// Objects that were damaged when they were read back.
    suspects: Arc<HashSet<String>>,
}

/// The object that makes a folder a target, twice: without the key in it nobody opens anything, we neither.
pub(crate) const HEADERS: [&str; 2] = [HEADER, "posthouse-backup.copy"];
const HEADER: &str = "posthouse-backup";
const HEADER_MAGIC: &[u8] = b"posthouse backup\n";
const HEADER_MAX: u64 = 4096;

/// Folder of the objects of rows.
pub(crate) const ROWS: &str = "rows/";
/// Folder of the marks on damaged objects: empty objects with their names.
pub(crate) const SUSPECTS: &str = "suspects/";

/// What argon2id costs: far above a login's, as nobody can limit the guesses at a stolen backup.
const MEMORY_KIB: u32 = 128 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// What a header may ask for.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 64;

impl Target {
    /// Opens a target that is there.
    pub async fn open(access: &Access, settings: &Settings) -> Result<Self, Error> {
        Self::open_in(Place::at(&access.location, settings)?, access, settings).await
    }

    pub(super) async fn open_in(place: Place, access: &Access, settings: &Settings) -> Result<Self, Error> {
        match find_header(&place).await? {
            Some(header) => Self::with(place, header, access, settings).await,
            None => Err(Error::Refused(format!("there is no backup at {}", access.location))),
        }
    }

    /// Opens a target, made now where there is nothing yet.
    pub async fn open_or_create(access: &Access, settings: &Settings) -> Result<Self, Error> {
        Self::open_or_create_in(Place::at(&access.location, settings)?, access, settings).await
    }

    pub(super) async fn open_or_create_in(place: Place, access: &Access, settings: &Settings) -> Result<Self, Error> {
        if let Some(header) = find_header(&place).await? {
            return Self::with(place, header, access, settings).await;
        }
        if !place.is_empty().await? {
            return Err(Error::Refused(format!("{} holds something else: name an empty place", access.location)));
        }
        let header = encode_header(&new_header(access.secret.as_ref()).await?);
        place.put_new(HEADER, header.clone()).await?;
        // Somebody else may have been first. The copy is made by the run.
        let header = place.get(HEADER, HEADER_MAX).await?.unwrap_or(header);
        Self::with(place, header, access, settings).await
    }

    async fn with(place: Place, header: Bytes, access: &Access, settings: &Settings) -> Result<Self, Error> {
        let row = decode_header(&header)?;
        let location = &access.location;
        let key = match (&row.key, &access.secret) {
            (None, None) => None,
            (Some(key), Some(secret)) => Some(unlock(key, secret).await?),
            (Some(_), None) => {
                return Err(Error::Refused(format!("the backup at {location} is encrypted: name its key file")));
            }
            (None, Some(_)) => return Err(Error::Refused(format!("the backup at {location} is not encrypted"))),
        };
        let sealer = Sealer::new(key, &row.id);
        let marks = place.list(SUSPECTS).await?;
        let names = marks.iter().filter_map(|mark| mark.name.strip_prefix(SUSPECTS)).map(str::to_owned);
        let suspects = Arc::new(names.collect());
        Ok(Self { place, sealer, settings: settings.clone(), location: location.clone(), header, suspects })
    }

    /// Writes the header anew wherever it is lost. The caller holds the target's lock.
    pub(crate) async fn mend_headers(&self) -> Result<(), Error> {
        for (name, wrong) in self.wrong_headers().await? {
            // One that is whole and another one's is left for somebody to look at.
            if wrong != Wrong::Other {
                self.place.put(name, self.header.clone()).await?;
            }
        }
        Ok(())
    }

    /// The headers that are not the one that opened this target.
    pub(crate) async fn wrong_headers(&self) -> Result<Vec<(&'static str, Wrong)>, Error> {
        let mut wrong = Vec::new();
        for name in HEADERS {
            match read_header(&self.place, name).await {
                Ok(Some(header)) if header == self.header => {}
                Ok(Some(header)) if decode_header(&header).is_ok() => wrong.push((name, Wrong::Other)),
                Ok(None) => wrong.push((name, Wrong::Missing)),
                Ok(Some(_)) | Err(Error::BackupDamaged(_)) => wrong.push((name, Wrong::Damaged)),
                Err(error) => return Err(error),
            }
        }
        Ok(wrong)
    }

    /// Whether an object was damaged when it was read back: a run counts on no such object.
    pub(crate) fn is_suspect(&self, name: &str) -> bool {
        self.suspects.contains(name)
    }

    /// Marks a damaged object. It stays where it is: what it still holds may be all there is.
    pub(crate) async fn suspect(&self, name: &str) -> Result<(), Error> {
        self.place.put(&format!("{SUSPECTS}{name}"), Bytes::new()).await
    }

    /// Reads an object of rows.
    pub(crate) async fn rows(&self, name: &[u8]) -> Result<Vec<u8>, Error> {
        let path = rows_path(name);
        let octets = self.place.get(&path, OBJECT_MAX).await?;
        let octets = octets.ok_or_else(|| Error::BackupDamaged(format!("{path} is missing")))?;
        let content = self.decode(Kind::Rows, &path, octets).await?;
        if self.sealer.name(&content) != name {
            return Err(Error::BackupDamaged(format!("{path} holds something else")));
        }
        Ok(content)
    }

    /// Writes an object of rows unless it is there; its name, and the octets written.
    pub(crate) async fn put_rows(&self, content: Vec<u8>) -> Result<([u8; 32], u64), Error> {
        let name = self.sealer.name(&content);
        let path = rows_path(&name);
        if self.place.size(&path).await?.is_some() && !self.is_suspect(&path) {
            return Ok((name, 0));
        }
        let octets = self.encode(Kind::Rows, content).await?;
        let written = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.place.put(&path, octets).await?;
        if self.is_suspect(&path) {
            self.place.delete(&format!("{SUSPECTS}{path}")).await?;
        }
        Ok((name, written))
    }

    pub(crate) async fn encode(&self, kind: Kind, content: Vec<u8>) -> Result<Bytes, Error> {
        let sealer = self.sealer.clone();
        seal::off_thread(content.len(), move || object::encode(&sealer, kind, &content)).await
    }

    pub(crate) async fn decode(&self, kind: Kind, path: &str, octets: Bytes) -> Result<Vec<u8>, Error> {
        let sealer = self.sealer.clone();
        let decoded = seal::off_thread(octets.len(), move || object::decode(&sealer, kind, &octets)).await;
        decoded.map_err(|error| named(path, error))
    }
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Missing,
    Damaged,
    Other,
}

async fn read_header(place: &Place, name: &str) -> Result<Option<Bytes>, Error> {
    place.get(name, HEADER_MAX).await
}

/// The first header that proves itself; or else what is wrong with one that is there.
async fn find_header(place: &Place) -> Result<Option<Bytes>, Error> {
    let mut damaged = None;
    for name in HEADERS {
        match read_header(place, name).await {
            Ok(Some(header)) => match decode_header(&header) {
                Ok(_) => return Ok(Some(header)),
                Err(error @ Error::BackupDamaged(_)) => damaged = damaged.or(Some(error)),
                Err(error) => return Err(error),
            },
            Ok(None) => {}
            Err(error @ Error::BackupDamaged(_)) => damaged = damaged.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(None), Err)
}

/// Says which object is damaged.
pub(crate) fn named(path: &str, error: Error) -> Error {
    match error {
        Error::BackupDamaged(reason) => Error::BackupDamaged(format!("{path}: {reason}")),
        error => error,
    }
}

/// Where an object of rows lies.
pub(crate) fn rows_path(name: &[u8]) -> String {
    let hex = hex(name);
    format!("{ROWS}{}/{hex}", hex.get(..2).unwrap_or_default())
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn encode_header(row: &TargetRow) -> Bytes {
    let mut octets = [HEADER_MAGIC, &row.encode_to_vec()].concat();
    let sum = *blake3::hash(&octets).as_bytes();
    octets.extend_from_slice(&sum);
    octets.into()
}

fn decode_header(octets: &[u8]) -> Result<TargetRow, Error> {
    let damaged = || Error::BackupDamaged(format!("{HEADER} is not what was written"));
    let (content, sum) = octets.split_last_chunk::<32>().ok_or_else(damaged)?;
    if blake3::hash(content).as_bytes() != sum {
        return Err(damaged());
    }
    let row = content.strip_prefix(HEADER_MAGIC).and_then(|row| TargetRow::decode(row).ok()).ok_or_else(damaged)?;
    if row.format > FORMAT {
        return Err(Error::NewerFormat { found: row.format.into(), known: FORMAT.into() });
    }
    Ok(row)
}

async fn new_header(secret: Option<&Secret<String>>) -> Result<TargetRow, Error> {
    let id = rand::random::<[u8; 16]>().to_vec();
    let key = match secret {
        None => None,
        Some(secret) => {
            let salt = rand::random::<[u8; 16]>().to_vec();
            let mut row = KeyRow { salt, memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, wrapped: Vec::new() };
            let under = stretch(&row, secret).await?;
            row.wrapped = seal::wrap(&under, &rand::random())?;
            Some(row)
        }
    };
    Ok(TargetRow { format: FORMAT, id, key })
}

async fn unlock(row: &KeyRow, secret: &Secret<String>) -> Result<Secret<[u8; 32]>, Error> {
    let under = stretch(row, secret).await?;
    seal::unwrap(&under, &row.wrapped).ok_or_else(|| Error::Refused("the key does not open this backup".to_owned()))
}

/// What argon2id makes of a passphrase.
async fn stretch(row: &KeyRow, secret: &Secret<String>) -> Result<Secret<[u8; 32]>, Error> {
    let damaged = || Error::BackupDamaged(format!("{HEADER} asks for an unlikely key"));
    if row.memory_kib > MEMORY_KIB_MAX || row.passes > PASSES_MAX {
        return Err(damaged());
    }
    let params = Params::new(row.memory_kib, row.passes, row.lanes, Some(32)).map_err(|_| damaged())?;
    let (salt, secret) = (row.salt.clone(), secret.clone());
    seal::off_thread(usize::MAX, move || {
        let mut key = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(secret.reveal().as_bytes(), &salt, &mut key).map_err(|_| damaged())?;
        Ok(Secret::new(key))
    })
    .await
}

/// How long a lock lives without being renewed.
pub(crate) fn lock_ttl(target: &Target) -> Duration {
    target.settings.lock_ttl.get()
}
