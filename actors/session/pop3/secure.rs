//! TLS of a POP3 session, at its start (RFC 8314 §3.3) or behind STLS (RFC 2595 §4).
//!
//! Apart because here alone the session has no stream for a while, and may be where it cannot move.

use posthouse_obs::emit;
use posthouse_obs::event::net::HandshakeFailed;

use super::maildrops::Maildrops;
use super::{End, Pop3Session};
use crate::session::handshake::{self, Opening};

impl<M: Maildrops> Pop3Session<M> {
    /// Whether the client has begun its handshake; not when the node has called meanwhile.
    pub(super) async fn awaits_tls(&mut self) -> Result<bool, End> {
        let Some(stream) = self.stream.as_ref() else { return Err(End::Gone) };
        let limit = self.services.settings.tls.handshake_timeout.get();
        match handshake::opening(stream, limit, &mut self.services.calls).await {
            Opening::Begun => Ok(true),
            Opening::Called => Ok(false),
            // Before TLS there is no farewell that the client could read.
            Opening::Leaving => Err(End::Gone),
            Opening::Lost => Err(End::TlsFailed),
        }
    }

    pub(super) async fn start_tls(&mut self) -> Result<(), End> {
        let (Some(stream), Some(acceptor)) = (self.stream.take(), &self.services.tls) else {
            return Err(End::TlsFailed);
        };
        match handshake::shake(stream, acceptor, &self.services.calls).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(())
            }
            Err(error) => {
                let protocol = self.services.protocol.as_str();
                emit(HandshakeFailed { protocol, client: self.client, reason: error.to_string() });
                Err(End::TlsFailed)
            }
        }
    }
}
