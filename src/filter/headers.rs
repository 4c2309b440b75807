//! The fields that tell a reader what was found: Authentication-Results and X-Spam-*.
//!
//! They go above the message as received (design: a prefix of added fields, then the body blob).

use std::fmt::Write as _;

use posthouse_mail::{Action, Verdict};

use crate::authentication_results::Results;
use crate::context::Facts;

/// Every added field, each ending in CRLF.
pub fn render(facts: &Facts, verdict: &Verdict, authserv_id: &str) -> String {
    let results = Results { spf: facts.spf.as_ref(), dkim: &facts.dkim, dmarc: facts.dmarc.as_ref() };
    let mut out = results.field(authserv_id);
    let spam = matches!(verdict.action, Action::Junk | Action::Quarantine);
    let answer = if spam { "Yes" } else { "No" };
    let _ = write!(
        out,
        "X-Spam-Status: {answer}, score={:.1}, action={}\r\n",
        verdict.score(),
        action_word(verdict.action)
    );
    if spam {
        out.push_str("X-Spam-Flag: YES\r\n");
    }
    if !verdict.evidence.is_empty() {
        out.push_str("X-Spam-Reasons:");
        for (i, evidence) in verdict.evidence.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            let finding: String = evidence.finding.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
            let _ = write!(out, "{separator}\r\n\t{}={finding} ({:+.1})", evidence.stage, evidence.score);
        }
        out.push_str("\r\n");
    }
    out
}

/// The action as headers and metrics name it.
pub fn action_word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Junk => "junk",
        Action::Quarantine => "quarantine",
        Action::Defer => "defer",
        Action::Reject => "reject",
        Action::Discard => "discard",
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() || c == ' '
}

#[cfg(test)]
mod tests {
    use posthouse_mail::Evidence;

    use super::*;

    #[test]
    fn every_reason_stands_in_the_header() {
        let evidence = |stage, finding: &str, score| Evidence { stage, finding: finding.into(), score };
        let verdict = Verdict {
            action: Action::Junk,
            evidence: vec![evidence("spf", "softfail", 1.0), evidence("dmarc", "evil\r\nX: y", 5.5)],
            reply: None,
        };
        assert_eq!(
            render(&Facts::default(), &verdict, "mx.test"),
            "Authentication-Results: mx.test; none\r\nX-Spam-Status: Yes, score=6.5, action=junk\r\nX-Spam-Flag: YES\r\n\
             X-Spam-Reasons:\r\n\tspf=softfail (+1.0),\r\n\tdmarc=evil??X: y (+5.5)\r\n"
        );
    }
}
