//! Changing and asking about mailboxes: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS (RFC 3501 §6.3).

use posthouse_mail::IngestId;
use posthouse_storage::mailbox::{self, Create, Delete, Mailbox, NameLimits, Rename};
use posthouse_wire::imap::MailboxName;
use posthouse_wire::imap::command::create::Create as AskedCreate;
use posthouse_wire::imap::command::rename::Rename as AskedRename;
use posthouse_wire::imap::command::status::Status as AskedStatus;
use posthouse_wire::imap::command::subscribe::Subscribe;
use posthouse_wire::imap::response::mailbox::{Counts, put_status};
use posthouse_wire::imap::response::status::{Code, Status};

use super::answer::{Outcome, status_of};
use super::desk::Desk;
use super::dialogue::Dialogue;
use crate::clock;

impl<D: Desk> Dialogue<D> {
    pub(super) async fn create(&mut self, asked: AskedCreate) -> Outcome<Status> {
        let name = asked.mailbox.without_trailing_separator();
        check_creatable(&name)?;
        // RFC 6154 §3: a use that cannot be given refuses the whole command.
        let role = match &asked.uses[..] {
            [] => None,
            [Some(role)] => Some(*role),
            _ => return Err(Status::no("that use cannot be given").code(Code::UseAttr).into()),
        };
        if let Some(role) = role
            && mailbox::by_role(self.desk.store(), self.account()?, role).await?.is_some()
        {
            return Err(Status::no("another mailbox has that use").code(Code::UseAttr).into());
        }
        let create = Create { request: request(), path: name.as_str().to_owned(), role, limits: self.name_limits() };
        self.desk.create(self.account()?, create).await?;
        Ok(Status::ok("created"))
    }

    pub(super) async fn delete(&mut self, name: MailboxName) -> Outcome<Status> {
        // RFC 3501 §6.3.4: it is an error to delete INBOX.
        if name.is_inbox() {
            return Err(Status::no("INBOX stays").code(Code::Cannot).into());
        }
        let account = self.account()?;
        let deleted = self.desk.delete(account, Delete { request: request(), path: name.as_str().to_owned() }).await?;
        if self.state.selected().is_some_and(|selected| selected.mailbox == deleted.mailbox) {
            self.state.unselect();
            Status::ok("the open mailbox is no more").code(Code::Closed).put(&mut self.out, None);
        }
        Ok(Status::ok("deleted"))
    }

    pub(super) async fn rename(&mut self, asked: AskedRename) -> Outcome<Status> {
        let to = asked.to.without_trailing_separator();
        check_creatable(&to)?;
        let rename = Rename {
            request: request(),
            from: asked.from.as_str().to_owned(),
            to: to.as_str().to_owned(),
            limits: self.name_limits(),
        };
        self.desk.rename(self.account()?, rename).await?;
        Ok(Status::ok("renamed"))
    }

    pub(super) async fn subscribe(&mut self, asked: Subscribe) -> Outcome<Status> {
        let name = asked.mailbox.without_trailing_separator();
        self.desk.set_subscribed(self.account()?, name.as_str().to_owned(), asked.on).await?;
        Ok(Status::ok(if asked.on { "subscribed" } else { "unsubscribed" }))
    }

    pub(super) async fn status(&mut self, asked: AskedStatus) -> Outcome<Status> {
        let account = self.account()?;
        let found = mailbox::by_path(self.desk.store(), account, asked.mailbox.as_str()).await?;
        let found = found.ok_or_else(|| status_of(&posthouse_storage::Error::NotFound))?;
        put_status(&mut self.out, &asked.mailbox, &asked.items, counts(&found));
        Ok(Status::ok("status told"))
    }

    fn name_limits(&self) -> NameLimits {
        let settings = &self.settings.mailbox;
        NameLimits { mailboxes_max: settings.mailboxes_max, name_max: settings.name_max, depth_max: settings.depth_max }
    }
}

/// What STATUS tells of a mailbox.
pub fn counts(mailbox: &Mailbox) -> Counts {
    Counts {
        messages: mailbox.messages,
        recent: 0,
        unseen: mailbox.unseen,
        uid_next: mailbox.uid_next,
        uid_validity: mailbox.uid_validity,
    }
}

fn check_creatable(name: &MailboxName) -> Outcome<()> {
    if name.is_creatable() {
        Ok(())
    } else {
        Err(Status::no("a mailbox cannot have that name").code(Code::Cannot).into())
    }
}

fn request() -> IngestId {
    clock::ingest_id(clock::now())
}
