//! The mechanism PLAIN (RFC 4616), both sides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthouse_mail::Secret;

use super::{Credentials, SaslError};

/// RFC 4616 §2: octets in each of the three parts.
const PART_MAX: usize = 255;

/// Reads `[authzid] NUL authcid NUL passwd`.
pub(super) fn read(message: &[u8]) -> Result<Credentials, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
    let mut parts = text.split('\0');
    let (Some(authorization), Some(authentication), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed);
    };
    // RFC 4616 §2: authcid and passwd have at least one character.
    let filled = !authentication.is_empty() && !password.is_empty();
    let fit = [authorization, authentication, password].iter().all(|part| part.len() <= PART_MAX);
    if !filled || !fit {
        return Err(SaslError::Malformed);
    }
    Ok(Credentials {
        authorization: (!authorization.is_empty()).then(|| authorization.to_owned()),
        authentication: authentication.to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

/// The client's one response, encoded, as AUTH or AUTHENTICATE carries it.
pub fn encode_plain(authentication: &str, password: &Secret<String>) -> Secret<String> {
    let message = Secret::new(format!("\0{authentication}\0{}", password.reveal()));
    Secret::new(STANDARD.encode(message.reveal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expect: Option<(Option<&str>, &str, &str)>) {
        let read = read(message.as_bytes()).ok();
        let shown = read
            .as_ref()
            .map(|c| (c.authorization.as_deref(), c.authentication.as_str(), c.password.reveal().as_str()));
        assert_eq!(shown, expect, "{message:?}");
    }

    #[test]
    fn rfc4616_2_three_parts_between_two_nuls() {
        check("\0tim\0tanstaaftanstaaf", Some((None, "tim", "tanstaaftanstaaf")));
        check("Ursel\0Kurt\0xipj3plmq", Some((Some("Ursel"), "Kurt", "xipj3plmq")));
        check("\0dömi@x.org\0pässwörd", Some((None, "dömi@x.org", "pässwörd")));
        check("\0tim\0", None);
        check("\0\0secret", None);
        check("tim\0secret", None);
        check("\0tim\0sec\0ret", None);
        check("", None);
        check(&format!("\0tim\0{}", "x".repeat(256)), None);
    }

    #[test]
    fn what_the_client_sends_the_server_reads() {
        let sent = encode_plain("tim", &Secret::new("hunter2".to_owned()));
        let raw = STANDARD.decode(sent.reveal()).expect("base64");
        assert_eq!(read(&raw).expect("credentials").password.reveal(), "hunter2");
    }
}
