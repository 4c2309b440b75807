//! LIST and LSUB (RFC 3501 §6.3.8, §6.3.9; RFC 5258 §3; RFC 5819 §2).

use std::collections::BTreeMap;

use posthouse_storage::mailbox::{self, Mailbox};
use posthouse_wire::imap::MailboxName;
use posthouse_wire::imap::command::list::{List, SelectOptions};
use posthouse_wire::imap::command::lsub::Lsub;
use posthouse_wire::imap::mailbox_name::ListPattern;
use posthouse_wire::imap::response::mailbox::{Listed, put_separator, put_status};
use posthouse_wire::imap::response::status::Status;

use super::answer::Outcome;
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::folder::counts;

/// A name that LIST may show.
#[derive(Debug, Default)]
struct Entry {
    mailbox: Option<Mailbox>,
    subscribed: bool,
    child_subscribed: bool,
}

impl<D: Desk> Dialogue<D> {
    pub(super) async fn list(&mut self, list: List) -> Outcome<Status> {
        let Some(patterns) = &list.patterns else {
            put_separator(&mut self.out);
            return Ok(Status::ok("separator told"));
        };
        for (name, entry) in self.entries().await? {
            if !patterns.iter().any(|pattern| pattern.matches(&name)) || !is_chosen(list.select, &entry) {
                continue;
            }
            let mailbox = entry.mailbox.as_ref();
            let listed = Listed {
                name: &name,
                non_existent: mailbox.is_none(),
                subscribed: entry.subscribed && (list.select.subscribed || list.give.subscribed),
                has_children: mailbox.map(|mailbox| mailbox.has_children),
                special_use: mailbox.and_then(|mailbox| mailbox.role),
                child_subscribed: list.select.recursive_match && list.select.subscribed && entry.child_subscribed,
            };
            listed.put(&mut self.out, "LIST");
            if let Some(mailbox) = mailbox.filter(|_| !list.give.status.is_empty()) {
                put_status(&mut self.out, &name, &list.give.status, counts(mailbox));
            }
            self.flush_if_full().await?;
        }
        Ok(Status::ok("listed"))
    }

    pub(super) async fn lsub(&mut self, lsub: Lsub) -> Outcome<Status> {
        for (name, subscribed) in shown_by_lsub(&self.entries().await?, &lsub.pattern, lsub.shows_parents) {
            let listed = Listed {
                name: &name,
                non_existent: !subscribed,
                subscribed: false,
                has_children: None,
                special_use: None,
                child_subscribed: false,
            };
            listed.put(&mut self.out, "LSUB");
            self.flush_if_full().await?;
        }
        Ok(Status::ok("listed"))
    }

    /// Every mailbox, and every subscribed name without one.
    async fn entries(&self) -> Outcome<BTreeMap<MailboxName, Entry>> {
        let account = self.account()?;
        let mut entries: BTreeMap<MailboxName, Entry> = BTreeMap::new();
        for mailbox in mailbox::list(self.desk.store(), account).await? {
            let name = MailboxName::new(&mailbox.path);
            entries.entry(name).or_default().mailbox = Some(mailbox);
        }
        for path in mailbox::subscriptions(self.desk.store(), account).await? {
            let name = MailboxName::new(&path);
            let mut above = name.parent();
            while let Some(parent) = above {
                above = parent.parent();
                if let Some(entry) = entries.get_mut(&parent) {
                    entry.child_subscribed = true;
                }
            }
            entries.entry(name).or_default().subscribed = true;
        }
        Ok(entries)
    }
}

/// RFC 5258 §3.1: which names the selection options leave.
fn is_chosen(select: SelectOptions, entry: &Entry) -> bool {
    let recursive = select.recursive_match && select.subscribed && entry.child_subscribed;
    let has_use =
        entry.mailbox.as_ref().and_then(|mailbox| mailbox.role).is_some_and(|role| role.attribute().is_some());
    let subscribed = if select.subscribed { entry.subscribed || recursive } else { entry.mailbox.is_some() };
    subscribed && (!select.special_use || has_use)
}

/// RFC 3501 §6.3.9: subscribed names, and with `%` the parents that the pattern cuts them down to, which are not
/// subscribed (`false`).
fn shown_by_lsub(
    entries: &BTreeMap<MailboxName, Entry>,
    pattern: &ListPattern,
    shows_parents: bool,
) -> BTreeMap<MailboxName, bool> {
    let mut shown = BTreeMap::new();
    for name in entries.iter().filter(|(_, entry)| entry.subscribed).map(|(name, _)| name) {
        if pattern.matches(name) {
            shown.insert(name.clone(), true);
            continue;
        }
        let mut above = name.parent().filter(|_| shows_parents);
        while let Some(parent) = above {
            above = parent.parent();
            if pattern.matches(&parent) {
                shown.entry(parent).or_insert(false);
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsub_shows_the_parents_that_a_percent_sign_cuts_to() {
        let subscribed = |name: &str| (MailboxName::new(name), Entry { subscribed: true, ..Entry::default() });
        let entries = BTreeMap::from([subscribed("a/b"), subscribed("c"), subscribed("a/d/e")]);
        let shown = |pattern: &str| {
            let pattern = ListPattern::new(b"", pattern.as_bytes()).expect("a pattern");
            let names = shown_by_lsub(&entries, &pattern, true);
            names.iter().map(|(name, own)| format!("{name}{}", if *own { "" } else { "!" })).collect::<Vec<_>>()
        };
        assert_eq!(shown("%"), ["a!", "c"]);
        assert_eq!(shown("*"), ["a/b", "a/d/e", "c"]);
        assert_eq!(shown("a/%"), ["a/b", "a/d!"]);
    }

    #[test]
    fn selection_options_narrow_the_list() {
        let entry = Entry { subscribed: true, child_subscribed: true, mailbox: None };
        assert!(!is_chosen(SelectOptions::default(), &entry));
        assert!(is_chosen(SelectOptions { subscribed: true, ..Default::default() }, &entry));
        assert!(!is_chosen(SelectOptions { special_use: true, ..Default::default() }, &entry));
    }
}
