//! SPF (RFC 7208): may this client send for the domain of the reverse-path? mail-auth evaluates the records.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::SpfResult;
use posthouse_net::PrefixSet;

use crate::authentication_results::{AuthResult, SpfFinding, SpfIdentity};
use crate::context::Context;
use crate::dns::Dns;
use crate::error::Error;
use crate::stage::{Cost, FinalWord, OnFailure, Stage};

const NAME: &str = "spf";

/// The stage.
pub struct SpfStage {
    dns: Arc<Dns>,
    /// Our name in macros (RFC 7208 §7.3 `r`).
    host_name: String,
    /// Clients whose address says nothing of the sender.
    trusted: PrefixSet,
    fail_reject: bool,
    deadline: Duration,
}

impl SpfStage {
    pub fn new(dns: Arc<Dns>, host_name: String, trusted: PrefixSet, settings: &posthouse_conf::Filter) -> Self {
        let deadline = settings.stage_timeout.get();
        Self { dns, host_name, trusted, fail_reject: settings.spf_fail_reject, deadline }
    }

    async fn check(&self, context: &Context) -> Result<SpfFinding, Error> {
        let origin = &context.message.origin;
        let client = origin.client_ip.to_canonical();
        let sender = context.message.envelope.reverse_path.address().map(ToString::to_string);
        let (identity, domain) = asked(context);
        if origin.account.is_some() || self.trusted.contains(client) {
            return Ok(SpfFinding { result: AuthResult::None, identity, domain, reason: Some("trusted client") });
        }
        let question = Question { client, hello: &origin.hello, host_name: &self.host_name, sender: sender.as_deref() };
        let result = question.ask(&self.dns).await?;
        Ok(SpfFinding { result, identity, domain, reason: None })
    }
}

/// All that an evaluation depends on (RFC 7208 §4.1).
pub(crate) struct Question<'a> {
    pub client: IpAddr,
    pub hello: &'a str,
    pub host_name: &'a str,
    pub sender: Option<&'a str>,
}

impl Question<'_> {
    pub(crate) async fn ask(&self, dns: &Dns) -> Result<AuthResult, Error> {
        // RFC 7208 §2.4: a null reverse-path is judged as postmaster@ the name of EHLO.
        let parameters = match self.sender {
            Some(sender) => SpfParameters::verify_mail_from(self.client, self.hello, self.host_name, sender),
            None => SpfParameters::verify_ehlo(self.client, self.hello, self.host_name),
        };
        let output = dns.ask(dns.authenticator().verify_spf(parameters)).await?;
        Ok(match output.result() {
            SpfResult::Pass => AuthResult::Pass,
            SpfResult::Fail => AuthResult::Fail,
            SpfResult::SoftFail => AuthResult::SoftFail,
            SpfResult::Neutral => AuthResult::Neutral,
            SpfResult::TempError => AuthResult::TempError,
            SpfResult::PermError => AuthResult::PermError,
            SpfResult::None => AuthResult::None,
        })
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
            let finding = self.check(context).await?;
            context.note(NAME, finding.result.as_str(), score(finding.result));
            let refused = self.fail_reject && finding.result == AuthResult::Fail && !context.is_allowed();
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
