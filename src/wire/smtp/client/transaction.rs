//! One mail transaction as the client runs it: MAIL, each RCPT, DATA, and the outcome of every recipient.
//!
//! Apart from the connection's machine, which knows nothing of recipients. With PIPELINING (RFC 2920) commands go out in
//! groups, else one by one; the replies are matched to them in order either way.

use std::collections::VecDeque;
use std::fmt::Write as _;

use posthouse_mail::{
    DeliveryOutcome, DsnNotify, DsnReturn, EnhancedStatus, ForwardPath, Recipient, RemoteReply, ReversePath,
};

use super::super::xtext;
use super::{CloseReason, Extensions, Wait};

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub reverse_path: ReversePath,
    pub recipients: Vec<Recipient>,
    /// Octets of the message.
    pub size: u64,
    /// The message holds octets over 127 (RFC 6152 §3).
    pub eight_bit: bool,
    /// The header holds UTF-8, or the sender asked for SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    pub envelope_id: Option<String>,
    pub dsn_return: Option<DsnReturn>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionResult {
    /// One for each recipient, in their order.
    pub outcomes: Vec<DeliveryOutcome>,
    /// The server said something to MAIL. If not, a connection that was kept open had merely gone stale.
    pub answered: bool,
    /// The data and its end were sent, but no reply came: the server may have the message (RFC 5321 §6.1).
    pub in_doubt: bool,
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    transaction: Transaction,
    extensions: Extensions,
    peer: String,
    outcomes: Vec<Option<DeliveryOutcome>>,
    /// Replies that are due, in order.
    expected: VecDeque<Expected>,
    next: Command,
    mail: MailState,
    data: DataState,
}

/// The command whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Mail,
    Rcpt(usize),
    Data,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Mail,
    Rcpt(usize),
    Data,
    End,
    /// The end of data of a message that nobody gets.
    VoidEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MailState {
    Unanswered,
    Accepted,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataState {
    NotYet,
    /// 354 came; the relay sends.
    Sending,
    /// The end of data went out.
    Sent,
    /// 354 came although nobody gets the message: a lone dot is owed.
    VoidOwed,
    Over,
}

/// What the connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Send(Vec<u8>),
    Wait,
    Ended { needs_reset: bool },
}

impl Running {
    pub(super) fn new(transaction: Transaction, extensions: &Extensions, peer: &str) -> Self {
        Self {
            outcomes: vec![None; transaction.recipients.len()],
            transaction,
            extensions: extensions.clone(),
            peer: peer.to_owned(),
            expected: VecDeque::new(),
            next: Command::Mail,
            mail: MailState::Unanswered,
            data: DataState::NotYet,
        }
    }

    /// Refusals that need no dialogue, since the server said at EHLO what it cannot take.
    pub(super) fn refused_beforehand(&self) -> Option<TransactionResult> {
        let Transaction { size, eight_bit, smtputf8, .. } = &self.transaction;
        let refusal = if self.extensions.size_max.is_some_and(|max| *size > max) {
            // RFC 1870 §6.2: the declared limit will not change for this message.
            Some(((5, 3, 4), "the message is larger than the server takes"))
        } else if (*smtputf8 || self.has_utf8_paths()) && !self.extensions.smtputf8 {
            // RFC 6531 §3.2: without the extension the message must be returned.
            Some(((5, 6, 7), "the message needs SMTPUTF8, which the server does not offer"))
        } else if *eight_bit && !self.extensions.eight_bit_mime {
            // RFC 6152 §3: never send it; converting would break signatures.
            Some(((5, 6, 3), "the message has 8-bit content, which the server does not take"))
        } else {
            None
        };
        let ((class, subject, detail), reason) = refusal?;
        let outcome = DeliveryOutcome::Bounced {
            host: Some(self.peer.clone()),
            status: EnhancedStatus::new(class, subject, detail),
            reason: reason.to_owned(),
            reply: None,
        };
        let outcomes = vec![outcome; self.outcomes.len()];
        Some(TransactionResult { outcomes, answered: true, in_doubt: false })
    }

