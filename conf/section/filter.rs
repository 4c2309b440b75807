//! `[filter]`: judging mail. A stage that runs out of time fails open.

use posthouse_mail::{Address, Domain};
use serde::{Deserialize, Serialize};

use super::Complaint;
use super::limits::is_prefix;
use crate::unit::{Size, Span};

/// Judging mail. A stage that runs out of time fails open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Filter actors; each has one message at a time and mostly waits for DNS.
    pub workers: usize,
    /// Messages waiting for a filter actor; further ones get 451.
    pub waiting_max: usize,
    /// Longest time of a message in the filter, waiting included; then 451.
    pub wait_max: Span,
    /// Longest time of the stages SPF and DMARC, which ask DNS.
    pub stage_timeout: Span,
    /// Above this size only the header and this much of the body are parsed.
    pub parse_max: Size,
    /// Octets of message content held by all filter actors together.
    pub memory_max: Size,
    /// Messages that killed filter actors, remembered so that their repeats are quarantined.
    pub suspects_max: usize,
    /// Whether SPF is checked (RFC 7208).
    pub spf: bool,
    /// Whether DKIM signatures are verified (RFC 6376).
    pub dkim: bool,
    /// Signatures of one message that are verified; further ones are ignored.
    pub dkim_signatures_max: usize,
    /// Whether DMARC policies are applied (RFC 9989).
    pub dmarc: bool,
    /// Whether a policy of `reject` refuses the message; false files it as Junk.
    pub dmarc_reject: bool,
    /// Whether an SPF result of fail alone refuses the message (RFC 7208 §8.4).
    pub spf_fail_reject: bool,
    /// Score from which a message is filed as Junk.
    pub junk_score: f64,
    /// Score from which a message is refused.
    pub reject_score: f64,
    /// Client prefixes of our own hosts, whose address says nothing of the sender: SPF and DMARC are told there, not applied.
    pub trusted: Vec<String>,
    /// Addresses, domains or client prefixes whose mail skips the score; a name counts once SPF or DKIM has proved it.
    pub allow: Vec<String>,
    /// Addresses, domains or client prefixes whose mail is refused.
    pub deny: Vec<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            workers: 64,
            waiting_max: 512,
            wait_max: Span::secs(60),
            stage_timeout: Span::secs(5),
            parse_max: Size::mib(1),
            memory_max: Size::mib(64),
            suspects_max: 1000,
            spf: true,
            dkim: true,
            dkim_signatures_max: 10,
            dmarc: true,
            dmarc_reject: true,
            spf_fail_reject: false,
            junk_score: 6.0,
            reject_score: 15.0,
            trusted: vec!["127.0.0.0/8".to_owned(), "::1".to_owned()],
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl Filter {
    pub(super) fn complaint(&self) -> Complaint {
        if self.reject_score < self.junk_score {
            return Some(("filter.reject_score", "must not be below junk_score".to_owned()));
        }
        if let Some(wrong) = self.trusted.iter().find(|text| !is_prefix(text)) {
            return Some(("filter.trusted", format!("`{wrong}` is not an address or prefix such as 127.0.0.0/8")));
        }
        let lists = [("filter.allow", &self.allow), ("filter.deny", &self.deny)];
        lists.into_iter().find_map(|(key, list)| {
            let wrong = list.iter().find(|text| !is_entry(text))?;
            Some((key, format!("`{wrong}` is not an address, a domain or a client prefix")))
        })
    }
}

fn is_entry(text: &str) -> bool {
    is_prefix(text) || Address::parse(text).is_ok() || Domain::parse(text).is_ok()
}
