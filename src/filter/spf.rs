//! SPF (RFC 7208): may this client send for the domain of the reverse-path?
//!
//! Evaluated by our own code in `spf/`: of the 203 cases of the openspf suite mail-auth 0.13.3 answers 56 otherwise than
//! the suite allows (two records, bad syntax, void look-ups, prefixes over address families).

mod domain_spec;
mod evaluate;
mod record;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use posthouse_net::PrefixSet;

use crate::authentication_results::{AuthResult, SpfFinding, SpfIdentity};
use crate::context::Context;
use crate::dns::Dns;
use crate::error::Error;
pub(crate) use evaluate::Question;

use crate::stage::{Cost, FinalWord, OnFailure, Stage};

const NAME: &str = "spf";

/// The stage.
pub struct SpfStage {
    dns: Arc<Dns>,
    /// Clients whose address says nothing of the sender: what is found is told, and nothing follows from it.
    trusted: PrefixSet,
    fail_reject: bool,
    deadline: Duration,
}

impl SpfStage {
    pub fn new(dns: Arc<Dns>, trusted: PrefixSet, settings: &posthouse_conf::Filter) -> Self {
        let deadline = settings.stage_timeout.get();
        Self { dns, trusted, fail_reject: settings.spf_fail_reject, deadline }
    }

    async fn check(&self, context: &Context) -> Result<SpfFinding, Error> {
        let origin = &context.message.origin;
        let client = origin.client_ip.to_canonical();
        let sender = context.message.envelope.reverse_path.address().map(ToString::to_string);
        let (identity, domain) = asked(context);
        if origin.account.is_some() {
            return Ok(SpfFinding { result: AuthResult::None, identity, domain, reason: Some("authenticated") });
        }
        let question = Question { client, hello: &origin.hello, sender: sender.as_deref() };
        let result = self.dns.ask(question.ask(&self.dns), |result| *result == AuthResult::TempError).await?;
        Ok(SpfFinding { result, identity, domain, reason: None })
    }
}

/// The identity that counts for a message, and its domain.
fn asked(context: &Context) -> (SpfIdentity, String) {
    match context.message.envelope.reverse_path.address() {
        Some(sender) => (SpfIdentity::MailFrom, sender.domain.to_string()),
        None => (SpfIdentity::Hello, context.message.origin.hello.clone()),
    }
}

/// What a result weighs by itself. A pass weighs nothing: spammers publish records too.
fn score(result: AuthResult) -> f64 {
    match result {
        AuthResult::Fail => 3.0,
        AuthResult::SoftFail => 1.0,
        AuthResult::PermError => 0.5,
        _ => 0.0,
    }
}

impl Stage for SpfStage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cost(&self) -> Cost {
        Cost::Envelope
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Open
    }

    fn examine<'a>(&'a self, context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>> {
        async {
            let mut finding = self.check(context).await?;
            let trusted = self.trusted.contains(context.message.origin.client_ip);
            let weight = if trusted { 0.0 } else { score(finding.result) };
            if trusted && score(finding.result) > 0.0 {
                finding.reason = Some("trusted client, not applied");
            }
            context.note(NAME, finding.result.as_str(), weight);
            let refused = self.fail_reject && finding.result == AuthResult::Fail && !trusted && !context.is_allowed();
            // RFC 7208 §8.4: a receiver that refuses a fail answers 550 5.7.1.
            let word = refused.then(|| FinalWord::reject(format!("{} does not send mail from here", finding.domain)));
            context.facts.spf = Some(finding);
            Ok(word)
        }
        .boxed()
    }

    fn gave_up(&self, context: &mut Context) {
        let (identity, domain) = asked(context);
        context.facts.spf = Some(SpfFinding { result: AuthResult::TempError, identity, domain, reason: None });
    }
}
