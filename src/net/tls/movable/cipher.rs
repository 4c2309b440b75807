//! One direction's AEAD: seals and opens single records under a key and a sequence number that the caller gives.
//!
//! rustls has traits for this, but their implementations cannot be had from outside: `AeadKey` takes 32 octets only, and the
//! AES-GCM of its aws-lc-rs provider counts records by itself from zero, so that it cannot go on in the middle of a
//! connection. Doing all three algorithms here also seals into the output buffer and opens in the input buffer, without a
//! copy.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::{Iv, Nonce as TlsNonce, make_tls12_aad};
use rustls::{CipherSuite, ContentType, ProtocolVersion, SupportedCipherSuite};

/// Octets of a record's header: type, version, length.
pub(super) const HEADER: usize = 5;
/// Octets of plaintext that a record may carry (RFC 8446 §5.1, RFC 5246 §6.2.1).
pub(super) const PLAIN_MAX: usize = 1 << 14;
/// Octets of the authentication tag, the same for all three algorithms.
const TAG: usize = 16;
/// The part of a TLS 1.2 GCM nonce that each record carries (RFC 5288 §3).
const EXPLICIT: usize = 8;

/// What a sealed record looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Type and padding lie inside (RFC 8446 §5.2).
    Tls13,
    /// TLS 1.2 with AES-GCM: half of the nonce goes along.
    Tls12Explicit,
    /// TLS 1.2 with ChaCha20-Poly1305: the nonce is made as in TLS 1.3 (RFC 7905 §2).
    Tls12Implicit,
}

pub(super) struct Cipher {
    key: LessSafeKey,
    iv: Iv,
    form: Form,
}

/// A record that does not open, or cannot be sealed.
pub(super) struct Refused;

impl Cipher {
    /// Fails where key and suite do not fit together.
    pub(super) fn new(suite: SupportedCipherSuite, key: &[u8], iv: [u8; 12]) -> Result<Self, Refused> {
        let algorithm = algorithm(suite).ok_or(Refused)?;
        let form = match suite {
            SupportedCipherSuite::Tls13(_) => Form::Tls13,
            SupportedCipherSuite::Tls12(_) if algorithm == &CHACHA20_POLY1305 => Form::Tls12Implicit,
            SupportedCipherSuite::Tls12(_) => Form::Tls12Explicit,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| Refused)?);
        Ok(Self { key, iv: Iv::new(iv), form })
    }

    /// Appends one record with `payload` to `out`; on an error what was appended is not sealed, and is the caller's to take
    /// back. The caller never gives the same `seq` twice.
    pub(super) fn seal(&self, seq: u64, kind: ContentType, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let nonce = TlsNonce::new(&self.iv, seq).0;
        let kind_byte = u8::from(kind);
        let start = out.len();
        let (outer, extra) = match self.form {
            Form::Tls13 => (u8::from(ContentType::ApplicationData), 1),
            Form::Tls12Explicit => (kind_byte, EXPLICIT),
            Form::Tls12Implicit => (kind_byte, 0),
        };
        let body = payload.len() + extra + TAG;
        out.reserve(HEADER + body);
        // The same two octets in both versions: TLS 1.3 poses as 1.2 on the outside (RFC 8446 §5.2).
        out.extend_from_slice(&[outer, 3, 3]);
        out.extend_from_slice(&u16::try_from(body).map_err(|_| Refused)?.to_be_bytes());
        let mut sealed_from = start + HEADER;
        if self.form == Form::Tls12Explicit {
            out.extend_from_slice(&nonce[4..]);
            sealed_from += EXPLICIT;
        }
        out.extend_from_slice(payload);
        let tag = if self.form == Form::Tls13 {
            out.push(kind_byte);
            let header: [u8; HEADER] = out[start..start + HEADER].try_into().map_err(|_| Refused)?;
            self.key.seal_in_place_separate_tag(unique(nonce), Aad::from(header), &mut out[sealed_from..])
        } else {
            let aad = make_tls12_aad(seq, kind, ProtocolVersion::TLSv1_2, payload.len());
            self.key.seal_in_place_separate_tag(unique(nonce), Aad::from(aad), &mut out[sealed_from..])
        };
        out.extend_from_slice(tag.map_err(|_| Refused)?.as_ref());
        Ok(())
    }

    /// Opens the record `header` + `body` in place and tells where in `body` its plaintext lies; in TLS 1.3 the inner type
    /// and the padding are still behind it.
    pub(super) fn open(
        &self,
        seq: u64,
        header: [u8; HEADER],
        body: &mut [u8],
    ) -> Result<std::ops::Range<usize>, Refused> {
        let mut nonce = TlsNonce::new(&self.iv, seq).0;
        let skip = if self.form == Form::Tls12Explicit { EXPLICIT } else { 0 };
        let length = body.len().checked_sub(skip + TAG).ok_or(Refused)?;
        if self.form == Form::Tls13 {
            self.key.open_in_place(unique(nonce), Aad::from(header), body).map_err(|_| Refused)?;
        } else {
            if self.form == Form::Tls12Explicit {
                nonce[..4].copy_from_slice(&self.iv.as_ref()[..4]);
                nonce[4..].copy_from_slice(&body[..EXPLICIT]);
            }
            let aad = make_tls12_aad(seq, ContentType::from(header[0]), ProtocolVersion::TLSv1_2, length);
            self.key.open_in_place(unique(nonce), Aad::from(aad), &mut body[skip..]).map_err(|_| Refused)?;
        }
        Ok(skip..skip + length)
    }
}

fn unique(nonce: [u8; 12]) -> Nonce {
    Nonce::assume_unique_for_key(nonce)
}

/// The AEAD of a suite; `None` for one that this module does not know.
fn algorithm(suite: SupportedCipherSuite) -> Option<&'static Algorithm> {
    use CipherSuite as Suite;
    match suite.suite() {
        Suite::TLS13_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(&AES_128_GCM),
        Suite::TLS13_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(&AES_256_GCM),
        Suite::TLS13_CHACHA20_POLY1305_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(&CHACHA20_POLY1305),
        _ => None,
    }
}

/// Octets of a suite's key; `None` as for `algorithm`.
pub(super) fn key_len(suite: SupportedCipherSuite) -> Option<usize> {
    algorithm(suite).map(Algorithm::key_len)
}
