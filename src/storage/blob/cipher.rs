//! The ciphers of bodies: frames under a random key of the body's own, that key under one of the site's.
//!
//! Apart from the frames and the key file so that each choice stands once. Frames: AES-256-GCM; the number of the frame is
//! the nonce, which no two frames under one key share, as a key serves one writing of one body. Wrapped keys:
//! AES-256-GCM-SIV under a random nonce, which stays safe for any number of bodies under one site key.

use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use posthouse_mail::secret::Secret;

use crate::error::Error;

/// Octets that a sealed text is longer than its content.
pub(crate) const TAG: usize = 16;
/// Octets of every key.
pub(crate) const KEY: usize = 32;
/// Octets of a wrapped key: nonce, sealed key, tag.
pub(crate) const WRAPPED: usize = NONCE_LEN + KEY + TAG;

/// The key of one writing of a body.
pub(crate) struct DataKey {
    cipher: LessSafeKey,
    octets: Secret<[u8; KEY]>,
}

impl DataKey {
    pub(crate) fn random() -> Result<Self, Error> {
        random_key().map(Self::new)
    }

    pub(crate) fn new(octets: Secret<[u8; KEY]>) -> Self {
        Self { cipher: cipher(&AES_256_GCM, &octets), octets }
    }

    pub(crate) fn octets(&self) -> &Secret<[u8; KEY]> {
        &self.octets
    }

    /// Encrypts `content` in place and returns its tag, which covers `head` too.
    pub(crate) fn seal(&self, index: u32, head: &[u8], content: &mut [u8]) -> Result<[u8; TAG], Error> {
        let sealed = self.cipher.seal_in_place_separate_tag(nonce(index), Aad::from(head), content);
        sealed.ok().and_then(|tag| tag.as_ref().try_into().ok()).ok_or_else(failed)
    }

    /// Decrypts what `seal` made, its tag at the end; `None` when key, head or content are not those.
    pub(crate) fn open(&self, index: u32, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut content = sealed.to_vec();
        let length = self.cipher.open_in_place(nonce(index), Aad::from(head), &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

/// One of the site's keys, which wraps others.
pub(crate) struct WrapKey(LessSafeKey);

impl WrapKey {
    pub(crate) fn new(octets: &Secret<[u8; KEY]>) -> Self {
        Self(cipher(&AES_256_GCM_SIV, octets))
    }

    /// Encrypts a key for one purpose.
    pub(crate) fn wrap(&self, purpose: &[u8], key: &Secret<[u8; KEY]>) -> Result<[u8; WRAPPED], Error> {
        let mut out = [0; WRAPPED];
        let (nonce, rest) = out.split_at_mut(NONCE_LEN);
        fill(nonce)?;
        let used = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let (content, place) = rest.split_at_mut(KEY);
        content.copy_from_slice(key.reveal());
        let tag = self.0.seal_in_place_separate_tag(used, Aad::from(purpose), content).map_err(|_| failed())?;
        place.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// The key that was wrapped for this purpose; `None` when it was not, or not under this one.
    pub(crate) fn unwrap(&self, purpose: &[u8], wrapped: &[u8; WRAPPED]) -> Option<Secret<[u8; KEY]>> {
        let (nonce, sealed) = wrapped.split_at(NONCE_LEN);
        let mut content = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let key = self.0.open_in_place(nonce, Aad::from(purpose), &mut content).ok()?;
        <[u8; KEY]>::try_from(&*key).ok().map(Secret::new)
    }
}

pub(crate) fn random_key() -> Result<Secret<[u8; KEY]>, Error> {
    let mut octets = [0; KEY];
    fill(&mut octets)?;
    Ok(Secret::new(octets))
}

fn fill(octets: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(octets).map_err(|_| failed())
}

fn cipher(algorithm: &'static Algorithm, octets: &Secret<[u8; KEY]>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, octets.reveal()).expect("both ciphers take keys of this length"))
}

fn nonce(index: u32) -> Nonce {
    let mut octets = [0; NONCE_LEN];
    octets[..4].copy_from_slice(&index.to_le_bytes());
    Nonce::assume_unique_for_key(octets)
}

fn failed() -> Error {
    Error::Unavailable("the cipher or the source of randomness failed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_head_and_place_open_a_text() {
        let key = DataKey::random().expect("a key");
        let mut text = b"a text".to_vec();
        let tag = key.seal(7, b"head", &mut text).expect("sealed");
        text.extend_from_slice(&tag);
        assert_eq!(key.open(7, b"head", &text).as_deref(), Some(b"a text".as_slice()));
        assert_eq!(key.open(8, b"head", &text), None);
        assert_eq!(key.open(7, b"Head", &text), None);
        assert_eq!(DataKey::random().expect("a key").open(7, b"head", &text), None);
        assert_eq!(key.open(7, b"head", &text[..TAG - 1]), None);
    }

    #[test]
    fn a_wrapped_key_serves_one_purpose() {
        let (site, other) = (random_key().expect("a key"), random_key().expect("a key"));
        let key = random_key().expect("a key");
        let wrapped = WrapKey::new(&site).wrap(b"one", &key).expect("wrapped");
        let unwrapped = WrapKey::new(&site).unwrap(b"one", &wrapped).expect("the key");
        assert_eq!(unwrapped.reveal(), key.reveal());
        assert!(WrapKey::new(&site).unwrap(b"two", &wrapped).is_none());
        assert!(WrapKey::new(&other).unwrap(b"one", &wrapped).is_none());
    }
}
