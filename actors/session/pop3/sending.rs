//! A long answer under way: what it is and how far it has come, so that no answer is ever whole in memory.

use posthouse_storage::message::Octets;
use posthouse_wire::pop3::{LineLimit, Listing, Stuffer};

use super::maildrops::Maildrops;

/// Part of the session's value.
pub(super) enum Sending {
    Listing(Listing),
    Message(Box<MessageSending>),
}

pub(super) struct MessageSending {
    pub(super) message: Octets,
    pub(super) offset: u64,
    pub(super) stuffer: Stuffer,
}

/// What a step led to.
pub(super) enum Step {
    More(Sending),
    Done,
    /// The rest cannot be read.
    Broken,
}

impl Sending {
    /// A message (RETR), or its beginning (TOP).
    pub(super) fn message(message: Octets, limit: Option<LineLimit>) -> Self {
        Self::Message(Box::new(MessageSending { message, offset: 0, stuffer: Stuffer::new(limit) }))
    }
}

impl MessageSending {
    /// Appends about `enough` octets of the message, and its end when that is reached.
    pub(super) async fn step<M: Maildrops>(mut self: Box<Self>, source: &M, out: &mut Vec<u8>, enough: usize) -> Step {
        let end = self.message.size();
        let next = self.offset.saturating_add(u64::try_from(enough).unwrap_or(u64::MAX)).min(end);
        let Ok(chunk) = source.read(&self.message, self.offset..next).await else {
            return Step::Broken;
        };
        self.offset = next;
        let more_wanted = self.stuffer.push(&chunk, out);
        if more_wanted && self.offset < end {
            return Step::More(Sending::Message(self));
        }
        self.stuffer.finish(out);
        Step::Done
    }
}
