//! DKIM signing (RFC 6376 §5, RFC 8463): one signature for each key of the author's domain, relaxed/relaxed.
//!
//! The header is short and in memory; the body arrives as a digest, so that it can stream while it is stored. From is
//! signed once more than it stands there, so that none can be added later (RFC 6376 §8.15).

use std::fmt::Write as _;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{digest, signature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthouse_mail::{Domain, Secret, UnixMillis};

use crate::body_hash::{BodyDigest, BodyHash, Canonicalization};
use crate::error::Error;
use crate::fields::{Field, fields};
use crate::keys::{KeyAlgorithm, PrivateKey};

/// A key with the selector that it is published under.
pub struct SigningKey {
    selector: String,
    algorithm: KeyAlgorithm,
    key: PrivateKey,
}

impl SigningKey {
    /// Reads a private key: PKCS #8 in DER.
    pub fn parse(selector: &str, algorithm: KeyAlgorithm, pkcs8: &Secret<Vec<u8>>) -> Result<Self, Error> {
        Ok(Self { selector: selector.to_owned(), algorithm, key: PrivateKey::parse(algorithm, pkcs8, selector)? })
    }

    /// Signs canonical octets: RSA signs them, Ed25519 signs their hash (RFC 8463 §3).
    fn sign(&self, canonical: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.key {
            PrivateKey::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), canonical, &mut out)
                    .map_err(|_| Error::Crypto)?;
                Ok(out)
            }
            PrivateKey::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, canonical);
                Ok(pair.try_sign(hash.as_ref()).map_err(|_| Error::Crypto)?.as_ref().to_vec())
            }
        }
    }
}

/// All that signs for one domain.
pub struct Signer {
    domain: Domain,
    keys: Vec<SigningKey>,
    /// Names of fields to sign, in lower case, each once.
    names: Vec<String>,
}

impl Signer {
    /// `names` come from `dkim.headers`; From is signed in any case (RFC 6376 §5.4).
    pub fn new(domain: Domain, keys: Vec<SigningKey>, names: &[String]) -> Self {
        let mut unique: Vec<String> = vec!["from".to_owned()];
        for name in names.iter().map(|name| name.trim().to_ascii_lowercase()) {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        Self { domain, keys, names: unique }
    }

    /// The hash that a body to be signed has to be fed through.
    pub fn body_hash() -> BodyHash {
        BodyHash::new(Canonicalization::Relaxed, None)
    }

    /// The DKIM-Signature fields for a message, each ending in CRLF, to be put above its header section.
    pub fn sign(&self, header: &[u8], body: &BodyDigest, now: UnixMillis) -> Result<String, Error> {
        let present: Vec<Field<'_>> = fields(header).collect();
        if !present.iter().any(|field| field.is("From")) {
            return Err(Error::NoFrom);
        }
        let (names, signed) = self.select(&present);
        let mut out = String::new();
        for key in &self.keys {
            let unsigned = self.unsigned_field(key, &names, body, now);
            let mut canonical = signed.clone();
            // RFC 6376 §3.7: the field itself comes last, with an empty `b=` and without its final CRLF.
            relax(b"DKIM-Signature", unsigned.as_bytes(), &mut canonical);
            canonical.truncate(canonical.len().saturating_sub(2));
            let value = STANDARD.encode(key.sign(&canonical)?);
            let _ = write!(out, "DKIM-Signature:{unsigned}");
            fold(&value, &mut out);
            out.push_str("\r\n");
        }
        Ok(out)
    }

    /// The names of `h=` and the canonical fields they stand for (RFC 6376 §5.4.2: the lowest of a name first).
    fn select(&self, present: &[Field<'_>]) -> (Vec<&str>, Vec<u8>) {
        let mut names = Vec::new();
        let mut canonical = Vec::new();
        for name in &self.names {
            for field in present.iter().rev().filter(|field| field.is(name)) {
                names.push(name.as_str());
                relax(field.name, field.value, &mut canonical);
            }
            if name == "from" {
                names.push(name);
            }
        }
        (names, canonical)
    }

    /// The field's value up to and with `b=`.
    fn unsigned_field(&self, key: &SigningKey, names: &[&str], body: &BodyDigest, now: UnixMillis) -> String {
        let mut out = format!(
            " v=1; a={}; c=relaxed/relaxed; d={};\r\n\ts={}; t={};\r\n\th=",
            key.algorithm,
            self.domain,
            key.selector,
            now.seconds()
        );
        let mut column = 11;
        for (i, name) in names.iter().enumerate() {
            if column + name.len() > LINE_MAX {
                out.push_str("\r\n\t ");
                column = 9;
            }
            out.push_str(name);
            out.push_str(if i + 1 == names.len() { ";" } else { ":" });
            column += name.len() + 1;
        }
        let _ = write!(out, "\r\n\tbh={};\r\n\tb=", STANDARD.encode(&body.digest));
        out
    }
}

/// RFC 5322 §2.1.1: lines should not be longer than 78 characters.
const LINE_MAX: usize = 76;

/// The value of `b=`, in lines that continue the field.
fn fold(value: &str, out: &mut String) {
    const PART: usize = LINE_MAX - 10;
    for (i, part) in value.as_bytes().chunks(PART).enumerate() {
        if i > 0 {
            out.push_str("\r\n\t ");
        }
        out.extend(part.iter().map(|octet| char::from(*octet)));
    }
}

/// One field in relaxed form (RFC 6376 §3.4.2): name in lower case, folding undone, white space reduced.
fn relax(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.trim_ascii_end().iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let words = value.split(|octet| b" \t\r\n".contains(octet)).filter(|word| !word.is_empty());
    for (i, word) in words.enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}
