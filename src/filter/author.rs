//! Who a message says wrote it: the addresses of its From field (RFC 5322 §3.6.2).
//!
//! DMARC judges by their domain and signing picks its keys by it, so both must read the field in the same way.

use mail_parser::parsers::MessageStream;
use mail_parser::{Address as AddressValue, HeaderValue};
use posthouse_mail::Domain;

use crate::fields::fields;

/// Addresses of one From field that are looked at.
const ADDRESSES_MAX: usize = 100;

/// What the From fields say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// RFC 5322 §3.6 wants exactly one.
    pub field_count: usize,
    /// The different domains, in order.
    pub domains: Vec<Domain>,
}

impl Author {
    /// Reads a header section.
    pub fn of(header: &[u8]) -> Self {
        let mut author = Self::default();
        for field in fields(header).filter(|field| field.is("From")) {
            author.field_count += 1;
            let HeaderValue::Address(value) = MessageStream::new(field.value).parse_address() else {
                continue;
            };
            let addresses: Vec<_> = match value {
                AddressValue::List(list) => list,
                AddressValue::Group(groups) => groups.into_iter().flat_map(|group| group.addresses).collect(),
            };
            for address in addresses.iter().take(ADDRESSES_MAX).filter_map(|addr| addr.address.as_deref()) {
                let domain = address.rsplit_once('@').and_then(|(_, domain)| Domain::parse(domain.trim()).ok());
                if let Some(domain) = domain.filter(|domain| !author.domains.contains(domain)) {
                    author.domains.push(domain);
                }
            }
        }
        author
    }

    /// The one domain, where there is just one.
    pub fn domain(&self) -> Option<&Domain> {
        match self.domains.as_slice() {
            [domain] => Some(domain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, field_count: usize, domains: &[&str]) {
        let author = Author::of(header.as_bytes());
        let found: Vec<_> = author.domains.iter().map(Domain::as_str).collect();
        assert_eq!((author.field_count, found.as_slice()), (field_count, domains), "{header:?}");
    }

    #[test]
    fn rfc5322_3_6_2_the_domains_of_the_from_field() {
        check("From: a@Example.org\r\n\r\n", 1, &["example.org"]);
        check("From: \"x@evil.test\" <a@example.org>\r\n", 1, &["example.org"]);
        check("from : A\r\n B <a@example.org>\r\n", 1, &["example.org"]);
        check("From: a@x.org, b@x.org, c@y.org\r\n", 1, &["x.org", "y.org"]);
        check("From: Team: a@x.org, b@y.org;\r\n", 1, &["x.org", "y.org"]);
        check("From: a@x.org\r\nFrom: b@y.org\r\n", 2, &["x.org", "y.org"]);
        check("Subject: none\r\n", 0, &[]);
        check("From: nobody\r\n", 1, &[]);
        check("From: a@b\u{fc}cher.example\r\n", 1, &["xn--bcher-kva.example"]);
    }
}
