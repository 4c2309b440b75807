//! Delivery status notifications (RFC 3464, RFC 6522, RFC 6533): what a sender hears of what became of a message.
//!
//! Written by hand and not with a message builder: every octet of a report is either ours or was made harmless, and the
//! internationalised forms need control over each part. A report is sent with the null reverse-path (RFC 5321 §4.5.5).

mod encode;
mod status;

#[cfg(test)]
mod tests;

use posthouse_mail::{
    Address, DsnNotify, DsnReturn, EnhancedStatus, ForwardPath, OriginalRecipient, RemoteReply, UnixMillis,
};

use crate::mime::{fields, find, msg_ids};
use crate::smtp::trace::date_time;
use encode::{clean, is_ascii, quoted_printable};

/// What a report tells.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Our own name: the Reporting-MTA, and the domain of the report's author.
    pub hostname: &'a str,
    /// Who sent the message.
    pub to: &'a Address,
    pub now: UnixMillis,
    pub arrived_at: UnixMillis,
    /// Never used before: the left side of the Message-ID and the core of the boundary.
    pub unique: &'a str,
    /// ENVID, as the sender gave it (RFC 3461 §5.4).
    pub envelope_id: Option<&'a str>,
    pub recipients: &'a [ReportedRecipient],
    pub original: Original<'a>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedRecipient {
    pub path: ForwardPath,
    pub original: Option<OriginalRecipient>,
    pub action: ReportAction,
    pub status: EnhancedStatus,
    /// In words, for a person.
    pub reason: String,
    pub remote_mta: Option<String>,
    pub reply: Option<RemoteReply>,
    pub last_attempt_at: Option<UnixMillis>,
    /// Of a delayed one.
    pub will_retry_until: Option<UnixMillis>,
}

/// RFC 3464 §2.3.3. We expand no lists, so `expanded` is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportAction {
    Failed,
    Delayed,
    Delivered,
    /// Handed to a server that sends no reports (RFC 3461 §5.2.2).
    Relayed,
}

impl ReportAction {
    /// The word of RFC 3464 §2.3.3.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }

    /// Whether the recipient's NOTIFY asks for this report (RFC 3461 §4.1).
    pub fn is_wanted(self, notify: DsnNotify) -> bool {
        match self {
            Self::Failed => notify.failure,
            Self::Delayed => notify.delay,
            Self::Delivered | Self::Relayed => notify.success,
        }
    }
}

/// What of the message goes back with the report.
#[derive(Debug, Clone, Copy)]
pub enum Original<'a> {
    Header(&'a [u8]),
    Full(&'a [u8]),
}

/// Whether the whole message is to be returned (RFC 3461 §4.3): only if it was asked for, with a failure, and within the limit.
pub fn returns_full(wanted: Option<DsnReturn>, recipients: &[ReportedRecipient], size: u64, size_max: u64) -> bool {
    let failed = recipients.iter().any(|recipient| recipient.action == ReportAction::Failed);
    failed && wanted == Some(DsnReturn::Full) && size <= size_max
}

/// A finished report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dsn {
    pub message: Vec<u8>,
    /// Its header holds UTF-8: it needs SMTPUTF8 on its way (RFC 6533 §5).
    pub needs_smtputf8: bool,
    /// It returns a message with octets over 127 (RFC 6152 §3).
    pub eight_bit: bool,
}

