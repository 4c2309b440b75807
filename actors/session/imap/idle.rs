//! IDLE (RFC 2177 §3): waits for the client or for news, whichever comes first.

use posthouse_wire::imap::response::status::{Status, put_continuation};
use posthouse_wire::imap::seq_view::Permit;
use posthouse_wire::imap::{Frame, Tag};
use tokio::time::Instant;

use super::answer::{Outcome, Stop};
use super::desk::Desk;
use super::dialogue::Dialogue;
use super::state::Activity;
use crate::session::{Wake, wait_for_input};

impl<D: Desk> Dialogue<D> {
    pub(super) fn begin_idle(&mut self, tag: Tag) {
        // RFC 2177 §3: an idle client is logged out all the same when it says nothing for too long.
        let until = Instant::now() + self.settings.imap.idle_timeout.get();
        put_continuation(&mut self.out, "idling");
        self.reader.expect_line();
        self.state.activity = Activity::Idling { tag, until };
    }

    /// Tells the news, takes DONE, or waits for one of the two.
    pub(super) async fn idle_on(&mut self) -> Outcome<()> {
        let account = self.account()?;
        let notices = self.notices.get_or_insert_with(|| self.desk.subscribe(account));
        // Seen before the log is read, so that a change after the reading wakes the wait.
        notices.mark_unchanged();
        self.tell_changes(Permit::All).await?;
        let status = match self.reader.next_frame(self.stream.input_mut()) {
            Frame::Line(line) if line.eq_ignore_ascii_case(b"DONE") => Status::ok("idle no more"),
            Frame::NeedInput => return if self.send_waiting().await? { self.wait_idling().await } else { Ok(()) },
            Frame::Broken(error) => return Err(Stop::Flooded(error)),
            _ => Status::bad("expected DONE"),
        };
        self.notices = None;
        match std::mem::take(&mut self.state.activity) {
            Activity::Idling { tag, .. } => self.finish(&tag, Permit::All, status).await,
            Activity::Listening | Activity::Answering(_) => Ok(()),
        }
    }

    async fn wait_idling(&mut self) -> Outcome<()> {
        let sleep_at = if self.is_movable() { self.doze.at() } else { None };
        let (Activity::Idling { until, .. }, Some(notices)) = (&self.state.activity, &mut self.notices) else {
            return Ok(());
        };
        tokio::select! {
            biased;
            wake = wait_for_input(&mut self.stream, *until, sleep_at, &mut self.calls, true) => match wake {
                Wake::Input => {
                    self.doze.stir();
                    Ok(())
                }
                Wake::Called => Ok(()),
                Wake::Drowsy => Err(Stop::Asleep(*until)),
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
