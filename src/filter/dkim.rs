//! DKIM verification (RFC 6376, RFC 8463): which signatures of a message hold.
//!
//! mail-auth reads signatures and key records and checks the signature over the header; the body hash is ours, so that a
//! body of any size streams. What RFC 8301 retired, and what covers a part of the message only, does not pass.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mail_auth::common::crypto::{Algorithm, CryptoError, HashAlgorithm};
use mail_auth::dkim::{Canonicalization as LibraryForm, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, DnsError};
use posthouse_mail::UnixMillis;

use crate::authentication_results::{AuthResult, DkimFinding};
use crate::body_hash::{BodyDigest, BodyHash, Canonicalization};
use crate::context::{Content, Context};
use crate::dns::Dns;
use crate::error::Error;
use crate::stage::{Cost, FinalWord, OnFailure, Stage};

const NAME: &str = "dkim";

/// Fields of a header section above which no signature is looked at: each would be searched through for each signed name.
const FIELDS_MAX: usize = 5_000;
/// Names in an `h=`.
const SIGNED_FIELDS_MAX: usize = 200;

/// The stage.
pub struct DkimStage {
    dns: Arc<Dns>,
    signatures_max: usize,
    deadline: Duration,
}

impl DkimStage {
    pub fn new(dns: Arc<Dns>, settings: &posthouse_conf::Filter) -> Self {
        // The body has to be read, whatever its size; DNS has a deadline of its own.
        Self { dns, signatures_max: settings.dkim_signatures_max, deadline: settings.wait_max.get() }
    }

    async fn verify(&self, content: &Content, now: UnixMillis) -> Result<Vec<DkimFinding>, Error> {
        if !content.header_complete() {
            return Ok(vec![unread(AuthResult::PermError, "header section too long")]);
        }
        let header = content.header().clone();
        // Not strict: the library would throw away every signature with `l=`; we judge those by their body.
        let Some(mut message) = AuthenticatedMessage::parse_with_opts(&header, None, false) else {
            return Ok(Vec::new());
        };
        if message.dkim_headers.is_empty() && message.errors.is_empty() {
            return Ok(Vec::new());
        }
        if message.headers.len() > FIELDS_MAX {
            return Ok(vec![unread(AuthResult::PermError, "too many header fields")]);
        }
        let mut findings: Vec<DkimFinding> = std::mem::take(&mut message.errors)
            .iter()
            .filter(|field| field.name.trim_ascii_end().eq_ignore_ascii_case(b"DKIM-Signature"))
            .take(self.signatures_max)
            .map(|_| unread(AuthResult::PermError, "malformed signature"))
            .collect();
        let mut signatures = std::mem::take(&mut message.dkim_headers);
        signatures.truncate(self.signatures_max);
        let digests = body_digests(content, signatures.iter().map(|field| &field.header)).await?;
        for mut field in signatures {
            // Reports to signers (RFC 6651) and third-party signatures (RFC 6541) would be further look-ups at their wish.
            field.header.r = false;
            field.header.atps = None;
            let screened = screen(&field.header, now).and_then(|()| body_matches(&field.header, &digests));
            if let Err((result, reason)) = screened {
                findings.push(finding(&field.header, result, Some(reason)));
                continue;
            }
            // Expiry is judged above, against the time of receipt.
            field.header.x = 0;
            let signature = field.header.clone();
            message.body_hashes = vec![(signature.cb, HashAlgorithm::Sha256, signature.l, signature.bh.clone())];
            message.dkim_headers = vec![field];
            let failed = |outputs: &Vec<DkimOutput<'_>>| {
                outputs.iter().any(|output| matches!(output.result(), DkimResult::TempError(_)))
            };
            let (result, reason) = match self.dns.ask(self.dns.authenticator().verify_dkim(&message), failed).await {
                Ok(outputs) => outputs.first().map_or((AuthResult::Neutral, None), outcome),
                Err(_) => (AuthResult::TempError, Some("no answer from DNS")),
            };
            findings.push(finding(&signature, result, reason));
        }
        Ok(findings)
    }
}

type Refusal = (AuthResult, &'static str);

/// What can be said of a signature before any hash or look-up.
fn screen(signature: &Signature, now: UnixMillis) -> Result<(), Refusal> {
    if signature.a == Algorithm::RsaSha1 {
        return Err((AuthResult::PermError, "rsa-sha1 is retired")); // RFC 8301 §3.1
    }
    if signature.v != 1 {
        return Err((AuthResult::PermError, "unknown version")); // RFC 6376 §6.1.1
    }
    if !signature.h.iter().any(|name| name.trim().eq_ignore_ascii_case("From")) {
        return Err((AuthResult::PermError, "From is not signed")); // RFC 6376 §6.1.1
    }
    if signature.h.len() > SIGNED_FIELDS_MAX {
        return Err((AuthResult::PermError, "too many signed fields"));
    }
    if signature.x != 0 && (signature.x <= signature.t || signature.x <= now.seconds()) {
        return Err((AuthResult::Fail, "signature expired")); // RFC 6376 §3.5
    }
    Ok(())
}

/// Whether the body is the one that was signed (RFC 6376 §6.1.3).
fn body_matches(signature: &Signature, digests: &[(Form, BodyDigest)]) -> Result<(), Refusal> {
    let Some((_, digest)) = digests.iter().find(|(form, _)| *form == Form::of(signature)) else {
        return Err((AuthResult::Neutral, "body hash missing"));
    };
    if signature.l > digest.length {
        return Err((AuthResult::PermError, "l= is longer than the body")); // RFC 6376 §3.5
    }
    if digest.digest != signature.bh {
        return Err((AuthResult::Fail, "body has changed"));
    }
    if signature.l > 0 && signature.l < digest.length {
        return Err((AuthResult::Policy, "l= covers only a part of the body")); // RFC 6376 §8.2
    }
    Ok(())
}

/// One way of hashing a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    canonicalization: Canonicalization,
    limit: u64,
}

