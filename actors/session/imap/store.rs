//! STORE (RFC 3501 §6.4.6).

use posthouse_mail::Uid;
use posthouse_storage::message::{FlagChange, FlagsOf, SetFlags};
use posthouse_wire::imap::NumberKind;
use posthouse_wire::imap::command::store::{FlagChange as Asked, Store};
use posthouse_wire::imap::response::fetch::FetchResponse;
use posthouse_wire::imap::response::status::Status;

use super::answer::Outcome;
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::fetch::with_missing;
use crate::clock;

/// Messages changed by one request to the mailbox actor.
const PAGE: usize = 500;

impl<D: Desk> Dialogue<D> {
    pub(super) async fn store(&mut self, store: Store) -> Outcome<Status> {
        let uids = self.resolve(store.kind, &store.set)?;
        let mut missing = 0;
        for page in uids.chunks(PAGE) {
            missing += page.len() - self.store_page(&store, page).await?;
            self.flush_if_full().await?;
        }
        Ok(with_missing(Status::ok("flags stored"), missing))
    }

    /// Changes some messages; how many of them are still there.
    async fn store_page(&mut self, store: &Store, uids: &[Uid]) -> Outcome<usize> {
        let change = SetFlags {
            request: clock::ingest_id(clock::now()),
            mailbox: self.selected()?.mailbox,
            uids: uids.to_vec(),
            change: match store.change {
                Asked::Add => FlagChange::Add,
                Asked::Remove => FlagChange::Remove,
                Asked::Replace => FlagChange::Replace,
            },
            flags: store.flags.clone(),
            unchanged_since: None,
            keywords_max: self.settings.mailbox.keywords_max,
        };
        let set = self.desk.set_flags(self.account()?, change).await?;
        let selected = self.selected_mut()?;
        selected.own.extend(set.messages.iter().map(|message| message.modseq));
        selected.own.sort_unstable();
        selected.own.dedup();
        for message in &set.messages {
            self.tell_keywords(&message.flags)?;
            // RFC 3501 §6.4.6: .SILENT means that the client knows the new value.
            if !store.silent {
                self.tell_flags_of(message, store.kind)?;
            }
        }
        Ok(set.messages.len())
    }

    fn tell_flags_of(&mut self, message: &FlagsOf, kind: NumberKind) -> Outcome<()> {
        let Some(number) = self.selected()?.view.seq_of(message.uid) else {
            return Ok(());
        };
        let mut response = FetchResponse::new(number);
        if kind == NumberKind::Uid {
            response.uid(message.uid);
        }
        response.flags(&message.flags, false);
        self.put_text(response);
        Ok(())
    }
}