impl Report<'_> {
    /// Writes the message.
    pub fn to_dsn(&self) -> Dsn {
        let boundary = format!("=_report_{}", clean(self.unique, 100));
        let mut out = self.header(&boundary).into_bytes();
        for part in [self.text_part(), self.status_part(), self.original_part()] {
            out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
            out.extend_from_slice(&part);
        }
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Dsn { needs_smtputf8: self.to.needs_smtputf8(), eight_bit: !out.is_ascii(), message: out }
    }

    fn header(&self, boundary: &str) -> String {
        let hostname = self.hostname;
        let mut out = format!("From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\nTo: <{}>\r\n", self.to);
        out.push_str(&format!("Subject: {}\r\nDate: {}\r\n", self.subject(), date_time(self.now)));
        out.push_str(&format!("Message-ID: <{}@{hostname}>\r\n", clean(self.unique, 100)));
        // RFC 3834 §3.1.5: ties the report to its message in a reader's list of threads.
        if let Some(id) = self.original_id() {
            out.push_str(&format!("In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n"));
        }
        // RFC 3834 §5: keeps vacation responders quiet.
        out.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
        if let Original::Full(octets) = self.original
            && !is_ascii(octets)
        {
            // RFC 2045 §6.4: a multipart says what its parts need.
            out.push_str("Content-Transfer-Encoding: 8bit\r\n");
        }
        out.push_str(&format!(
            "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n"
        ));
        out.push_str("This is a report in MIME format (RFC 3464).\r\n");
        out
    }

    fn has(&self, action: ReportAction) -> bool {
        self.recipients.iter().any(|recipient| recipient.action == action)
    }

    fn subject(&self) -> &'static str {
        match (self.has(ReportAction::Failed), self.has(ReportAction::Delayed)) {
            (true, _) => "Your message could not be delivered",
            (false, true) => "Your message is delayed",
            (false, false) => "Your message was delivered",
        }
    }

    fn original_octets(&self) -> &[u8] {
        match self.original {
            Original::Header(octets) | Original::Full(octets) => octets,
        }
    }

    fn original_id(&self) -> Option<String> {
        let value = find(self.original_octets(), "Message-ID")?.value();
        // A line of ours must hold nothing that could end it or exceed it.
        msg_ids(&value).into_iter().next().filter(|id| id.len() < 200 && id.bytes().all(|b| b.is_ascii_graphic()))
    }

    /// RFC 3464 §2: the first part is for people.
    fn text_part(&self) -> Vec<u8> {
        let mut text = format!("This is the mail server {}.\r\n\r\n", self.hostname);
        let intro = match (self.has(ReportAction::Failed), self.has(ReportAction::Delayed)) {
            (true, _) => {
                "Your message could not be delivered to the recipients below. The server has\r\ngiven up; nothing more will happen unless you send the message again.\r\n"
            }
            (false, true) => {
                "Your message has not been delivered to the recipients below yet. The server\r\nkeeps trying; you need not send the message again.\r\n"
            }
            (false, false) => "Your message went on to the recipients below, as you asked to be told.\r\n",
        };
        text.push_str(intro);
        for recipient in self.recipients {
            text.push_str(&format!("\r\n<{}>: {}\r\n", recipient.path, clean(&recipient.reason, TEXT_MAX)));
            if let (Some(host), Some(reply)) = (&recipient.remote_mta, &recipient.reply) {
                let said = clean(&reply.to_string(), TEXT_MAX);
                text.push_str(&format!("    {} said: {said}\r\n", clean(host, 255)));
            }
            if let Some(until) = recipient.will_retry_until {
                text.push_str(&format!("    It will be tried until {}.\r\n", date_time(until)));
            }
        }
        part("text/plain; charset=utf-8", text.as_bytes())
    }

    /// RFC 3464 §2.1, or RFC 6533 §4 where an address is not ASCII.
    fn status_part(&self) -> Vec<u8> {
        let fields = status::fields(self);
        let kind =
            if is_ascii(fields.as_bytes()) { "message/delivery-status" } else { "message/global-delivery-status" };
        part(kind, fields.as_bytes())
    }

    fn original_part(&self) -> Vec<u8> {
        match self.original {
            Original::Header(octets) => {
                let header = header_only(octets);
                // RFC 6533 §4: headers with UTF-8 have a type of their own.
                let global = !is_ascii(&header) && std::str::from_utf8(&header).is_ok();
                part(if global { "message/global-headers" } else { "text/rfc822-headers" }, &header)
            }
            Original::Full(octets) => full_part(octets),
        }
    }
}

/// A part in 7 bits, whatever its content.
fn part(content_type: &str, content: &[u8]) -> Vec<u8> {
    let mut out = format!("Content-Type: {content_type}\r\n").into_bytes();
    if is_ascii(content) {
        out.extend_from_slice(b"Content-Transfer-Encoding: 7bit\r\n\r\n");
        out.extend_from_slice(content);
    } else {
        out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        out.extend_from_slice(quoted_printable(content).as_bytes());
    }
    out
}

/// The message as it was. RFC 2046 §5.2.1 allows no encoding here but `8bit`.
fn full_part(octets: &[u8]) -> Vec<u8> {
    let header_ends = fields(octets).last().map_or(0, |field| field.range.end);
    let utf8_header = !is_ascii(&octets[..header_ends]);
    let kind = if utf8_header { "message/global" } else { "message/rfc822" };
    let encoding = if is_ascii(octets) { "7bit" } else { "8bit" };
    let mut out = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes();
    out.extend_from_slice(octets);
    out
}

/// The header of what may be a whole message; cut at a field where it is large.
fn header_only(octets: &[u8]) -> Vec<u8> {
    let whole = fields(octets).take_while(|field| field.range.end <= HEADER_MAX);
    let end = whole.last().map_or(0, |field| field.range.end);
    octets[..end].to_vec()
}

/// Characters of a foreign text that are repeated.
const TEXT_MAX: usize = 900;
/// Octets of a returned header.
const HEADER_MAX: usize = 64 * 1024;
