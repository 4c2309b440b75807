//! DKIM key pairs: making them, reading them back, and the TXT record that publishes them (RFC 6376 §3.6.1, RFC 8463 §4).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthouse_mail::Secret;

use crate::error::Error;

/// The signature algorithms that we sign with (RFC 8463 §3, RFC 8301 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    RsaSha256,
    Ed25519Sha256,
}

impl KeyAlgorithm {
    /// As `a=` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::RsaSha256, Self::Ed25519Sha256]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| Error::Key { selector: String::new(), reason: format!("unknown algorithm {text}") })
    }
}

/// A private key, read and ready to sign.
pub(crate) enum PrivateKey {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads PKCS #8 in DER; the selector is for the error.
    pub(crate) fn parse(algorithm: KeyAlgorithm, pkcs8: &Secret<Vec<u8>>, selector: &str) -> Result<Self, Error> {
        let refused = |reason: aws_lc_rs::error::KeyRejected| Error::Key {
            selector: selector.to_owned(),
            reason: reason.to_string(),
        };
        match algorithm {
            KeyAlgorithm::RsaSha256 => RsaKeyPair::from_pkcs8(pkcs8.reveal()).map(Self::Rsa).map_err(refused),
            KeyAlgorithm::Ed25519Sha256 => {
                Ed25519KeyPair::from_pkcs8(pkcs8.reveal()).map(Self::Ed25519).map_err(refused)
            }
        }
    }

    /// The text of the record at `<selector>._domainkey.<domain>`.
    fn record(&self) -> Result<String, Error> {
        let (kind, public) = match self {
            Self::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| Error::Crypto)?;
                ("rsa", STANDARD.encode(der.as_ref()))
            }
            // RFC 8463 §4.2: the 32 octets as they are, without ASN.1 around them.
            Self::Ed25519(pair) => ("ed25519", STANDARD.encode(pair.public_key().as_ref())),
        };
        Ok(format!("v=DKIM1; k={kind}; p={public}"))
    }
}

/// Makes a private key: PKCS #8 in DER. RSA takes a noticeable part of a second, so call it where blocking is allowed.
pub fn generate(algorithm: KeyAlgorithm, rsa_bits: u16) -> Result<Secret<Vec<u8>>, Error> {
    let der: Pkcs8V1Der<'_> = match algorithm {
        KeyAlgorithm::RsaSha256 => {
            let size = match rsa_bits {
                2048 => KeySize::Rsa2048,
                3072 => KeySize::Rsa3072,
                4096 => KeySize::Rsa4096,
                _ => return Err(Error::Key { selector: String::new(), reason: format!("{rsa_bits} bits") }),
            };
            RsaKeyPair::generate(size).and_then(|pair| pair.as_der()).map_err(|_| Error::Crypto)?
        }
        KeyAlgorithm::Ed25519Sha256 => {
            Ed25519KeyPair::generate().and_then(|pair| pair.as_der()).map_err(|_| Error::Crypto)?
        }
    };
    Ok(Secret::new(der.as_ref().to_vec()))
}

/// The TXT record of a private key's public half.
pub fn public_record(algorithm: KeyAlgorithm, pkcs8: &Secret<Vec<u8>>) -> Result<String, Error> {
    PrivateKey::parse(algorithm, pkcs8, "")?.record()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6376_3_6_1_records_name_the_key_type() {
        let rsa = generate(KeyAlgorithm::RsaSha256, 2048).expect("a key");
        let record = public_record(KeyAlgorithm::RsaSha256, &rsa).expect("a record");
        assert!(record.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"), "{record}");
        let ed = generate(KeyAlgorithm::Ed25519Sha256, 2048).expect("a key");
        let record = public_record(KeyAlgorithm::Ed25519Sha256, &ed).expect("a record");
        assert_eq!(record.len(), "v=DKIM1; k=ed25519; p=".len() + 44);
        assert!(public_record(KeyAlgorithm::RsaSha256, &ed).is_err(), "a key of another kind");
        assert!(generate(KeyAlgorithm::RsaSha256, 1024).is_err(), "RFC 8301 §3.2 wants 2048 bits");
    }
}
