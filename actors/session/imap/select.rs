//! Opening and leaving a mailbox: SELECT, EXAMINE, UNSELECT, CLOSE (RFC 3501 §6.3.1, §6.3.2, §6.4.2; RFC 3691 §2).

use posthouse_mail::{AccountId, Flag, FlagSet, MailboxId, ModSeq, SeqNum, Uid};
use posthouse_storage::{change_log, mailbox, message};
use posthouse_wire::imap::SeqView;
use posthouse_wire::imap::command::select::Select;
use posthouse_wire::imap::flags::put_permanent_flags;
use posthouse_wire::imap::response::mailbox::{put_exists, put_mailbox_flags, put_recent};
use posthouse_wire::imap::response::status::{Code, Status};

use super::answer::{Outcome, status_of};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::state::{Phase, Selected};

/// Rows read from one snapshot.
pub const PAGE: usize = 1000;
/// Keywords of a mailbox that are told; more only show on their messages.
const KEYWORDS_MAX: usize = 500;

/// A mailbox as it stands at one moment.
pub struct Reading {
    pub view: SeqView,
    pub known: ModSeq,
    pub keywords: FlagSet,
    pub first_unseen: Option<SeqNum>,
}

impl<D: Desk> Dialogue<D> {
    pub(super) async fn select(&mut self, select: Select) -> Outcome<Status> {
        // RFC 3501 §6.3.1: a SELECT that fails leaves no mailbox open.
        self.state.unselect();
        let account = self.account()?;
        let found = mailbox::by_path(self.desk.store(), account, select.mailbox.as_str()).await?;
        let found = found.ok_or_else(|| status_of(&posthouse_storage::Error::NotFound))?;
        let reading = self.read_mailbox(account, found.id).await?;
        // Read after the messages, so that UIDNEXT lies above each of them.
        let found = mailbox::by_id(self.desk.store(), account, found.id).await?;
        let found = found.ok_or_else(|| status_of(&posthouse_storage::Error::NotFound))?;

        put_mailbox_flags(&mut self.out, &reading.keywords);
        put_exists(&mut self.out, reading.view.exists());
        // todo RFC 3501 §2.3.2: \Recent is never set; no client may rely on it, and RFC 9051 dropped it.
        put_recent(&mut self.out, 0);
        if let Some(first) = reading.first_unseen {
            Status::ok("first unseen").code(Code::Unseen(first.get())).put(&mut self.out, None);
        }
        self.put_permanent(&reading.keywords, select.read_only);
        Status::ok("uids are valid").code(Code::UidValidity(found.uid_validity)).put(&mut self.out, None);
        Status::ok("next uid").code(Code::UidNext(found.uid_next)).put(&mut self.out, None);

        let selected = Box::new(Selected {
            mailbox: found.id,
            read_only: select.read_only,
            view: reading.view,
            known: reading.known,
            keywords: reading.keywords,
            own: Vec::new(),
            changed: Default::default(),
        });
        self.state.phase = Phase::Selected { account, selected };
        let code = if select.read_only { Code::ReadOnly } else { Code::ReadWrite };
        Ok(Status::ok("mailbox open").code(code))
    }

    pub(super) fn put_permanent(&mut self, keywords: &FlagSet, read_only: bool) {
        let mut flags = Vec::new();
        put_permanent_flags(&mut flags, keywords, read_only);
        let flags = String::from_utf8_lossy(&flags).into_owned();
        Status::ok("flags that last").code(Code::PermanentFlags(flags)).put(&mut self.out, None);
    }

    /// Reads all rows of a mailbox, page by page. Changes made meanwhile stand in the log behind `known`, and are applied
    /// again without harm.
    pub(super) async fn read_mailbox(&self, account: AccountId, mailbox: MailboxId) -> Outcome<Reading> {
        let store = self.desk.store();
        let known = change_log::highest(store, account).await?;
        let mut uids: Vec<Uid> = Vec::new();
        let mut keywords = FlagSet::new();
        let mut first_unseen = None;
        let mut next = Some(Uid::FIRST);
        while let Some(from) = next {
            let page = message::memberships(store, account, mailbox, from, PAGE).await?;
            for row in page.messages {
                uids.push(row.uid);
                if first_unseen.is_none() && !row.flags.contains(&Flag::Seen) {
                    first_unseen = u32::try_from(uids.len()).ok().and_then(SeqNum::new);
                }
                if keywords.len() < KEYWORDS_MAX {
                    keywords.extend(row.flags.into_iter().filter(|flag| matches!(flag, Flag::Keyword(_))));
                }
            }
            next = page.next;
        }
        Ok(Reading { view: SeqView::new(uids), known, keywords, first_unseen })
    }

    /// RFC 3691 §2: leaves without expunging.
    pub(super) fn unselect(&mut self) -> Status {
        self.state.unselect();
        Status::ok("mailbox left")
    }

    /// RFC 3501 §6.4.2: expunges in silence, unless the mailbox is open for reading only.
    pub(super) async fn close(&mut self) -> Outcome<Status> {
        if !self.selected()?.read_only {
            self.expunge_deleted(None).await?;
        }
        self.state.unselect();
        Ok(Status::ok("mailbox closed"))
    }
}
