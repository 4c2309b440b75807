//! Keeps a session's view of its mailbox with what other sessions and deliveries do.
//!
//! The change log is the one source: notices only say that it is worth reading. What may be told when is `SeqView`'s
//! business; this file fetches the changes and writes them down for the client.

use std::collections::BTreeSet;

use posthouse_mail::{Flag, FlagSet, Uid};
use posthouse_storage::change_log::{self, Change, MailboxEvent};
use posthouse_wire::imap::response::fetch::{FetchResponse, Segment};
use posthouse_wire::imap::response::mailbox::{put_exists, put_expunge, put_mailbox_flags};
use posthouse_wire::imap::seq_view::Permit;

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::rows::rows;
use super::state::{Changed, Selected};

/// Rows of the change log read from one snapshot.
const LOG_PAGE: usize = 256;
/// Messages whose flags are read and told at once.
const FLAGS_PAGE: usize = 200;

impl<D: Desk> Dialogue<D> {
    /// Tells the client what has changed in the open mailbox, as far as it is permitted now.
    pub(super) async fn tell_changes(&mut self, permit: Permit) -> Outcome<()> {
        match self.follow_log().await {
            // The store fails at the moment; the log is read again with the next command.
            Ok(()) | Err(Stop::Answer(_)) => {}
            Err(stop) => return Err(stop),
        }
        let Ok(selected) = self.selected_mut() else {
            return Ok(());
        };
        let told = selected.view.apply(permit);
        for number in told.expunged {
            put_expunge(&mut self.out, number);
            self.flush_if_full().await?;
        }
        if let Some(exists) = told.exists {
            put_exists(&mut self.out, exists);
        }
        match self.tell_flags().await {
            Err(Stop::Answer(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Reads the change log up to its end into the view.
    async fn follow_log(&mut self) -> Outcome<()> {
        let max = self.settings.imap.changes_max;
        loop {
            let (account, Some(selected)) = (self.state.account(), self.state.selected()) else {
                return Ok(());
            };
            let Some(account) = account else { return Ok(()) };
            let known = selected.known;
            let Some(news) = change_log::since(self.desk.store(), account, known, LOG_PAGE).await? else {
                return self.read_anew().await;
            };
            let selected = self.selected_mut()?;
            let mailbox = selected.mailbox;
            for change in news.changes.iter().filter(|change| change.mailbox == mailbox) {
                selected.note(change, max)?;
            }
            selected.known = news.up_to;
            if !news.more {
                selected.own.clear();
                return Ok(());
            }
        }
    }

    /// The log does not reach back to where this session stands: compares the whole mailbox.
    async fn read_anew(&mut self) -> Outcome<()> {
        let account = self.account()?;
        let mailbox = self.selected()?.mailbox;
        let found = posthouse_storage::mailbox::by_id(self.desk.store(), account, mailbox).await?;
        if found.is_none() {
            return Err(Stop::MailboxGone);
        }
        let reading = self.read_mailbox(account, mailbox).await?;
        let selected = self.selected_mut()?;
        let gone: Vec<Uid> =
            selected.view.iter().map(|(_, uid)| uid).filter(|uid| reading.view.seq_of(*uid).is_none()).collect();
        gone.into_iter().for_each(|uid| selected.view.remove(uid));
        reading.view.iter().for_each(|(_, uid)| selected.view.arrive(uid));
        selected.changed = Changed::All;
        selected.known = reading.known;
        selected.own.clear();
        Ok(())
    }

    /// Untagged FETCH with the flags that others changed (RFC 3501 §7.4.2).
    async fn tell_flags(&mut self) -> Outcome<()> {
        let Ok(selected) = self.selected() else {
            return Ok(());
        };
        let uids: Vec<Uid> = match &selected.changed {
            Changed::These(uids) if uids.is_empty() => return Ok(()),
            Changed::These(uids) => uids.iter().copied().collect(),
            Changed::All => selected.view.iter().map(|(_, uid)| uid).collect(),
        };
        let (account, mailbox) = (self.account()?, selected.mailbox);
        for page in uids.chunks(FLAGS_PAGE) {
            let rows = rows(self.desk.store(), account, mailbox, page).await?;
            for row in rows {
                self.tell_keywords(&row.flags)?;
                if let Some(number) = self.selected()?.view.seq_of(row.uid) {
                    let mut response = FetchResponse::new(number);
                    response.uid(row.uid);
                    response.flags(&row.flags, false);
                    self.put_text(response);
                }
            }
            self.flush_if_full().await?;
        }
        self.selected_mut()?.changed = Changed::These(BTreeSet::new());
        Ok(())
    }

    /// RFC 3501 §7.2.6: a keyword is told before it is used.
    pub(super) fn tell_keywords(&mut self, flags: &FlagSet) -> Outcome<()> {
        let selected = self.selected_mut()?;
        let is_new = |flag: &&Flag| matches!(flag, Flag::Keyword(_)) && !selected.keywords.contains(*flag);
        let new: Vec<Flag> = flags.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        selected.keywords.extend(new);
        let (keywords, read_only) = (selected.keywords.clone(), selected.read_only);
        put_mailbox_flags(&mut self.out, &keywords);
        self.put_permanent(&keywords, read_only);
        Ok(())
    }

    /// A response without octets of a message.
    pub(super) fn put_text(&mut self, response: FetchResponse) {
        for segment in response.finish().into_iter().flatten() {
            if let Segment::Text(text) = segment {
                self.out.extend_from_slice(&text);
            }
        }
    }
}

impl Selected {
    fn note(&mut self, change: &Change, changes_max: usize) -> Outcome<()> {
        if change.itself == Some(MailboxEvent::Deleted) {
            return Err(Stop::MailboxGone);
        }
        change.added.iter().for_each(|uid| self.view.arrive(*uid));
        change.expunged.iter().for_each(|uid| self.view.remove(*uid));
        if !self.own.contains(&change.modseq) {
            change.flags.iter().for_each(|uid| self.changed.add(*uid, changes_max));
        }
        Ok(())
    }
}
