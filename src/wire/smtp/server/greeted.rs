//! What a client may do before a transaction: say who it is, start TLS, log in, begin (RFC 5321 §3.2, 3207, 4954).

use posthouse_mail::{BodyType, Reply};

use super::{Effect, Facts, Flavour, Greeted, Next, Phase, Policy};
use crate::sasl::{Exchange, Mechanism, SaslError, Step};
use crate::smtp::command::{Mail, Verb};
use crate::smtp::reply;

impl Facts {
    /// EHLO or HELO (RFC 5321 §4.1.1.1).
    pub(super) fn greet(&self, greeted: Greeted, policy: &Policy) -> Next {
        let mut lines = vec![format!("{} greets {}", policy.hostname, greeted.hello)];
        if greeted.extended {
            lines.extend(self.extensions(policy));
        }
        (Phase::ExpectReversePath(greeted), Effect::Reply(Reply::bare(250, lines)))
    }

    /// One line for each extension that is on offer now.
    fn extensions(&self, policy: &Policy) -> Vec<String> {
        let mut lines = vec![
            "PIPELINING".to_owned(),
            format!("SIZE {}", policy.message_max),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
        ];
        if policy.dsn {
            lines.push("DSN".to_owned());
        }
        // RFC 3207 §4.2: not listed once TLS is active.
        if policy.starttls && !self.tls {
            lines.push("STARTTLS".to_owned());
        }
        if self.offers_auth() {
            let names = Mechanism::ALL.map(Mechanism::as_str);
            lines.push(format!("AUTH {}", names.join(" ")));
        }
        lines
    }

    /// Passwords cross the wire under TLS only, and only where users submit (RFC 4954 §4, RFC 8314 §3.3).
    fn offers_auth(&self) -> bool {
        self.flavour == Flavour::Submit && self.tls
    }

    /// STARTTLS (RFC 3207 §4).
    pub(super) fn start_tls(&self, phase: Phase, policy: &Policy) -> Next {
        let effect = match (self.tls, policy.starttls) {
            (true, _) => Effect::Reply(reply::tls_already_active()),
            (false, false) => Effect::Reply(reply::not_implemented(Verb::StartTls)),
            (false, true) => Effect::StartTls(reply::ready_for_tls()),
        };
        (phase, effect)
    }

    /// AUTH (RFC 4954 §4).
    pub(super) fn authenticate(&self, greeted: Greeted, mechanism: &str, initial: Option<&str>) -> Next {
        if !self.offers_auth() {
            return self.refuse(Phase::ExpectReversePath(greeted), Verb::Auth);
        }
        let refusal = match (&self.login, Mechanism::parse(mechanism)) {
            (Some(_), _) => reply::already_authenticated(),
            (None, None) => reply::unknown_mechanism(),
            (None, Some(mechanism)) => return greeted.sasl_step(Exchange::begin(mechanism, initial)),
        };
        (Phase::ExpectReversePath(greeted), Effect::Reply(refusal))
    }

    /// MAIL (RFC 5321 §4.1.1.2).
    pub(super) fn check_mail(&self, greeted: Greeted, mail: Mail, policy: &Policy) -> Next {
        if self.messages >= policy.messages_max {
            return (Phase::Closed, Effect::Close(reply::too_many_messages()));
        }
        match self.refuse_mail(&mail, policy) {
            Some(refusal) => (Phase::ExpectReversePath(greeted), Effect::Reply(refusal)),
            None => (Phase::CheckingReversePath(greeted, mail.clone()), Effect::CheckReversePath(mail)),
        }
    }

    fn refuse_mail(&self, mail: &Mail, policy: &Policy) -> Option<Reply> {
        if self.flavour == Flavour::Submit && !self.tls {
            return Some(reply::starttls_required());
        }
        // RFC 6409 §4.3: no submission without authentication.
        if self.flavour == Flavour::Submit && self.login.is_none() {
            return Some(reply::authentication_required());
        }
        // RFC 1870 §6.1: what is declared too large is refused at once.
        if mail.declared_size.is_some_and(|size| size > policy.message_max) {
            return Some(reply::message_too_large(policy.message_max));
        }
        // todo RFC 3030 §3: BINARYMIME comes with BDAT.
        if mail.body == BodyType::BinaryMime {
            return Some(reply::parameter_not_offered("BODY=BINARYMIME"));
        }
        (mail.uses_dsn() && !policy.dsn).then(|| reply::parameter_not_offered("DSN"))
    }
}

impl Greeted {
    /// Where an exchange stands after one response.
    pub(super) fn sasl_step(self, step: Result<Step, SaslError>) -> Next {
        match step {
            Ok(Step::Challenge { exchange, challenge }) => {
                (Phase::ExpectSaslResponse(self, exchange), Effect::Reply(reply::challenge(&challenge)))
            }
            Ok(Step::Credentials(credentials)) => {
                (Phase::CheckingCredentials(self), Effect::CheckCredentials(credentials))
            }
            Err(error) => (Phase::ExpectReversePath(self), Effect::Reply(reply::sasl_fault(error))),
        }
    }
}
