//! TLS of an SMTP session, at its start (RFC 8314 §3.3) or behind STARTTLS (RFC 3207).
//!
//! Apart because here alone the session has no stream for a while, and may be where it cannot move.

use posthouse_wire::smtp::line::LineCutter;

use super::desk::Desk;
use super::{End, Opening, STREAM, SmtpSession};
use crate::session::handshake;

impl<D: Desk> SmtpSession<D> {
    /// The handshake that comes first, once the client begins it.
    pub(super) async fn open_tls(&mut self) -> Result<(), End> {
        let limit = self.services.settings.tls.handshake_timeout.get();
        let stream = self.stream.as_ref().expect(STREAM);
        match handshake::opening(stream, limit, &mut self.services.calls).await {
            handshake::Opening::Begun => {}
            handshake::Opening::Called => return Ok(()),
            handshake::Opening::Leaving => return Err(End::Drained),
            handshake::Opening::Lost => return Err(End::TlsFailed),
        }
        let Some(_busy) = self.services.calls.begin() else {
            self.services.calls.changed().await;
            return Ok(());
        };
        Box::pin(self.handshake()).await?;
        self.opening = Opening::Silence(None);
        Ok(())
    }

    /// TLS, at the start or behind STARTTLS; input that came before it is dropped with the plain stream.
    pub(super) async fn handshake(&mut self) -> Result<(), End> {
        let acceptor = self.services.tls.as_ref().ok_or(End::TlsFailed)?;
        let stream = self.stream.take().expect(STREAM);
        let shaken = handshake::shake(stream, acceptor, &self.services.calls).await;
        let stream = shaken.map_err(|_| End::TlsFailed)?;
        self.cutter = LineCutter::default();
        self.tls = stream.transport().tls_info().map(|info| info.to_string());
        self.stream = Some(stream);
        Ok(())
    }
}