    fn has_utf8_paths(&self) -> bool {
        let sender = self.transaction.reverse_path.address();
        let recipients = self.transaction.recipients.iter().filter_map(|recipient| recipient.path.address());
        sender.into_iter().chain(recipients).any(|address| address.needs_smtputf8())
    }

    /// What is awaited; `None` while the relay has data to send.
    pub(super) fn awaited(&self) -> Option<Wait> {
        match self.expected.front() {
            _ if self.data == DataState::Sending => None,
            Some(Expected::Data) => Some(Wait::DataStart),
            Some(Expected::End | Expected::VoidEnd) => Some(Wait::DataEnd),
            _ => Some(Wait::Command),
        }
    }

    pub(super) fn data_sent(&mut self) {
        if self.data == DataState::Sending {
            self.data = DataState::Sent;
            self.expected.push_back(Expected::End);
        }
    }

    /// Takes the reply to the oldest command.
    pub(super) fn on_reply(&mut self, reply: &RemoteReply) {
        match self.expected.pop_front() {
            Some(Expected::Mail) if is_ok(reply) => self.mail = MailState::Accepted,
            Some(Expected::Mail) => {
                self.mail = MailState::Refused;
                self.settle_all(&self.refusal(reply));
            }
            Some(Expected::Rcpt(_)) if is_ok(reply) => {}
            Some(Expected::Rcpt(at)) => {
                // RFC 5321 §4.5.3.1.10: 552 here is an old way to say 452, too many recipients.
                let outcome = if reply.code == 552 { self.later(reply) } else { self.refusal(reply) };
                if let Some(slot) = self.outcomes.get_mut(at).filter(|slot| slot.is_none()) {
                    *slot = Some(outcome);
                }
            }
            Some(Expected::Data) if reply.code == 354 => {
                let nobody = self.outcomes.iter().all(Option::is_some);
                self.data = if nobody { DataState::VoidOwed } else { DataState::Sending };
            }
            Some(Expected::Data) => {
                // A success code here is no answer to DATA; nothing was sent, so nothing is lost by trying later.
                self.settle_all(&self.refusal(reply));
                self.next = Command::None;
            }
            Some(Expected::End) => {
                let host = self.peer.clone();
                let delivered = DeliveryOutcome::Delivered { host, reply: reply.clone() };
                self.settle_all(&if is_ok(reply) { delivered } else { self.refusal(reply) });
                self.data = DataState::Over;
            }
            Some(Expected::VoidEnd) | None => self.data = DataState::Over,
        }
    }

    /// The next commands, once the replies to the last ones are in.
    pub(super) fn next(&mut self) -> Next {
        if self.data == DataState::VoidOwed {
            // RFC 2920 §3.1: the server waits for data although it took no recipient: send none.
            self.data = DataState::NotYet;
            self.next = Command::None;
            self.expected.push_back(Expected::VoidEnd);
            return Next::Send(b".\r\n".to_vec());
        }
        if !self.expected.is_empty() || self.data == DataState::Sending {
            return Next::Wait;
        }
        if self.data == DataState::Over {
            return Next::Ended { needs_reset: false };
        }
        let nobody_left = self.outcomes.iter().all(Option::is_some);
        if self.mail == MailState::Refused {
            return Next::Ended { needs_reset: false };
        }
        if self.next == Command::None || (self.next == Command::Data && nobody_left) {
            return Next::Ended { needs_reset: self.mail == MailState::Accepted };
        }
        Next::Send(self.group().into_bytes())
    }

    /// One command, or as many as go out together.
    fn group(&mut self) -> String {
        let size = if self.extensions.pipelining { GROUP_MAX } else { 1 };
        let mut text = String::new();
        while self.expected.len() < size {
            match self.next {
                Command::Mail => {
                    self.write_mail(&mut text);
                    self.expected.push_back(Expected::Mail);
                    self.next = if self.outcomes.is_empty() { Command::None } else { Command::Rcpt(0) };
                }
                Command::Rcpt(at) => {
                    if let Some(recipient) = self.transaction.recipients.get(at) {
                        write_rcpt(&mut text, recipient, self.extensions.dsn);
                    }
                    self.expected.push_back(Expected::Rcpt(at));
                    self.next = if at + 1 < self.outcomes.len() { Command::Rcpt(at + 1) } else { Command::Data };
                }
                Command::Data => {
                    // RFC 2920 §3.1: DATA may only be the last of a group.
                    text.push_str("DATA\r\n");
                    self.expected.push_back(Expected::Data);
                    self.next = Command::None;
                }
                Command::None => break,
            }
        }
        text
    }

