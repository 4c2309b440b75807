//! What a stored message looks like inside: its parts with their places in the raw bytes, and the fields that ENVELOPE shows.
//!
//! `wire/mime` fills these in once, at delivery; storage keeps them in the email row, so FETCH of ENVELOPE, BODYSTRUCTURE or
//! of one part never parses a message again. Offsets count from the first byte of the message as a client sees it
//! (added header fields included). They are prost messages, so that fields can be added without breaking stored rows.

/// One body part of RFC 9051 §7.5.2 BODYSTRUCTURE. The root is the message itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyPart {
    /// Lower case, `text`.
    #[prost(string, tag = "1")]
    pub media_type: String,
    /// Lower case, `plain`.
    #[prost(string, tag = "2")]
    pub media_subtype: String,
    /// Content-Type parameters in order, names in lower case.
    #[prost(message, repeated, tag = "3")]
    pub parameters: Vec<Parameter>,
    #[prost(string, optional, tag = "4")]
    pub content_id: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub description: Option<String>,
    /// Lower case; `7bit` where the field is absent (RFC 2045 §6.1).
    #[prost(string, tag = "6")]
    pub transfer_encoding: String,
    #[prost(string, optional, tag = "7")]
    pub md5: Option<String>,
    /// Lower case, `attachment`.
    #[prost(string, optional, tag = "8")]
    pub disposition: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub disposition_parameters: Vec<Parameter>,
    #[prost(string, repeated, tag = "10")]
    pub languages: Vec<String>,
    #[prost(string, optional, tag = "11")]
    pub location: Option<String>,
    /// First octet of the part's header (the message's first octet for the root).
    #[prost(uint64, tag = "12")]
    pub header_start: u64,
    /// First octet after the header's blank line; the body starts here.
    #[prost(uint64, tag = "13")]
    pub body_start: u64,
    /// First octet after the body; the line break before a boundary is not part of it (RFC 2046 §5.1.1).
    #[prost(uint64, tag = "14")]
    pub body_end: u64,
    /// Lines of the body, for `text/*` and `message/rfc822`.
    #[prost(uint64, tag = "15")]
    pub line_count: u64,
    /// The parts of a multipart; for `message/rfc822` exactly one: the root of the message inside.
    #[prost(message, repeated, tag = "16")]
    pub children: Vec<BodyPart>,
    /// For `message/rfc822`: the ENVELOPE of the message inside.
    #[prost(message, optional, tag = "17")]
    pub inner_envelope: Option<EnvelopeStructure>,
}

impl BodyPart {
    pub fn is_multipart(&self) -> bool {
        self.media_type == "multipart"
    }

    /// `message/rfc822` or `message/global`: its one child is the root of the message inside.
    pub fn is_message(&self) -> bool {
        self.media_type == "message" && (self.media_subtype == "rfc822" || self.media_subtype == "global")
    }

    /// Octets of the body in its transfer encoding (RFC 9051 §7.5.2 body size).
    pub fn body_size(&self) -> u64 {
        self.body_end.saturating_sub(self.body_start)
    }
}

/// `name=value` of a structured field; the value is decoded (RFC 2231).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Parameter {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// RFC 9051 §7.5.2 ENVELOPE: fields of the message header as they stand there, unfolded, encoded words kept.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EnvelopeStructure {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub date: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub subject: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    pub from: Vec<HeaderAddress>,
    #[prost(message, repeated, tag = "4")]
    pub sender: Vec<HeaderAddress>,
    #[prost(message, repeated, tag = "5")]
    pub reply_to: Vec<HeaderAddress>,
    #[prost(message, repeated, tag = "6")]
    pub to: Vec<HeaderAddress>,
    #[prost(message, repeated, tag = "7")]
    pub cc: Vec<HeaderAddress>,
    #[prost(message, repeated, tag = "8")]
    pub bcc: Vec<HeaderAddress>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub in_reply_to: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub message_id: Option<Vec<u8>>,
}

/// One address of a header field, or the start or end of a group (RFC 9051 §7.5.2 `address`): a group starts with only
/// `mailbox` set to its name and ends with nothing set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderAddress {
    /// Display name, encoded words kept.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub name: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub mailbox: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub host: Option<Vec<u8>>,
}

/// Everything about a message that is worked out once, at delivery.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageStructure {
    #[prost(message, optional, tag = "1")]
    pub root: Option<BodyPart>,
    #[prost(message, optional, tag = "2")]
    pub envelope: Option<EnvelopeStructure>,
    /// The Date field as Unix seconds, where it can be read (RFC 3501 §6.4.4 SENTBEFORE and kin).
    #[prost(int64, optional, tag = "3")]
    pub sent_at: Option<i64>,
    /// Base subject for threading (RFC 5256 §2.1).
    #[prost(string, tag = "4")]
    pub base_subject: String,
    /// Message-IDs of Message-ID, In-Reply-To and References, without angle brackets: what joins a thread.
    #[prost(string, repeated, tag = "5")]
    pub thread_ids: Vec<String>,
    /// The structure stops short: a limit on depth, parts or header size was met.
    #[prost(bool, tag = "6")]
    pub truncated: bool,
}

impl MessageStructure {
    /// The structure of the same message with `octets` of header fields put above it: all that lies behind them moves.
    pub fn under_prefix(mut self, octets: u64) -> Self {
        if let Some(root) = &mut self.root {
            root.move_by(octets);
            // RFC 9051 §7.5.2: the added fields belong to the message's own header.
            root.header_start = 0;
        }
        self
    }
}

impl BodyPart {
    /// Recursion ends where `wire/mime` cuts the depth of a message.
    fn move_by(&mut self, octets: u64) {
        self.header_start += octets;
        self.body_start += octets;
        self.body_end += octets;
        self.children.iter_mut().for_each(|child| child.move_by(octets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_fields_move_every_part_but_the_start_of_the_message() {
        let child = BodyPart { header_start: 20, body_start: 30, body_end: 40, ..BodyPart::default() };
        let root = BodyPart { body_start: 10, body_end: 50, children: vec![child], ..BodyPart::default() };
        let moved = MessageStructure { root: Some(root), ..MessageStructure::default() }.under_prefix(5);
        let root = moved.root.expect("a root");
        assert_eq!((root.header_start, root.body_start, root.body_end), (0, 15, 55));
        assert_eq!((root.children[0].header_start, root.children[0].body_end), (25, 45));
    }
}
