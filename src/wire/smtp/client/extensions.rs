//! What a server offers in its reply to EHLO (RFC 5321 §4.1.1.1).
//!
//! Apart because a peer's word list is open and only a few words matter to a relay.

/// The extensions that a relay makes use of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870: SIZE is offered.
    pub size: bool,
    /// RFC 1870 §4: the largest message; `None` where the server names no limit.
    pub size_max: Option<u64>,
    /// RFC 4954: AUTH with PLAIN.
    pub auth_plain: bool,
}

impl Extensions {
    /// Reads the lines of a reply, their codes cut off. The first one is the server's name.
    pub fn read(lines: &[String]) -> Self {
        let mut found = Self::default();
        for line in lines.iter().skip(1) {
            // Old servers wrote `AUTH=PLAIN`.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => {
                    found.size = true;
                    // RFC 1870 §4: zero and absence both mean that there is no fixed limit.
                    found.size_max = words.next().and_then(|max| max.parse().ok()).filter(|max| *max > 0);
                }
                "AUTH" => found.auth_plain |= words.any(|word| word.eq_ignore_ascii_case("PLAIN")),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_4_1_1_1_keywords_are_read_without_case() {
        let lines = ["mx", "pipelining", "SIZE 1000", "AUTH LOGIN plain", "X-OTHER a b"].map(str::to_owned);
        let found = Extensions::read(&lines);
        assert!(found.pipelining && found.auth_plain && !found.dsn);
        assert_eq!(found.size_max, Some(1000));
        assert_eq!(Extensions::read(&["PIPELINING".to_owned()]), Extensions::default(), "the first line is a name");
        let zero = Extensions::read(&["mx".to_owned(), "SIZE 0".to_owned()]);
        assert_eq!((zero.size, zero.size_max), (true, None));
    }
}
