//! EXPUNGE, UID EXPUNGE, and what CLOSE shares with them (RFC 3501 §6.4.3, RFC 4315 §2.1).
//!
//! The EXPUNGE responses are not written here: the change log tells this session of its own removals as it tells others.

use posthouse_mail::Uid;
use posthouse_storage::message::{self, Expunge, ExpungeWhich};
use posthouse_wire::imap::SequenceSet;
use posthouse_wire::imap::response::status::Status;

use super::answer::Outcome;
use super::desk::Desk;
use super::dialogue::Dialogue;
use crate::clock;

/// Messages removed by one request to the mailbox actor.
const PAGE: usize = 500;

impl<D: Desk> Dialogue<D> {
    pub(super) async fn expunge(&mut self, uids: Option<SequenceSet>) -> Outcome<Status> {
        self.expunge_deleted(uids).await?;
        Ok(Status::ok("expunged"))
    }

    /// Removes the messages with `\Deleted` that this session knows of, or those of them that are named.
    pub(super) async fn expunge_deleted(&mut self, named: Option<SequenceSet>) -> Outcome<()> {
        let account = self.account()?;
        let selected = self.selected()?;
        let mailbox = selected.mailbox;
        let named = named.map(|set| set.resolve(selected.view.last_uid().map(Uid::get)));
        let deleted = message::deleted_uids(self.desk.store(), account, mailbox).await?;
        let view = &self.selected()?.view;
        // A message that the client was never told of is not its to expunge.
        let is_meant =
            |uid: &Uid| view.seq_of(*uid).is_some() && named.as_ref().is_none_or(|set| set.contains(uid.get()));
        let uids: Vec<Uid> = deleted.into_iter().filter(is_meant).collect();
        for page in uids.chunks(PAGE) {
            let request = clock::ingest_id(clock::now());
            let expunge = Expunge { request, mailbox, uids: page.to_vec(), which: ExpungeWhich::Deleted };
            self.desk.expunge(account, expunge).await?;
        }
        Ok(())
    }
}
