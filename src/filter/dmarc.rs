//! DMARC (RFC 9989, before it RFC 7489): does what SPF or DKIM proved belong to the domain of the From field, and what does
//! that domain ask for if not?
//!
//! mail-auth walks the DNS tree for the record. The public suffix list has a say beside it: identifiers of two
//! organisations never align, even where a suffix under which both are registered publishes a record of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mail_auth::dkim::Signature;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{AuthenticatedMessage, DkimOutput, DmarcOutput, DmarcResult, DnsError, SpfOutput, SpfResult};
use posthouse_mail::{Action, Domain};

use crate::authentication_results::{AuthResult, DmarcFinding};
use crate::author::Author;
use crate::context::{Context, Facts};
use crate::dns::Dns;
use crate::error::Error;
use crate::stage::{Cost, FinalWord, OnFailure, Stage};

const NAME: &str = "dmarc";

/// A message with several From fields was made to be read as two authors (RFC 5322 §3.6 allows one).
const SEVERAL_FROM_SCORE: f64 = 6.0;
const NO_FROM_SCORE: f64 = 1.0;
const FAIL_SCORE: f64 = 1.0;

/// The stage.
pub struct DmarcStage {
    dns: Arc<Dns>,
    trusted: posthouse_net::PrefixSet,
    reject: bool,
    deadline: Duration,
}

impl DmarcStage {
    pub fn new(dns: Arc<Dns>, trusted: posthouse_net::PrefixSet, settings: &posthouse_conf::Filter) -> Self {
        Self { dns, trusted, reject: settings.dmarc_reject, deadline: settings.stage_timeout.get() }
    }

    async fn check(&self, author: &Domain, facts: &Facts) -> Result<DmarcFinding, Error> {
        let message = AuthenticatedMessage { from: vec![format!("author@{author}")], ..Default::default() };
        let signatures = aligned_signatures(author, facts);
        let outputs = signatures.iter().map(|(result, signature)| {
            let output = match result {
                AuthResult::Pass => DkimOutput::pass(),
                _ => DkimOutput::temp_err(mail_auth::Error::Dns(DnsError::Resolver(String::new()))),
            };
            output.with_signature(signature)
        });
        let dkim: Vec<_> = outputs.collect();
        let (spf_domain, spf) = aligned_spf(author, facts);
        let question = DmarcParameters {
            message: &message,
            dkim_output: &dkim,
            dkim2_output: None,
            rfc5321_mail_from_domain: &spf_domain,
            spf_output: &spf,
        };
        let failed = |output: &DmarcOutput| matches!(output.result(), DmarcResult::TempError(_));
        let output = self.dns.ask(self.dns.authenticator().verify_dmarc(question), failed).await?;
        let policy = match output.policy() {
            _ if output.dmarc_record().is_none() => "",
            Policy::Reject => "reject",
            Policy::Quarantine => "quarantine",
            Policy::None | Policy::Unspecified => "none",
        };
        let result = match output.result() {
            DmarcResult::Pass => AuthResult::Pass,
            DmarcResult::Fail(_) => AuthResult::Fail,
            DmarcResult::TempError(_) => AuthResult::TempError,
            DmarcResult::PermError(_) => AuthResult::PermError,
            DmarcResult::None => AuthResult::None,
        };
        Ok(DmarcFinding { result, domain: author.to_string(), policy, reason: None })
    }

    /// What follows from a finding.
    fn judge(&self, context: &mut Context, finding: &mut DmarcFinding) -> Option<FinalWord> {
        if finding.result != AuthResult::Fail {
            context.note(NAME, finding.result.as_str(), 0.0);
            return None;
        }
        let trusted = self.trusted.contains(context.message.origin.client_ip);
        if trusted || context.is_allowed() {
            // RFC 7489 §6.7: local policy may say otherwise. A trusted client's address proves nothing against its mail.
            finding.reason = Some("trusted client, not applied");
            context.note(NAME, "fail, client trusted", 0.0);
            return None;
        }
        context.note(NAME, format!("fail, policy {}", finding.policy), FAIL_SCORE);
        match finding.policy {
            "reject" if self.reject => {
                Some(FinalWord::reject(format!("refused as the DMARC policy of {} asks", finding.domain)))
            }
            "reject" | "quarantine" => Some(FinalWord::new(Action::Junk)),
            _ => None,
        }
    }

    /// Reads the author; an odd From field is evidence by itself.
    fn author(context: &mut Context) -> Option<Domain> {
        let author = Author::of(context.content.header());
        match author.field_count {
            0 => context.note(NAME, "no From field", NO_FROM_SCORE),
            1 => {}
            _ => context.note(NAME, "several From fields", SEVERAL_FROM_SCORE),
        }
        author.domain().filter(|domain| !domain.is_literal()).cloned()
    }
}

/// Signatures that speak for the author's organisation, as the library takes them.
fn aligned_signatures(author: &Domain, facts: &Facts) -> Vec<(AuthResult, Signature)> {
    let telling = facts.dkim.iter().filter(|finding| {
        matches!(finding.result, AuthResult::Pass | AuthResult::TempError)
            && same_organisation(&finding.domain, author.as_str())
    });
    telling.map(|f| (f.result, Signature { d: f.domain.clone(), ..Default::default() })).collect()
}

/// The SPF result, where it speaks for the author's organisation.
fn aligned_spf(author: &Domain, facts: &Facts) -> (String, SpfOutput) {
    let none = || (String::new(), SpfOutput::default());
    let Some(spf) = &facts.spf else { return none() };
    // RFC 7489 §3.1.2 counts the domain of the reverse-path; with a null one that is the name of EHLO (RFC 7208 §2.4).
    let domain = spf.domain.to_ascii_lowercase();
    if !same_organisation(&domain, author.as_str()) {
        return none();
    }
    let result = match spf.result {
        AuthResult::Pass => SpfResult::Pass,
        AuthResult::TempError => SpfResult::TempError,
        _ => SpfResult::None,
    };
    (domain.clone(), SpfOutput::new(domain).with_result(result))
}

/// Whether two domains were registered by one organisation, as far as the public suffix list tells.
fn same_organisation(one: &str, other: &str) -> bool {
    one == other || matches!((psl::domain_str(one), psl::domain_str(other)), (Some(a), Some(b)) if a == b)
}

impl Stage for DmarcStage {
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
            let Some(author) = Self::author(context) else {
                let reason = Some("no single author domain");
                let finding = DmarcFinding { result: AuthResult::None, domain: String::new(), policy: "", reason };
                context.facts.dmarc = Some(finding);
                return Ok(None);
            };
            let mut finding = self.check(&author, &context.facts).await?;
            let word = self.judge(context, &mut finding);
            context.facts.dmarc = Some(finding);
            Ok(word)
        }
        .boxed()
    }

    fn gave_up(&self, context: &mut Context) {
        let domain = Author::of(context.content.header()).domain().map(ToString::to_string).unwrap_or_default();
        context.facts.dmarc = Some(DmarcFinding { result: AuthResult::TempError, domain, policy: "", reason: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_under_a_public_suffix_are_strangers() {
        let check = |one, other, expect| assert_eq!(same_organisation(one, other), expect, "{one} {other}");
        check("mail.example.com", "example.com", true);
        check("a.example.co.uk", "b.example.co.uk", true);
        check("one.co.uk", "two.co.uk", false);
        check("co.uk", "one.co.uk", false);
        check("alice.github.io", "bob.github.io", false);
        check("demo.test", "mail.demo.test", true);
        check("localhost", "localhost", true);
    }
}
