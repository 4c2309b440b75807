//! AUTHENTICATE (RFC 3501 §6.2.2), with the initial response of SASL-IR (RFC 4959); `wire/sasl` reads what it carries.

use posthouse_mail::Secret;

use crate::imap::scan::{ParseError, Parsed, Scanner};

#[derive(Debug, Clone)]
pub struct Authenticate {
    /// As sent.
    pub mechanism: String,
    /// Still in base64; `=` for a response of no octets (RFC 4959 §3).
    pub initial: Option<Secret<String>>,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Authenticate> {
    let mechanism = scanner.atom()?.to_owned();
    let initial = if scanner.eat(b' ') {
        let text = scanner.take_while(|b| b.is_ascii_graphic());
        let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty());
        Some(Secret::new(text.ok_or(ParseError::Expected("an initial response"))?.to_owned()))
    } else {
        None
    };
    Ok(Authenticate { mechanism, initial })
}