impl Form {
    fn of(signature: &Signature) -> Self {
        let canonicalization = match signature.cb {
            LibraryForm::Relaxed => Canonicalization::Relaxed,
            LibraryForm::Simple => Canonicalization::Simple,
        };
        Self { canonicalization, limit: signature.l }
    }
}

/// Reads the body once, for all signatures.
async fn body_digests<'s>(
    content: &Content,
    signatures: impl Iterator<Item = &'s Signature>,
) -> Result<Vec<(Form, BodyDigest)>, Error> {
    let mut hashes: Vec<(Form, BodyHash)> = Vec::new();
    for form in signatures.map(Form::of) {
        if !hashes.iter().any(|(known, _)| *known == form) {
            // `l=0` would sign no body at all; it is read as no limit, so that it fails unless the body is empty.
            let limit = (form.limit > 0).then_some(form.limit);
            hashes.push((form, BodyHash::new(form.canonicalization, limit)));
        }
    }
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    content.each_chunk(|chunk| hashes.iter_mut().for_each(|(_, hash)| hash.update(chunk))).await?;
    Ok(hashes.into_iter().map(|(form, hash)| (form, hash.finish())).collect())
}

/// The library's answer in our words.
fn outcome(output: &DkimOutput<'_>) -> (AuthResult, Option<&'static str>) {
    match output.result() {
        DkimResult::Pass => (AuthResult::Pass, None),
        DkimResult::Fail(error) => (AuthResult::Fail, reason(error)),
        DkimResult::Neutral(error) => (AuthResult::Neutral, reason(error)),
        DkimResult::PermError(error) => (AuthResult::PermError, reason(error)),
        DkimResult::TempError(_) => (AuthResult::TempError, Some("DNS failed")),
        DkimResult::None => (AuthResult::None, None),
    }
}

fn reason(error: &mail_auth::Error) -> Option<&'static str> {
    match error {
        mail_auth::Error::Crypto(CryptoError::FailedVerification) => Some("signature does not verify"),
        mail_auth::Error::Crypto(_) => Some("key does not fit the signature"),
        mail_auth::Error::Dkim(DkimError::RevokedPublicKey) => Some("key is revoked"),
        mail_auth::Error::Dkim(DkimError::FailedAuidMatch) => Some("i= is outside d="),
        mail_auth::Error::Dns(DnsError::RecordNotFound(_)) => Some("no key"),
        mail_auth::Error::Dns(_) | mail_auth::Error::ParseError | mail_auth::Error::Base64 => {
            Some("malformed key record")
        }
        _ => None,
    }
}

fn finding(signature: &Signature, result: AuthResult, reason: Option<&'static str>) -> DkimFinding {
    let algorithm = match signature.a {
        Algorithm::RsaSha1 => "rsa-sha1",
        Algorithm::RsaSha256 => "rsa-sha256",
        Algorithm::Ed25519Sha256 => "ed25519-sha256",
    };
    let octets = &signature.b[..signature.b.len().min(6)];
    DkimFinding {
        result,
        domain: signature.d.to_ascii_lowercase(),
        selector: signature.s.clone(),
        algorithm,
        signature_start: STANDARD.encode(octets),
        reason,
    }
}

/// A finding about a signature, or signatures, that could not be read.
fn unread(result: AuthResult, reason: &'static str) -> DkimFinding {
    DkimFinding {
        result,
        domain: String::new(),
        selector: String::new(),
        algorithm: "",
        signature_start: String::new(),
        reason: Some(reason),
    }
}

impl Stage for DkimStage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cost(&self) -> Cost {
        Cost::Content
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Open
    }

    fn examine<'a>(&'a self, context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>> {
        async {
            let mut findings = self.verify(&context.content, context.received_at()).await?;
            if findings.is_empty() {
                findings.push(DkimFinding { reason: Some("no signature"), ..unread(AuthResult::None, "") });
            }
            let best = [AuthResult::Pass, AuthResult::TempError].into_iter();
            let best = best.clone().find(|result| findings.iter().any(|f| f.result == *result));
            let shown = best.or_else(|| findings.first().map(|f| f.result)).unwrap_or(AuthResult::None);
            // RFC 6376 §6.1: a signature that fails is as if it were not there, so it weighs nothing.
            context.note(NAME, shown.as_str(), 0.0);
            context.facts.dkim = findings;
            Ok(None)
        }
        .boxed()
    }

    fn gave_up(&self, context: &mut Context) {
        context.facts.dkim = vec![unread(AuthResult::TempError, "not verified in time")];
    }
}
