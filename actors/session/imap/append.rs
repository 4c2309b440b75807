//! APPEND (RFC 3501 §6.3.11): the message streams from the socket to the blob store, its structure is read as it passes.

use posthouse_mail::AccountId;
use posthouse_storage::mailbox::{self, Mailbox};
use posthouse_storage::message::{Append, AppendBody, QuotaRule, Target, check_keywords};
use posthouse_storage::{StagedBody, account};
use posthouse_wire::imap::Frame;
use posthouse_wire::imap::command::append::AppendHead;
use posthouse_wire::imap::response::status::{Code, Status, put_continuation};
use posthouse_wire::imap::seq_view::Permit;
use posthouse_wire::imap::state::{Verb, check};
use posthouse_wire::mime::{Limits, StructureBuilder};

use super::answer::{Outcome, Stop, status_of};
use super::desk::Desk;
use super::dialogue::{Dialogue, refusal_status};
use crate::clock;
use crate::session::Busy;

/// A message that has come in whole.
struct Received {
    staged: StagedBody,
    structure: posthouse_mail::structure::MessageStructure,
}

impl<D: Desk> Dialogue<D> {
    /// The frame reader waits for a verdict on the message before anything else.
    pub(super) async fn on_append(&mut self, head: AppendHead, _busy: Busy) -> Outcome<()> {
        let tag = head.tag.clone();
        let (account, target) = match self.admit(&head).await {
            Ok(admitted) => admitted,
            Err(Stop::Answer(status)) => {
                self.reader.refuse_message();
                return self.complete(&tag, status);
            }
            Err(stop) => return Err(stop),
        };
        if self.reader.accept_message() {
            put_continuation(&mut self.out, "send the message");
        }
        let status = match self.receive().await {
            Ok(received) => self.keep(account, &target, head, received).await,
            Err(Stop::Answer(status)) => status,
            Err(stop) => return Err(stop),
        };
        self.tell_changes(Permit::All).await?;
        self.complete(&tag, status)
    }

    /// Everything that can be known before the message comes.
    async fn admit(&mut self, head: &AppendHead) -> Outcome<(AccountId, Mailbox)> {
        check(Verb::Append, self.situation()).map_err(refusal_status)?;
        let max = self.settings.imap.append_max.get();
        if head.size > max {
            // RFC 4469 §4.2.
            return Err(Status::no(format!("a message may have {max} octets")).code(Code::TooBig).into());
        }
        if head.size == 0 {
            return Err(Status::no("a message has at least one octet").code(Code::Cannot).into());
        }
        check_keywords(&head.flags, self.settings.mailbox.keywords_max)?;
        let id = self.account()?;
        let store = self.desk.store();
        let target = mailbox::by_path(store, id, head.mailbox.as_str()).await?;
        let target = target.ok_or_else(|| Status::no("there is no such mailbox").code(Code::TryCreate))?;
        let account = account::by_id(store, id).await?.ok_or_else(|| status_of(&posthouse_storage::Error::NotFound))?;
        if !account.has_room(head.size) {
            return Err(status_of(&posthouse_storage::Error::OverQuota).into());
        }
        Ok((id, target))
    }

    /// Takes the message to its end, whatever happens to it: the next command begins behind it.
    async fn receive(&mut self) -> Outcome<Received> {
        let mut writer = self.desk.store().body_writer();
        let mut builder = StructureBuilder::new(Limits::default());
        let mut failed = None;
        loop {
            match self.next_frame().await? {
                Frame::MessageChunk(chunk) if failed.is_none() => {
                    builder.push(&chunk);
                    failed = writer.write(&chunk).await.err();
                }
                Frame::MessageChunk(_) => {}
                Frame::MessageEnd { clean: true } => break,
                // todo RFC 3502 §6.3.11: several messages in one APPEND.
                Frame::MessageEnd { clean: false } => {
                    return Err(Status::bad("expected the end of the command").into());
                }
                Frame::Broken(error) => return Err(Stop::Flooded(error)),
                _ => return Err(Status::bad("expected the message").into()),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let size = writer.size();
        let staged = writer.finish().await?;
        Ok(Received { staged, structure: builder.finish(size) })
    }

    async fn keep(&mut self, account: AccountId, target: &Mailbox, head: AppendHead, received: Received) -> Status {
        let now = clock::now();
        let append = Append {
            request: clock::ingest_id(now),
            item: 0,
            target: Target::Mailbox(target.id),
            flags: head.flags,
            received_at: head.internal_date.unwrap_or(now),
            prefix: Default::default(),
            body: AppendBody::Staged(received.staged),
            structure: received.structure,
            quota: QuotaRule::Enforce,
        };
        match self.desk.append(account, append).await {
            // RFC 4315 §3.
            Ok(stored) => Status::ok("appended").code(Code::AppendUid(stored.uid_validity, stored.uid)),
            Err(status) => status,
        }
    }
}
