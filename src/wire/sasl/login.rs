//! The mechanism LOGIN: name and password in two responses. No RFC defines it; clients of twenty years speak it.

use posthouse_mail::Secret;

use super::{Credentials, SaslError};

/// What clients look for, letter by letter.
pub(super) const NAME_PROMPT: &str = "Username:";
pub(super) const PASSWORD_PROMPT: &str = "Password:";

/// Octets in a name or password, as in RFC 4616 §2.
const PART_MAX: usize = 255;

pub(super) fn name(response: &[u8]) -> Result<String, SaslError> {
    part(response).map(str::to_owned)
}

pub(super) fn password(name: String, response: &[u8]) -> Result<Credentials, SaslError> {
    let password = Secret::new(part(response)?.to_owned());
    Ok(Credentials { authorization: None, authentication: name, password })
}

fn part(response: &[u8]) -> Result<&str, SaslError> {
    let text = std::str::from_utf8(response).map_err(|_| SaslError::Malformed)?;
    let well_formed = !text.is_empty() && text.len() <= PART_MAX && !text.contains('\0');
    if well_formed { Ok(text) } else { Err(SaslError::Malformed) }
}
