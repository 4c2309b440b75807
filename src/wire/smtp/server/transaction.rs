//! What a client may do within a transaction: name recipients, send the data (RFC 5321 §3.3).

use posthouse_mail::Reply;

use super::{Effect, MailTransaction, Next, Phase, Policy};
use crate::smtp::command::Rcpt;
use crate::smtp::reply;

impl MailTransaction {
    /// RCPT (RFC 5321 §4.1.1.3).
    pub(super) fn check_rcpt(self, rcpt: Rcpt, policy: &Policy) -> Next {
        match self.refuse_rcpt(&rcpt, policy) {
            Some(refusal) => (Phase::ExpectForwardPath(self), Effect::Reply(refusal)),
            None => {
                let path = rcpt.path.clone();
                (Phase::CheckingForwardPath(self, rcpt), Effect::CheckForwardPath(path))
            }
        }
    }

    fn refuse_rcpt(&self, rcpt: &Rcpt, policy: &Policy) -> Option<Reply> {
        if self.envelope.recipients.len() >= policy.recipients_max {
            return Some(reply::too_many_recipients(policy.recipients_max));
        }
        // RFC 6531 §3.3: the transaction did not ask for SMTPUTF8.
        if rcpt.needs_smtputf8 && !self.envelope.smtputf8 {
            return Some(reply::needs_smtputf8());
        }
        (rcpt.uses_dsn() && !policy.dsn).then(|| reply::parameter_not_offered("DSN"))
    }

    /// DATA (RFC 5321 §4.1.1.4).
    pub(super) fn start_data(self) -> Next {
        if !self.envelope.recipients.is_empty() {
            return (Phase::ReceivingData(self), Effect::ReceiveData(reply::send_data()));
        }
        // RFC 5321 §3.3: 503 when no RCPT was tried, 554 when all were refused, which pipelining makes common.
        let refusal = if self.refused {
            reply::no_valid_recipients()
        } else {
            reply::bad_sequence(super::Verb::Data, &[super::Verb::Rcpt])
        };
        (Phase::ExpectForwardPath(self), Effect::Reply(refusal))
    }
}
