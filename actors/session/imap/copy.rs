//! COPY and MOVE (RFC 3501 §6.4.7, RFC 6851 §3) with COPYUID (RFC 4315 §3).

use posthouse_storage::mailbox;
use posthouse_storage::message::{Copied, Copy};
use posthouse_wire::imap::RangeSet;
use posthouse_wire::imap::command::copy::Copy as Asked;
use posthouse_wire::imap::response::status::{Code, Status};

use super::answer::Outcome;
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::fetch::with_missing;
use crate::clock;

impl<D: Desk> Dialogue<D> {
    pub(super) async fn copy(&mut self, asked: Asked) -> Outcome<Status> {
        let uids = self.resolve(asked.kind, &asked.set)?;
        let account = self.account()?;
        let target = mailbox::by_path(self.desk.store(), account, asked.target.as_str()).await?;
        // RFC 3501 §6.4.7: TRYCREATE where making the mailbox would help.
        let target = target.ok_or_else(|| Status::no("there is no such mailbox").code(Code::TryCreate))?;
        let source = self.selected()?.mailbox;
        if uids.is_empty() {
            return Ok(Status::ok("no message was meant"));
        }
        // Where each message of the target comes from is answered, so moving onto itself would only renumber.
        if asked.remove && target.id == source {
            return Err(Status::no("the messages are there already").code(Code::Cannot).into());
        }
        let wanted = uids.len();
        let request = clock::ingest_id(clock::now());
        let copy = Copy { request, source, target: target.id, uids };
        let copied =
            if asked.remove { self.desk.move_to(account, copy).await? } else { self.desk.copy(account, copy).await? };
        Ok(self.told(&asked, copied, wanted))
    }

    fn told(&mut self, asked: &Asked, copied: Copied, wanted: usize) -> Status {
        if copied.uids.is_empty() {
            return Status::no("the messages are gone").code(Code::ExpungeIssued);
        }
        let missing = wanted - copied.uids.len().min(wanted);
        let from = RangeSet::from_numbers(copied.uids.iter().map(|(from, _)| from.get()));
        let to = RangeSet::from_numbers(copied.uids.iter().map(|(_, to)| to.get()));
        let code = Code::CopyUid(copied.uid_validity, from, to);
        if asked.remove {
            // RFC 6851 §4.3: COPYUID comes before the EXPUNGE responses, so it is untagged.
            Status::ok("moved").code(code).put(&mut self.out, None);
            return with_missing(Status::ok("moved"), missing);
        }
        Status::ok("copied").code(code)
    }
}
