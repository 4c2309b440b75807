//! Status responses: OK, NO, BAD and BYE, with their response codes (RFC 3501 §7.1, RFC 5530 §3).

use std::fmt;

use posthouse_mail::{Uid, UidValidity};

use crate::imap::command::Tag;
use crate::imap::sequence::RangeSet;

/// RFC 3501 §7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Ok,
    No,
    Bad,
    Bye,
}

impl Condition {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::No => "NO",
            Self::Bad => "BAD",
            Self::Bye => "BYE",
        }
    }
}

/// What a program reads in a status response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    Alert,
    /// RFC 3501 §7.1: the charsets that SEARCH knows.
    BadCharset,
    /// The words of `capability`.
    Capability(String),
    /// Already rendered by `flags::put_permanent_flags`.
    PermanentFlags(String),
    ReadOnly,
    ReadWrite,
    TryCreate,
    UidNext(Uid),
    UidValidity(UidValidity),
    /// The number of the first unseen message.
    Unseen(u32),
    /// RFC 4315 §3.
    AppendUid(UidValidity, Uid),
    /// RFC 4315 §3: sources and targets, in the same order.
    CopyUid(UidValidity, RangeSet, RangeSet),
    /// RFC 3691 §2 knows none; RFC 7162 §3.2.11: the old mailbox is left.
    Closed,
    /// RFC 4469 §4.2: larger than a message may be.
    TooBig,
    AlreadyExists,
    AuthenticationFailed,
    AuthorizationFailed,
    Cannot,
    ClientBug,
    ContactAdmin,
    Corruption,
    ExpungeIssued,
    InUse,
    Limit,
    NonExistent,
    NoPerm,
    OverQuota,
    PrivacyRequired,
    ServerBug,
    Unavailable,
    /// RFC 6154 §3: a special use that cannot be given.
    UseAttr,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::BadCharset => "BADCHARSET (US-ASCII UTF-8)",
            Self::Capability(words) => return write!(f, "CAPABILITY {words}"),
            Self::PermanentFlags(flags) => return write!(f, "PERMANENTFLAGS {flags}"),
            Self::UidNext(uid) => return write!(f, "UIDNEXT {uid}"),
            Self::UidValidity(validity) => return write!(f, "UIDVALIDITY {validity}"),
            Self::Unseen(number) => return write!(f, "UNSEEN {number}"),
            Self::AppendUid(validity, uid) => return write!(f, "APPENDUID {validity} {uid}"),
            Self::CopyUid(validity, from, to) => return write!(f, "COPYUID {validity} {from} {to}"),
            Self::Alert => "ALERT",
            Self::ReadOnly => "READ-ONLY",
            Self::ReadWrite => "READ-WRITE",
            Self::TryCreate => "TRYCREATE",
            Self::Closed => "CLOSED",
            Self::TooBig => "TOOBIG",
            Self::AlreadyExists => "ALREADYEXISTS",
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Self::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Self::Cannot => "CANNOT",
            Self::ClientBug => "CLIENTBUG",
            Self::ContactAdmin => "CONTACTADMIN",
            Self::Corruption => "CORRUPTION",
            Self::ExpungeIssued => "EXPUNGEISSUED",
            Self::InUse => "INUSE",
            Self::Limit => "LIMIT",
            Self::NonExistent => "NONEXISTENT",
            Self::NoPerm => "NOPERM",
            Self::OverQuota => "OVERQUOTA",
            Self::PrivacyRequired => "PRIVACYREQUIRED",
            Self::ServerBug => "SERVERBUG",
            Self::Unavailable => "UNAVAILABLE",
            Self::UseAttr => "USEATTR",
        };
        f.write_str(word)
    }
}

/// One status response, tagged or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub condition: Condition,
    pub code: Option<Code>,
    pub text: String,
}

impl Status {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { condition: Condition::Ok, code: None, text: text.into() }
    }

    pub fn no(text: impl Into<String>) -> Self {
        Self { condition: Condition::No, code: None, text: text.into() }
    }

    pub fn bad(text: impl Into<String>) -> Self {
        Self { condition: Condition::Bad, code: None, text: text.into() }
    }

    pub fn bye(text: impl Into<String>) -> Self {
        Self { condition: Condition::Bye, code: None, text: text.into() }
    }

    pub fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// Writes the line; without a tag it is untagged.
    pub fn put(&self, out: &mut Vec<u8>, tag: Option<&Tag>) {
        let tag = tag.map_or("*", Tag::as_str);
        let code = self.code.as_ref().map(|code| format!("[{code}] ")).unwrap_or_default();
        // RFC 3501 §9 resp-text: one line of text, never empty.
        let text: String = self.text.chars().map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c }).collect();
        let text = if text.is_empty() { "done" } else { &text };
        out.extend_from_slice(format!("{tag} {} {code}{text}\r\n", self.condition.as_str()).as_bytes());
    }
}

/// `+ text`: the client's turn (RFC 3501 §7.5).
pub fn put_continuation(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("+ {text}\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: &Status, tag: Option<&str>) -> String {
        let mut out = Vec::new();
        let tag = tag.and_then(|tag| Tag::of(tag.as_bytes()));
        status.put(&mut out, tag.as_ref());
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_status_has_its_code_in_brackets() {
        let validity = UidValidity::new(7).expect("not zero");
        let copied = Code::CopyUid(validity, RangeSet::from_numbers([1, 2, 5]), RangeSet::from_numbers([9, 10, 11]));
        assert_eq!(line(&Status::ok("copied").code(copied), Some("a1")), "a1 OK [COPYUID 7 1:2,5 9:11] copied\r\n");
        assert_eq!(line(&Status::bye("later"), None), "* BYE later\r\n");
        assert_eq!(line(&Status::no("a\r\nb OK x").code(Code::TryCreate), Some("a")), "a NO [TRYCREATE] a??b OK x\r\n");
        assert_eq!(line(&Status::bad(""), Some("a")), "a BAD done\r\n");
    }
}
