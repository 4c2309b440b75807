//! Names with macros (RFC 7208 §7): read once, expanded for a message.

use std::net::IpAddr;

use super::record::SyntaxError;

/// Octets of a name in DNS, in text form (RFC 7208 §7.3).
const NAME_MAX: usize = 253;

/// RFC 7208 §7.1 `domain-spec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainSpec(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Expand { letter: Letter, parts_max: Option<usize>, reverse: bool, delimiters: String, escape: bool },
}

/// RFC 7208 §7.2; the letters for explanations alone are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Address,
    ValidatedName,
    Family,
    Hello,
}

/// What the letters stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub local_part: &'a str,
    pub sender_domain: &'a str,
    pub domain: &'a str,
    pub client: IpAddr,
    pub hello: &'a str,
    /// Found by a look-up, and only where `needs_validated_name`.
    pub validated_name: &'a str,
}

impl DomainSpec {
    /// Reads a name: it must end in a top label or a macro (RFC 7208 §7.1 `domain-end`).
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let pieces = pieces(text)?;
        let ends_well = match pieces.last() {
            Some(Piece::Expand { .. }) => true,
            Some(Piece::Literal(literal)) => {
                ["%%", "%_", "%-"].iter().any(|end| text.ends_with(end)) || ends_in_top_label(literal)
            }
            None => false,
        };
        if ends_well { Ok(Self(pieces)) } else { Err(SyntaxError) }
    }

    /// Whether the macros of a text are well-formed, whatever it is for.
    pub(crate) fn check_macros(text: &str) -> Result<(), SyntaxError> {
        pieces(text).map(drop)
    }

    /// Whether expansion needs the client's validated name.
    pub(crate) fn needs_validated_name(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Expand { letter: Letter::ValidatedName, .. }))
    }

    /// The name to ask for, without a final dot; too long a name loses labels on the left (RFC 7208 §7.3).
    pub(crate) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Expand { letter, parts_max, reverse, delimiters, escape } => {
                    let value = transform(&letter.value(values), *parts_max, *reverse, delimiters);
                    out.push_str(&if *escape { url_escape(&value) } else { value });
                }
            }
        }
        let name = out.strip_suffix('.').unwrap_or(&out);
        let mut rest = name;
        while rest.len() > NAME_MAX {
            match rest.split_once('.') {
                Some((_, shorter)) => rest = shorter,
                None => break,
            }
        }
        rest.to_owned()
    }
}

/// RFC 7208 §7.1 `toplabel`, after a dot and before at most one more.
fn ends_in_top_label(literal: &str) -> bool {
    let literal = literal.strip_suffix('.').unwrap_or(literal);
    let Some((_, label)) = literal.rsplit_once('.') else {
        return false;
    };
    let inner = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let edges = !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    inner && edges && label.bytes().any(|octet| !octet.is_ascii_digit())
}

/// RFC 7208 §7.1 `macro-string`.
fn pieces(text: &str) -> Result<Vec<Piece>, SyntaxError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c != '%' {
            if !('!'..='~').contains(&c) {
                return Err(SyntaxError);
            }
            literal.push(c);
            rest = &rest[1..];
            continue;
        }
        rest = &rest[1..];
        match rest.as_bytes().first() {
            Some(b'%') => literal.push('%'),
            Some(b'_') => literal.push(' '),
            Some(b'-') => literal.push_str("%20"),
            Some(b'{') => {
                let (inner, after) = rest[1..].split_once('}').ok_or(SyntaxError)?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::parse(inner)?);
                rest = after;
                continue;
            }
            _ => return Err(SyntaxError),
        }
        rest = &rest[1..];
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

