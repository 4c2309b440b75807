//! What one direction's records are protected with, and how the next key follows from it.
//!
//! TLS 1.3 keeps the traffic secret, from which key, IV and every later generation are derived (RFC 8446 §7.2, §7.3);
//! TLS 1.2 keeps key and IV themselves, since it never changes them. Wiped when dropped, and without `Debug`.

use rustls::SupportedCipherSuite;
use rustls::crypto::tls13::OkmBlock;
use zeroize::Zeroizing;

use super::cipher::{Cipher, Refused, key_len};

const IV: usize = 12;
/// Octets that a direction's material may have: a SHA-384 secret is the longest.
pub(super) const MATERIAL_MAX: usize = 48;

pub(super) struct Keys {
    material: Zeroizing<Vec<u8>>,
    /// What the material yields, where that is known already: until the first cipher is made of it.
    known: Option<Traffic>,
    /// The sequence number of the next record.
    pub(super) seq: u64,
}

/// The key and IV that records are sealed with.
pub(super) struct Traffic {
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) iv: [u8; IV],
}

impl Keys {
    /// A TLS 1.3 direction from its traffic secret, or a TLS 1.2 one from key and IV one after the other. Fails where the
    /// length is not what the suite wants.
    pub(super) fn new(suite: SupportedCipherSuite, material: Zeroizing<Vec<u8>>, seq: u64) -> Result<Self, Refused> {
        if Some(material.len()) != material_len(suite) {
            return Err(Refused);
        }
        Ok(Self { material, known: None, seq })
    }

    /// As `new`, with what rustls has derived from the material. Fails where that is not what follows from it: an IV that is right
    /// tells that the key beside it is.
    pub(super) fn derived(
        suite: SupportedCipherSuite,
        material: Zeroizing<Vec<u8>>,
        traffic: Traffic,
        seq: u64,
    ) -> Result<Self, Refused> {
        let mut keys = Self::new(suite, material, seq)?;
        if keys.iv(suite)? != traffic.iv || Some(traffic.key.len()) != key_len(suite) {
            return Err(Refused);
        }
        keys.known = Some(traffic);
        Ok(keys)
    }

    pub(super) fn of_tls12(suite: SupportedCipherSuite, traffic: &Traffic, seq: u64) -> Result<Self, Refused> {
        let mut material = Zeroizing::new(Vec::with_capacity(MATERIAL_MAX));
        material.extend_from_slice(&traffic.key);
        material.extend_from_slice(&traffic.iv);
        Self::new(suite, material, seq)
    }

    pub(super) fn material(&self) -> &[u8] {
        &self.material
    }

    fn traffic(&self, suite: SupportedCipherSuite) -> Result<Traffic, Refused> {
        let mut key = Zeroizing::new(vec![0; key_len(suite).ok_or(Refused)?]);
        match suite {
            SupportedCipherSuite::Tls13(_) => expand(suite, &self.material, b"key", &mut key)?,
            SupportedCipherSuite::Tls12(_) => key.copy_from_slice(&self.material[..self.material.len() - IV]),
        }
        Ok(Traffic { key, iv: self.iv(suite)? })
    }

    fn iv(&self, suite: SupportedCipherSuite) -> Result<[u8; IV], Refused> {
        let mut iv = [0; IV];
        match suite {
            SupportedCipherSuite::Tls13(_) => expand(suite, &self.material, b"iv", &mut iv)?,
            SupportedCipherSuite::Tls12(_) => iv.copy_from_slice(&self.material[self.material.len() - IV..]),
        }
        Ok(iv)
    }

    pub(super) fn cipher(&mut self, suite: SupportedCipherSuite) -> Result<Cipher, Refused> {
        let traffic = self.known.take().map_or_else(|| self.traffic(suite), Ok)?;
        Cipher::new(suite, &traffic.key, traffic.iv)
    }

    /// Moves to the next generation of a TLS 1.3 secret (RFC 8446 §7.2); its records count from zero.
    pub(super) fn update(&mut self, suite: SupportedCipherSuite) -> Result<(), Refused> {
        let mut next = Zeroizing::new(vec![0; self.material.len()]);
        expand(suite, &self.material, b"traffic upd", &mut next)?;
        (self.material, self.known) = (next, None);
        self.seq = 0;
        Ok(())
    }
}

/// Octets of material that a direction of this suite has; `None` for a suite that we do not know.
pub(super) fn material_len(suite: SupportedCipherSuite) -> Option<usize> {
    let key = key_len(suite)?;
    Some(match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.output_len(),
        SupportedCipherSuite::Tls12(_) => key + IV,
    })
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand(suite: SupportedCipherSuite, secret: &[u8], label: &[u8], out: &mut [u8]) -> Result<(), Refused> {
    let suite = suite.tls13().ok_or(Refused)?;
    let length = u16::try_from(out.len()).map_err(|_| Refused)?.to_be_bytes();
    let label_length = u8::try_from(6 + label.len()).map_err(|_| Refused)?;
    suite
        .hkdf_provider
        .expander_for_okm(&OkmBlock::new(secret))
        .expand_slice(&[&length, &[label_length], b"tls13 ", label, &[0]], out)
        .map_err(|_| Refused)
}
