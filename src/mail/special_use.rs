//! Special uses of mailboxes (RFC 6154 §2); JMAP calls them roles (RFC 8621 §2).

/// One use; an account has at most one mailbox for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecialUse {
    /// JMAP's role `inbox`; IMAP needs no attribute for INBOX.
    Inbox,
    Drafts,
    Sent,
    Junk,
    Trash,
    Archive,
}

impl SpecialUse {
    /// Every mailbox that a new account has, in the order of creation, with its name.
    pub const DEFAULTS: [(SpecialUse, &'static str); 6] = [
        (Self::Inbox, "INBOX"),
        (Self::Drafts, "Drafts"),
        (Self::Sent, "Sent"),
        (Self::Junk, "Junk"),
        (Self::Trash, "Trash"),
        (Self::Archive, "Archive"),
    ];

    /// The IMAP attribute (RFC 6154 §2); INBOX has none.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Inbox => None,
            Self::Drafts => Some("\\Drafts"),
            Self::Sent => Some("\\Sent"),
            Self::Junk => Some("\\Junk"),
            Self::Trash => Some("\\Trash"),
            Self::Archive => Some("\\Archive"),
        }
    }

    /// The JMAP role (RFC 8621 §2).
    pub fn role(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Drafts => "drafts",
            Self::Sent => "sent",
            Self::Junk => "junk",
            Self::Trash => "trash",
            Self::Archive => "archive",
        }
    }
}