impl Piece {
    /// Reads what stands between the braces: letter, transformers, delimiters.
    fn parse(inner: &str) -> Result<Self, SyntaxError> {
        let letter = inner.chars().next().ok_or(SyntaxError)?;
        let escape = letter.is_ascii_uppercase();
        let rest = &inner[letter.len_utf8()..];
        let letter = Letter::of(letter.to_ascii_lowercase()).ok_or(SyntaxError)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let parts_max = match &rest[..digits] {
            "" => None,
            digits => Some(digits.parse().ok().filter(|count| *count > 0).ok_or(SyntaxError)?),
        };
        let rest = &rest[digits..];
        let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(delimiters) => (true, delimiters),
            None => (false, rest),
        };
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(SyntaxError);
        }
        let delimiters = if delimiters.is_empty() { "." } else { delimiters }.to_owned();
        Ok(Self::Expand { letter, parts_max, reverse, delimiters, escape })
    }
}

impl Letter {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            's' => Self::Sender,
            'l' => Self::LocalPart,
            'o' => Self::SenderDomain,
            'd' => Self::Domain,
            'i' => Self::Address,
            'p' => Self::ValidatedName,
            'v' => Self::Family,
            'h' => Self::Hello,
            _ => return None,
        })
    }

    fn value(self, values: &Values<'_>) -> String {
        match self {
            Self::Sender => format!("{}@{}", values.local_part, values.sender_domain),
            Self::LocalPart => values.local_part.to_owned(),
            Self::SenderDomain => values.sender_domain.to_owned(),
            Self::Domain => values.domain.to_owned(),
            Self::Address => match values.client {
                IpAddr::V4(v4) => v4.to_string(),
                // RFC 7208 §7.3: nibbles with dots between them.
                IpAddr::V6(v6) => {
                    let nibbles: Vec<String> =
                        v6.octets().iter().flat_map(|o| [o >> 4, o & 15]).map(|n| format!("{n:x}")).collect();
                    nibbles.join(".")
                }
            },
            Self::ValidatedName => values.validated_name.to_owned(),
            Self::Family => if values.client.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            Self::Hello => values.hello.to_owned(),
        }
    }
}

/// Splits at the delimiters, reverses, keeps parts on the right, joins with dots (RFC 7208 §7.3).
fn transform(value: &str, parts_max: Option<usize>, reverse: bool, delimiters: &str) -> String {
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if reverse {
        parts.reverse();
    }
    let from = parts_max.map_or(0, |count| parts.len().saturating_sub(count));
    parts[from..].join(".")
}

/// RFC 7208 §7.3: all but the unreserved characters of a URI.
fn url_escape(value: &str) -> String {
    let mut out = String::new();
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, client: &str) -> String {
        let values = Values {
            local_part: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            client: client.parse().expect("an address"),
            hello: "mx.example.org",
            validated_name: "unknown",
        };
        DomainSpec::parse(text).expect("a domain-spec").expand(&values)
    }

    #[test]
    fn rfc7208_7_4_the_examples() {
        let check = |text: &str, expect: &str| assert_eq!(expand(text, "192.0.2.3"), expect, "{text}");
        check("%{s}", "strong-bad@email.example.com");
        check("%{d4}", "email.example.com");
        check("%{d2}", "example.com");
        check("%{dr}", "com.example.email");
        check("%{d2r}", "example.email");
        check("%{lr-}", "bad.strong");
        check("%{l1r-}", "strong");
        check("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com");
        check("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com");
        check("%{S}.x.org.", "strong-bad%40email.example.com.x.org");
        let v6 = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com";
        assert_eq!(expand("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01"), v6);
    }

    #[test]
    fn rfc7208_7_1_a_name_ends_in_a_top_label_or_a_macro() {
        for good in ["x.org", "x.org.", "x.%{d}", "a.b-c", "x.1a", "%%.x.org"] {
            assert!(DomainSpec::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "org", ".", "x.", "x.123", "x.-a", "x.a-", "%{x}", "%{d0}", "%{d", "%", "%a", "%{dx}", "%{c}.x.org"]
        {
            assert!(DomainSpec::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rfc7208_7_3_a_long_name_loses_its_left_labels() {
        let name = expand(&format!("{}x.org", "abcdefghi.".repeat(30)), "192.0.2.3");
        assert!(name.len() <= NAME_MAX && name.ends_with("abcdefghi.x.org"));
    }
}
