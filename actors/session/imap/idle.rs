//! IDLE (RFC 2177 §3): waits for the client or for news, whichever comes first.

use posthouse_mail::ModSeq;
use posthouse_wire::imap::Frame;
use posthouse_wire::imap::response::status::{Status, put_continuation};
use posthouse_wire::imap::seq_view::Permit;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use crate::session::{Wake, wait_for_input};

impl<D: Desk> Dialogue<D> {
    pub(super) async fn idle(&mut self) -> Outcome<Status> {
        let mut notices = self.desk.subscribe(self.account()?);
        // RFC 2177 §3: an idle client is logged out all the same when it says nothing for too long.
        let deadline = Instant::now() + self.settings.imap.idle_timeout.get();
        put_continuation(&mut self.out, "idling");
        self.reader.expect_line();
        loop {
            // Seen before the log is read, so that a change after the reading wakes the wait.
            notices.mark_unchanged();
            self.tell_changes(Permit::All).await?;
            match self.reader.next_frame(self.stream.input_mut()) {
                Frame::Line(line) if line.eq_ignore_ascii_case(b"DONE") => return Ok(Status::ok("idle no more")),
                Frame::Line(_) => return Err(Status::bad("expected DONE").into()),
                Frame::NeedInput => {}
                Frame::Broken(error) => return Err(Stop::Flooded(error)),
                _ => return Err(Status::bad("expected DONE").into()),
            }
            self.flush().await?;
            self.wait_idling(deadline, &mut notices).await?;
        }
    }

    async fn wait_idling(&mut self, deadline: Instant, notices: &mut watch::Receiver<Option<ModSeq>>) -> Outcome<()> {
        tokio::select! {
            biased;
            wake = wait_for_input(&mut self.stream, deadline, &mut self.calls, true) => match wake {
                Wake::Input | Wake::Called => Ok(()),
                Wake::Leaving => Err(Stop::Draining),
                Wake::Lost(error) => Err(Stop::Lost(error)),
            },
            changed = notices.changed() => match changed {
                Ok(()) => Ok(()),
                // The giver of notices is gone with the node.
                Err(_) => Err(Stop::Draining),
            },
        }
    }
}
