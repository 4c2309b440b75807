//! Every reply of our SMTP server, by what it means; apart so that no two places word one refusal in two ways.
//!
//! Codes are of RFC 5321 §4.2, enhanced statuses of RFC 3463 and the IANA registry of RFC 5248.

use posthouse_mail::Reply;

use super::command::{CommandFault, Verb};
use super::line::LineFault;
use crate::sasl::SaslError;

/// RFC 5321 §4.2: the greeting.
pub fn greeting(hostname: &str) -> Reply {
    Reply::bare(220, vec![format!("{hostname} ESMTP Posthouse")])
}

pub fn ok() -> Reply {
    Reply::new(250, (2, 0, 0), "ok")
}

pub fn goodbye(hostname: &str) -> Reply {
    Reply::new(221, (2, 0, 0), format!("{hostname} closing connection"))
}

pub fn help() -> Reply {
    Reply::new(214, (2, 0, 0), "EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; see RFC 5321")
}

pub fn ready_for_tls() -> Reply {
    Reply::new(220, (2, 0, 0), "ready to start TLS")
}

pub fn sender_ok() -> Reply {
    Reply::new(250, (2, 1, 0), "sender ok")
}

pub fn recipient_ok() -> Reply {
    Reply::new(250, (2, 1, 5), "recipient ok")
}

/// RFC 5321 §4.1.1.4.
pub fn send_data() -> Reply {
    Reply::bare(354, vec!["send the message, end with <CRLF>.<CRLF>".to_owned()])
}

/// The message is durable; `id` is what our logs call it.
pub fn message_accepted(id: posthouse_mail::IngestId) -> Reply {
    Reply::new(250, (2, 0, 0), format!("accepted as {id}"))
}

/// RFC 5321 §3.5.3: neither yes nor no.
pub fn cannot_verify() -> Reply {
    Reply::new(252, (2, 5, 0), "cannot verify, but will take the message and try")
}

/// RFC 5321 §3.5.1: an address that we deliver to.
pub fn verified(address: &posthouse_mail::Address) -> Reply {
    Reply::new(250, (2, 1, 5), format!("<{address}>"))
}

/// RFC 4954 §4.
pub fn challenge(encoded: &str) -> Reply {
    Reply::bare(334, vec![encoded.to_owned()])
}

pub fn authenticated() -> Reply {
    Reply::new(235, (2, 7, 0), "authenticated")
}

/// RFC 4954 §6: the same words whatever was wrong.
pub fn credentials_invalid() -> Reply {
    Reply::new(535, (5, 7, 8), "name or password is wrong")
}

/// RFC 4954 §6.
pub fn authentication_unavailable(why: &str) -> Reply {
    Reply::new(454, (4, 7, 0), why)
}

/// RFC 3207 §4.
pub fn starttls_required() -> Reply {
    Reply::new(530, (5, 7, 0), "issue STARTTLS first")
}

/// RFC 4954 §6.
pub fn encryption_required() -> Reply {
    Reply::new(538, (5, 7, 11), "authentication needs encryption: issue STARTTLS first")
}

/// RFC 4954 §6.
pub fn authentication_required() -> Reply {
    Reply::new(530, (5, 7, 0), "authentication required")
}

pub fn tls_already_active() -> Reply {
    Reply::new(503, (5, 5, 1), "TLS is already active")
}

pub fn already_authenticated() -> Reply {
    Reply::new(503, (5, 5, 1), "already authenticated")
}

/// RFC 5321 §4.2.4: a command that is known and not implemented here.
pub fn not_implemented(verb: Verb) -> Reply {
    Reply::new(502, (5, 5, 1), format!("{} is not implemented here", verb.as_str()))
}

/// RFC 5321 §4.1.4: a command out of sequence; names what would have been right.
pub fn bad_sequence(verb: Verb, expected: &[Verb]) -> Reply {
    let expected: Vec<_> = expected.iter().map(|verb| verb.as_str()).collect();
    Reply::new(503, (5, 5, 1), format!("{} out of sequence, expected {}", verb.as_str(), expected.join(" or ")))
}

/// RFC 4954 §4.
pub fn unknown_mechanism() -> Reply {
    Reply::new(504, (5, 5, 4), "authentication mechanism is not supported")
}

/// RFC 4954 §4: a cancelled or broken exchange is a 501.
pub fn sasl_fault(error: SaslError) -> Reply {
    match error {
        SaslError::Cancelled => Reply::new(501, (5, 7, 0), error.to_string()),
        SaslError::Base64 | SaslError::Malformed => Reply::new(501, (5, 5, 2), error.to_string()),
        SaslError::TooLong => Reply::new(500, (5, 5, 6), error.to_string()),
    }
}