    fn write_mail(&self, text: &mut String) {
        let _ = write!(text, "MAIL FROM:<{}>", self.transaction.reverse_path);
        if self.extensions.size {
            let _ = write!(text, " SIZE={}", self.transaction.size);
        }
        if self.transaction.eight_bit {
            text.push_str(" BODY=8BITMIME");
        }
        if self.transaction.smtputf8 || self.has_utf8_paths() {
            text.push_str(" SMTPUTF8");
        }
        if self.extensions.dsn {
            match self.transaction.dsn_return {
                Some(DsnReturn::Full) => text.push_str(" RET=FULL"),
                Some(DsnReturn::Headers) => text.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(id) = &self.transaction.envelope_id {
                let _ = write!(text, " ENVID={}", xtext::encode(id));
            }
        }
        text.push_str("\r\n");
    }

    fn settle_all(&mut self, outcome: &DeliveryOutcome) {
        for slot in self.outcomes.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(outcome.clone());
        }
    }

    /// A reply that is no success: 5yz is permanent, all else transient (RFC 5321 §4.2.1).
    fn refusal(&self, reply: &RemoteReply) -> DeliveryOutcome {
        if !(500..600).contains(&reply.code) {
            return self.later(reply);
        }
        DeliveryOutcome::Bounced {
            host: Some(self.peer.clone()),
            status: reply.status.unwrap_or(EnhancedStatus::new(5, 0, 0)),
            reason: "the server refused".to_owned(),
            reply: Some(reply.clone()),
        }
    }

    fn later(&self, reply: &RemoteReply) -> DeliveryOutcome {
        DeliveryOutcome::Deferred {
            host: Some(self.peer.clone()),
            status: reply.status.filter(|status| status.class == 4).unwrap_or(EnhancedStatus::new(4, 0, 0)),
            reason: "the server asked to try later".to_owned(),
            reply: Some(reply.clone()),
        }
    }

    /// Ends the transaction; recipients without an outcome are put off because the connection ended.
    pub(super) fn into_result(mut self, closed: Option<&CloseReason>) -> TransactionResult {
        let answered = self.mail != MailState::Unanswered;
        let unsettled = self.outcomes.iter().any(Option::is_none);
        let in_doubt = unsettled && self.data == DataState::Sent && !matches!(closed, Some(CloseReason::Refused(_)));
        let lost = CloseReason::Lost("the connection ended".to_owned());
        self.settle_all(&closed.unwrap_or(&lost).outcome(&self.peer));
        TransactionResult { outcomes: self.outcomes.into_iter().flatten().collect(), answered, in_doubt }
    }
}

fn write_rcpt(text: &mut String, recipient: &Recipient, dsn: bool) {
    let _ = write!(text, "RCPT TO:<{}>", recipient.path);
    if dsn {
        if recipient.notify != DsnNotify::default() {
            let _ = write!(text, " NOTIFY={}", notify_words(recipient.notify));
        }
        if let Some(original) = &recipient.original {
            let _ = write!(text, " ORCPT={};{}", original.address_type, xtext::encode(&original.address));
        } else if let ForwardPath::Address(address) = &recipient.path
            && !address.needs_smtputf8()
        {
            // RFC 3461 §5.2.1 (c): a relay may add the address that it was given itself.
            let _ = write!(text, " ORCPT=rfc822;{}", xtext::encode(&address.to_string()));
        }
    }
    text.push_str("\r\n");
}

/// RFC 3461 §4.1.
fn notify_words(notify: DsnNotify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let chosen: Vec<_> = words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    if chosen.is_empty() { "NEVER".to_owned() } else { chosen.join(",") }
}

fn is_ok(reply: &RemoteReply) -> bool {
    (200..300).contains(&reply.code)
}

/// Commands that go out before their replies are read: few enough that neither side's buffers can fill (RFC 2920 §3.1).
const GROUP_MAX: usize = 50;
