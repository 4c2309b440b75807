//! The connection under both ends: each wait has its limit, and whatever breaks the order of the protocol closes it.

use std::time::Duration;

use posthouse_net::descriptors::{Channel, PeerProcess, Unsent};
use tokio::time::Instant;

use super::HandoffError;
use super::message::{BODY_MAX, Message, Outgoing};

pub(super) struct Link {
    channel: Channel,
}

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    pub(super) fn peer_pid(&self) -> Option<u32> {
        self.channel.peer_pid()
    }

    pub(super) fn peer_process(&self) -> Option<PeerProcess> {
        self.channel.peer_process()
    }

    /// Sends a message, or tells whether the other end can have seen any of it; then the connection is closed.
    pub(super) async fn try_tell(&mut self, message: &Outgoing<'_>, within: Duration) -> Result<(), Unsent> {
        let Outgoing { tag, body, descriptors } = message;
        let sent = self.channel.send(*tag, body, descriptors, Instant::now() + within).await;
        if sent.is_err() {
            self.channel.close();
        }
        sent
    }

    pub(super) async fn tell(
        &mut self,
        step: &'static str,
        message: &Outgoing<'_>,
        within: Duration,
    ) -> Result<(), HandoffError> {
        let sent = self.try_tell(message, within).await;
        sent.map_err(|unsent| HandoffError::Link { step, source: unsent.error })
    }

    /// The next message of any kind but a batch.
    pub(super) async fn hear(&mut self, step: &'static str, within: Duration) -> Result<Message, HandoffError> {
        self.hear_up_to(BODY_MAX, step, within).await
    }

    pub(super) async fn hear_up_to(
        &mut self,
        body_max: usize,
        step: &'static str,
        within: Duration,
    ) -> Result<Message, HandoffError> {
        let received = self.channel.receive(body_max, Instant::now() + within).await;
        let heard = received
            .map_err(|source| HandoffError::Link { step, source })
            .and_then(|frame| Message::decode(frame).map_err(|what| HandoffError::Broken { step, what }));
        if let Err(error) = &heard
            && !is_recoverable(error)
        {
            self.channel.close();
        }
        heard
    }

    /// What to return when a message came that does not belong here. A refusal leaves the connection open.
    pub(super) fn out_of_turn(&mut self, step: &'static str, message: Message) -> HandoffError {
        let error = message.unexpected(step);
        if !matches!(error, HandoffError::Refused(_)) {
            self.channel.close();
        }
        error
    }
}

/// The frame was read to its end; it is this process that had no room for its files.
fn is_recoverable(error: &HandoffError) -> bool {
    matches!(error, HandoffError::Link { source: posthouse_net::Error::DescriptorsLost, .. })
}
