//! The fields of `message/delivery-status`, for programs to read (RFC 3464 §2.2 and §2.3).
//!
//! Apart since each field has its own rule on when it stands there and in which form.

use posthouse_mail::{ForwardPath, OriginalRecipient};

use super::encode::field;
use super::{Report, ReportAction, ReportedRecipient};
use crate::smtp::trace::date_time;

/// The per-message fields, and after an empty line those of each recipient.
pub(super) fn fields(report: &Report<'_>) -> String {
    let mut out = String::new();
    if let Some(id) = report.envelope_id {
        out.push_str(&field("Original-Envelope-Id", id));
    }
    out.push_str(&field("Reporting-MTA", &format!("dns; {}", report.hostname)));
    out.push_str(&field("Arrival-Date", &date_time(report.arrived_at)));
    for recipient in report.recipients {
        out.push_str("\r\n");
        recipient_fields(recipient, &mut out);
    }
    out
}

fn recipient_fields(recipient: &ReportedRecipient, out: &mut String) {
    if let Some(OriginalRecipient { address_type, address }) = &recipient.original {
        out.push_str(&field("Original-Recipient", &format!("{address_type}; {address}")));
    }
    out.push_str(&field("Final-Recipient", &final_recipient(&recipient.path)));
    out.push_str(&field("Action", recipient.action.word()));
    out.push_str(&field("Status", &recipient.status.to_string()));
    if let Some(host) = &recipient.remote_mta {
        out.push_str(&field("Remote-MTA", &format!("dns; {host}")));
    }
    if let Some(reply) = &recipient.reply {
        // RFC 3464 §2.3.6: only what the remote server itself said.
        out.push_str(&field("Diagnostic-Code", &format!("smtp; {reply}")));
    }
    if let Some(at) = recipient.last_attempt_at {
        out.push_str(&field("Last-Attempt-Date", &date_time(at)));
    }
    // RFC 3464 §2.3.9: only for delayed recipients.
    if let Some(until) = recipient.will_retry_until.filter(|_| recipient.action == ReportAction::Delayed) {
        out.push_str(&field("Will-Retry-Until", &date_time(until)));
    }
}

/// RFC 3464 §2.3.2; RFC 6533 §3: addresses that are not ASCII have the type `utf-8`.
fn final_recipient(path: &ForwardPath) -> String {
    let utf8 = path.address().is_some_and(posthouse_mail::Address::needs_smtputf8);
    format!("{}; {path}", if utf8 { "utf-8" } else { "rfc822" })
}
