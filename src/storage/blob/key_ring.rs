//! The site's keys in use: wraps the keys of bodies under the active one and finds the one that a body's key lies under.
//!
//! Which key is active stands in the store, so that all nodes agree: it is the one under which the hash key of blob ids
//! lies. A key that another node has begun to use is looked for in the file again before it counts as missing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use posthouse_mail::BlobId;
use posthouse_mail::secret::Secret;

use super::cipher::{DataKey, KEY, WRAPPED, WrapKey};
use super::key_file::{self, KeyId, SiteKey};
use crate::error::Error;

/// The purpose of the key that contents are hashed with.
const ID_KEY: &[u8] = b"blob-id";

/// The keys of a site.
pub(crate) struct KeyRing {
    path: PathBuf,
    keys: RwLock<Keys>,
}

#[derive(Default)]
struct Keys {
    all: Vec<(KeyId, Arc<WrapKey>)>,
    active: Option<KeyId>,
}

impl KeyRing {
    /// Reads the file; a new site has none yet. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let ring = Self { path: path.to_owned(), keys: RwLock::default() };
        ring.reload()?;
        Ok(ring)
    }

    /// Reads the file again. Blocks.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        self.keep(&key_file::read(&self.path)?);
        Ok(())
    }

    /// The newest key of the file. Blocks.
    pub(crate) fn newest(&self) -> Result<Option<KeyId>, Error> {
        self.reload()?;
        Ok(self.keys.read().unwrap_or_else(PoisonError::into_inner).all.last().map(|(id, _)| *id))
    }

    /// Adds a key to the file. Blocks.
    pub(crate) fn add(&self) -> Result<(), Error> {
        self.keep(&key_file::add(&self.path)?);
        Ok(())
    }

    fn keep(&self, keys: &[SiteKey]) {
        let all = keys.iter().map(|key| (key.id, Arc::new(WrapKey::new(&key.octets)))).collect();
        self.keys.write().unwrap_or_else(PoisonError::into_inner).all = all;
    }

    /// New keys are wrapped under this one from now on.
    pub(crate) fn activate(&self, id: KeyId) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).active = Some(id);
    }

    pub(crate) fn active(&self) -> Option<KeyId> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).active
    }

    /// Wraps a body's key under the active one.
    pub(crate) fn wrap(&self, blob: &BlobId, key: &DataKey) -> Result<Bytes, Error> {
        let id = self.active().ok_or_else(|| Error::Key("the store has no active key".to_owned()))?;
        self.wrap_under(id, blob.as_bytes(), key.octets())
    }

    /// The key of a body.
    pub(crate) fn unwrap(&self, blob: &BlobId, wrapped: &[u8]) -> Result<DataKey, Error> {
        self.unwrap_for(blob.as_bytes(), wrapped).map(DataKey::new)
    }

    /// Wraps the key that contents are hashed with.
    pub(crate) fn wrap_id_key(&self, id: KeyId, key: &Secret<[u8; KEY]>) -> Result<Bytes, Error> {
        self.wrap_under(id, ID_KEY, key)
    }

    pub(crate) fn unwrap_id_key(&self, wrapped: &[u8]) -> Result<Secret<[u8; KEY]>, Error> {
        self.unwrap_for(ID_KEY, wrapped)
    }

    fn wrap_under(&self, id: KeyId, purpose: &[u8], key: &Secret<[u8; KEY]>) -> Result<Bytes, Error> {
        let sealed = self.find(id)?.wrap(purpose, key)?;
        Ok(Bytes::from([&id.as_bytes()[..], &sealed].concat()))
    }

    fn unwrap_for(&self, purpose: &[u8], wrapped: &[u8]) -> Result<Secret<[u8; KEY]>, Error> {
        let damaged = || Error::Corrupt("a wrapped key in the store".to_owned());
        let id = key_of(wrapped).ok_or_else(damaged)?;
        let sealed: &[u8; WRAPPED] = wrapped[KeyId::LENGTH..].try_into().map_err(|_| damaged())?;
        self.find(id)?.unwrap(purpose, sealed).ok_or_else(damaged)
    }

    fn find(&self, id: KeyId) -> Result<Arc<WrapKey>, Error> {
        if let Some(key) = self.look(id) {
            return Ok(key);
        }
        // Another node may have begun to use a key that came into the file since it was read.
        self.reload()?;
        self.look(id).ok_or_else(|| self.missing(id))
    }

    fn look(&self, id: KeyId) -> Option<Arc<WrapKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.all.iter().find(|(known, _)| *known == id).map(|(_, key)| key.clone())
    }

    fn missing(&self, id: KeyId) -> Error {
        let path = self.path.display();
        let wrong = match self.path.exists() {
            true => format!("the key file {path} does not hold key {id}"),
            false => format!("the key file {path} is missing"),
        };
        Error::Key(format!(
            "{wrong}, under which the store's bodies are encrypted (key {id}): put the site's key file there, or name \
             it in storage.key_file"
        ))
    }
}

/// The name of the key that another lies under.
pub(crate) fn key_of(wrapped: &[u8]) -> Option<KeyId> {
    wrapped.first_chunk::<{ KeyId::LENGTH }>().map(|octets| KeyId::new(*octets))
}