/// RFC 5321 §4.2.4: 500 for what is no command, 501 for a wrong argument, 555 for a parameter that we don't know.
pub fn command_fault(fault: &CommandFault) -> Reply {
    let text = fault.to_string();
    match fault {
        CommandFault::Line(LineFault::TooLong) => Reply::new(500, (5, 5, 6), text),
        CommandFault::Line(_) => Reply::new(500, (5, 5, 2), text),
        CommandFault::UnknownVerb => Reply::new(500, (5, 5, 1), text),
        CommandFault::MissingArgument(_) | CommandFault::UnexpectedArgument(_) => Reply::new(501, (5, 5, 4), text),
        CommandFault::Hello | CommandFault::Parameter(_) => Reply::new(501, (5, 5, 4), text),
        CommandFault::ReversePath => Reply::new(501, (5, 1, 7), text),
        CommandFault::ForwardPath => Reply::new(501, (5, 1, 3), text),
        CommandFault::NeedsSmtpUtf8 => needs_smtputf8(),
        CommandFault::UnknownParameter(_) => Reply::new(555, (5, 5, 4), text),
    }
}

/// RFC 6531 §3.5.
pub fn needs_smtputf8() -> Reply {
    Reply::new(553, (5, 6, 7), CommandFault::NeedsSmtpUtf8.to_string())
}

/// A parameter of an extension that we did not offer.
pub fn parameter_not_offered(name: &str) -> Reply {
    Reply::new(555, (5, 5, 4), format!("{name} is not offered"))
}

/// RFC 1870 §6.1.
pub fn message_too_large(max: u64) -> Reply {
    Reply::new(552, (5, 3, 4), format!("the message is larger than {max} octets"))
}

/// RFC 5321 §4.5.3.1.10.
pub fn too_many_recipients(max: usize) -> Reply {
    Reply::new(452, (4, 5, 3), format!("more than {max} recipients, send the message again for the others"))
}

/// RFC 5321 §3.3: all recipients were refused.
pub fn no_valid_recipients() -> Reply {
    Reply::new(554, (5, 5, 1), "no valid recipients")
}

pub fn too_many_errors() -> Reply {
    Reply::new(421, (4, 7, 0), "too many errors, closing connection")
}

pub fn too_many_messages() -> Reply {
    Reply::new(421, (4, 7, 0), "too many messages on this connection, connect again")
}

/// RFC 5321 §4.5.3.2: the client was silent for too long.
pub fn timed_out() -> Reply {
    Reply::new(421, (4, 4, 2), "timed out waiting for the client")
}

/// RFC 5321 §3.8: this node goes away, at a point where nothing is lost.
pub fn going_away(hostname: &str) -> Reply {
    Reply::new(421, (4, 3, 2), format!("{hostname} is going down for maintenance"))
}

/// Not admitted at the moment: too many connections, or too fast.
pub fn connection_refused(why: &str) -> Reply {
    Reply::new(421, (4, 7, 0), why)
}

/// RFC 5321 §4.3.1: the client must wait for the greeting.
pub fn early_talker() -> Reply {
    Reply::new(554, (5, 5, 1), "the greeting comes first: wait for it")
}

pub fn too_many_messages_from_address() -> Reply {
    Reply::new(450, (4, 7, 1), "too many messages from your address, try again later")
}

pub fn too_many_messages_of_account() -> Reply {
    Reply::new(450, (4, 7, 1), "too many messages from this account, try again later")
}

/// RFC 5321 §3.6.2, §7.9: we carry mail of others to others for nobody.
pub fn relaying_denied() -> Reply {
    Reply::new(550, (5, 7, 1), "relaying denied")
}

pub fn no_such_user() -> Reply {
    Reply::new(550, (5, 1, 1), "no such user here")
}

/// RFC 3463 §3.3 X.2.2; temporary, since a user can make room.
pub fn mailbox_full() -> Reply {
    Reply::new(452, (4, 2, 2), "mailbox is full")
}

/// RFC 3463 §3.3 X.2.2; for a message that could never fit.
pub fn larger_than_quota() -> Reply {
    Reply::new(552, (5, 2, 2), "the message is larger than the mailbox allows")
}

/// RFC 6409 §6.1: a submitted message must bear a name of its sender.
pub fn not_your_address() -> Reply {
    Reply::new(550, (5, 7, 1), "that sender address is not one of yours")
}

/// The filter refuses without words of its own.
pub fn policy_refusal() -> Reply {
    Reply::new(550, (5, 7, 1), "the message is refused by policy")
}

/// The filter defers without words of its own.
pub fn try_again_later() -> Reply {
    Reply::new(451, (4, 7, 1), "the message is not accepted now, try again later")
}

/// The fault is ours and may pass.
pub fn local_error() -> Reply {
    Reply::new(451, (4, 3, 0), "local error, try again later")
}

/// The store is full or too slow.
pub fn storage_unavailable() -> Reply {
    Reply::new(452, (4, 3, 1), "insufficient storage, try again later")
}
