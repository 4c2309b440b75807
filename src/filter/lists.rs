//! The site's own lists: addresses, domains and client prefixes that are let through or refused.
//!
//! A sender's name is easily written by anybody, so an allowance for a name counts only once SPF or DKIM has proved it.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use posthouse_mail::{Address, Domain};
use posthouse_net::Prefix;

use crate::authentication_results::{AuthResult, DkimFinding, SpfIdentity};
use crate::context::{Context, Facts};
use crate::error::Error;
use crate::stage::{Cost, FinalWord, OnFailure, Stage};

/// Entries of one list, by kind.
#[derive(Debug, Default)]
struct List {
    prefixes: Vec<Prefix>,
    /// Folded, as `Address::key` writes them.
    addresses: Vec<String>,
    /// A domain with all below it.
    domains: Vec<Domain>,
}

impl List {
    fn parse(entries: &[String]) -> Result<Self, Error> {
        let mut list = Self::default();
        for entry in entries {
            if let Ok(prefix) = entry.parse() {
                list.prefixes.push(prefix);
            } else if let Ok(address) = Address::parse(entry) {
                list.addresses.push(address.key());
            } else if let Ok(domain) = Domain::parse(entry) {
                list.domains.push(domain);
            } else {
                return Err(Error::ListEntry(entry.clone()));
            }
        }
        Ok(list)
    }

    fn has_client(&self, client: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(client))
    }

    fn has_sender(&self, sender: &Address) -> bool {
        let key = sender.key();
        self.addresses.contains(&key)
            || self.domains.iter().any(|listed| is_within(sender.domain.as_str(), listed.as_str()))
    }
}

/// Whether a domain is another one or below it.
pub(crate) fn is_within(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Why mail may pass whatever its score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowance {
    /// The client's address is listed.
    Client,
    /// The reverse-path is listed; still to be proved for its domain.
    Sender(Domain),
}

impl Allowance {
    /// Whether what was found so far bears the allowance out.
    pub fn holds(&self, facts: &Facts) -> bool {
        let Self::Sender(domain) = self else {
            return true;
        };
        let spf = facts.spf.as_ref().is_some_and(|spf| {
            spf.result == AuthResult::Pass && spf.identity == SpfIdentity::MailFrom && spf.domain == domain.as_str()
        });
        let signed = |dkim: &DkimFinding| dkim.result == AuthResult::Pass && is_within(domain.as_str(), &dkim.domain);
        spf || facts.dkim.iter().any(signed)
    }
}

/// The stage that knows both lists.
#[derive(Debug)]
pub struct Lists {
    allow: List,
    deny: List,
}

impl Lists {
    pub fn new(allow: &[String], deny: &[String]) -> Result<Self, Error> {
        Ok(Self { allow: List::parse(allow)?, deny: List::parse(deny)? })
    }

    fn judge(&self, context: &mut Context) -> Option<FinalWord> {
        let client = context.message.origin.client_ip;
        let sender = context.message.envelope.reverse_path.address();
        if self.deny.has_client(client) || sender.is_some_and(|sender| self.deny.has_sender(sender)) {
            context.note(NAME, "denied", 0.0);
            return Some(FinalWord::reject("mail from here is refused by this site"));
        }
        let allowed_sender = sender.filter(|sender| self.allow.has_sender(sender)).map(|s| s.domain.clone());
        context.facts.allowance =
            if self.allow.has_client(client) { Some(Allowance::Client) } else { allowed_sender.map(Allowance::Sender) };
        None
    }
}

const NAME: &str = "lists";

impl Stage for Lists {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cost(&self) -> Cost {
        Cost::Connection
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Open
    }

    fn examine<'a>(&'a self, context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>> {
        std::future::ready(Ok(self.judge(context))).boxed()
    }
}
