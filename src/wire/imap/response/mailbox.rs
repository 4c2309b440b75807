//! Answers about mailboxes: LIST, LSUB, STATUS, NAMESPACE, EXISTS, EXPUNGE, FLAGS (RFC 3501 §7.2, §7.3).

use posthouse_mail::{FlagSet, SeqNum, SpecialUse, Uid, UidValidity};

use crate::imap::command::status::StatusItem;
use crate::imap::flags::{SYSTEM, put_flags};
use crate::imap::mailbox_name::{MailboxName, SEPARATOR};

use super::text::{put_astring, put_display};

/// One line of LIST or LSUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    pub name: &'a MailboxName,
    /// RFC 5258 §3: not a mailbox, but an ancestor of one.
    pub non_existent: bool,
    pub subscribed: bool,
    /// RFC 3348 §3; `None` where it was not asked for.
    pub has_children: Option<bool>,
    pub special_use: Option<SpecialUse>,
    /// RFC 5258 §3.5 CHILDINFO: a descendant is subscribed and was not itself listed.
    pub child_subscribed: bool,
}

impl Listed<'_> {
    pub fn put(&self, out: &mut Vec<u8>, command: &str) {
        let mut attributes: Vec<&str> = Vec::new();
        if self.non_existent {
            // RFC 3501 §7.2.2 clients know \Noselect, RFC 5258 §3 clients both.
            attributes.extend(["\\Noselect", "\\NonExistent"]);
        }
        attributes.extend(self.subscribed.then_some("\\Subscribed"));
        attributes.extend(self.has_children.map(|some| if some { "\\HasChildren" } else { "\\HasNoChildren" }));
        attributes.extend(self.special_use.and_then(SpecialUse::attribute));
        out.extend_from_slice(format!("* {command} ({}) \"{SEPARATOR}\" ", attributes.join(" ")).as_bytes());
        put_astring(out, self.name.to_wire().as_bytes());
        if self.child_subscribed {
            out.extend_from_slice(b" (\"CHILDINFO\" (\"SUBSCRIBED\"))");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The answer to LIST with an empty pattern: the separator (RFC 3501 §6.3.8).
pub fn put_separator(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("* LIST (\\Noselect) \"{SEPARATOR}\" \"\"\r\n").as_bytes());
}

/// What STATUS can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub messages: u32,
    pub recent: u32,
    pub unseen: u32,
    pub uid_next: Uid,
    pub uid_validity: UidValidity,
}

pub fn put_status(out: &mut Vec<u8>, name: &MailboxName, items: &[StatusItem], counts: Counts) {
    out.extend_from_slice(b"* STATUS ");
    put_astring(out, name.to_wire().as_bytes());
    let told: Vec<String> = items
        .iter()
        .map(|item| {
            let value = match item {
                StatusItem::Messages => counts.messages,
                StatusItem::Recent => counts.recent,
                StatusItem::Unseen => counts.unseen,
                StatusItem::UidNext => counts.uid_next.get(),
                StatusItem::UidValidity => counts.uid_validity.get(),
            };
            format!("{} {value}", item.as_str())
        })
        .collect();
    out.extend_from_slice(format!(" ({})\r\n", told.join(" ")).as_bytes());
}

/// RFC 2342 §5: one personal namespace, no other.
pub fn put_namespace(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("* NAMESPACE ((\"\" \"{SEPARATOR}\")) NIL NIL\r\n").as_bytes());
}

pub fn put_exists(out: &mut Vec<u8>, count: u32) {
    put_display(out, format_args!("* {count} EXISTS\r\n"));
}

pub fn put_recent(out: &mut Vec<u8>, count: u32) {
    put_display(out, format_args!("* {count} RECENT\r\n"));
}

pub fn put_expunge(out: &mut Vec<u8>, number: SeqNum) {
    put_display(out, format_args!("* {number} EXPUNGE\r\n"));
}

/// RFC 3501 §7.2.6: the flags that this mailbox knows.
pub fn put_mailbox_flags(out: &mut Vec<u8>, keywords: &FlagSet) {
    out.extend_from_slice(b"* FLAGS ");
    let extra = keywords.iter().filter(|flag| !SYSTEM.contains(flag));
    put_flags(out, SYSTEM.iter().chain(extra), false);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_mailboxes() {
        let name = MailboxName::new("Entwürfe 1");
        let mut out = Vec::new();
        let listed = Listed {
            name: &name,
            non_existent: false,
            subscribed: true,
            has_children: Some(false),
            special_use: Some(SpecialUse::Drafts),
            child_subscribed: false,
        };
        listed.put(&mut out, "LIST");
        let counts = Counts {
            messages: 3,
            recent: 0,
            unseen: 1,
            uid_next: Uid::new(9).expect("not zero"),
            uid_validity: UidValidity::new(5).expect("not zero"),
        };
        put_status(&mut out, &name, &StatusItem::ALL, counts);
        put_mailbox_flags(&mut out, &FlagSet::new());
        let expect = "* LIST (\\Subscribed \\HasNoChildren \\Drafts) \"/\" \"Entw&APw-rfe 1\"\r\n\
            * STATUS \"Entw&APw-rfe 1\" (MESSAGES 3 RECENT 0 UIDNEXT 9 UIDVALIDITY 5 UNSEEN 1)\r\n\
            * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expect);
    }
}
