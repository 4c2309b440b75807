//! LOGIN (RFC 3501 §6.2.3).

use posthouse_mail::Secret;

use crate::imap::scan::{Parsed, Scanner};

#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    pub password: Secret<String>,
}

pub fn parse(scanner: &mut Scanner<'_>) -> Parsed<Login> {
    let user = scanner.astring_utf8()?;
    scanner.space()?;
    let password = Secret::new(scanner.astring_utf8()?);
    Ok(Login { user, password })
}
