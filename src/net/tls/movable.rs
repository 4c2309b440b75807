//! A TLS connection that can be taken apart and go on in another process.
//!
//! rustls runs the handshake, then its keys are taken out at once and the records are our own business. That is early on
//! purpose: a rustls connection from which keys are taken later loses what it holds inside (a part of a record, unread
//! plaintext, an answer to a KeyUpdate), and one can neither be saved nor built again
//! ([why](../../../docs/adr/0013-a-record-stream-that-moves.md)). Every connection that we accept runs on it, whether it
//! ever moves or not, so that there is one path and it is always tested.
//!
//! `freeze` consumes the stream. Whoever holds the value is the only one who can seal under its keys; a key that two
//! processes use, with the same sequence numbers, would give its secret away.

mod cipher;
mod handshake;
mod keys;
#[cfg(any(test, feature = "fuzzing"))]
pub mod peer;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;
use zeroize::Zeroizing;

use super::TlsInfo;
use crate::error::Error;
pub(super) use handshake::{Hello, prepare};
use record::Records;
pub(crate) use state::FrozenTls;

/// What the handshake told, and a session may ask for later.
#[derive(Default)]
pub(crate) struct Facts {
    /// The host that the client meant (RFC 6066 §3).
    pub(crate) server_name: Option<Box<str>>,
    /// The channel binding `tls-exporter` (RFC 9266 §4.2). In TLS 1.2 it is sound only with an extended master secret, and
    /// rustls does not tell whether there is one; so there it is `None`.
    pub(crate) exporter: Option<Zeroizing<[u8; 32]>>,
}

pub(crate) struct MovableTls {
    socket: TcpStream,
    records: Records,
    facts: Facts,
}

impl MovableTls {
    /// Goes on where `freeze` stopped.
    pub(crate) fn thaw(socket: TcpStream, frozen: FrozenTls) -> Result<Self, Error> {
        let (records, facts) =
            Records::thaw(frozen).map_err(|cipher::Refused| Error::Frozen("keys that do not fit their suite"))?;
        Ok(Self { socket, records, facts })
    }

    /// Ends the stream here without a word to the peer, and takes its socket away from the runtime's poller.
    pub(crate) fn freeze(self) -> io::Result<(std::net::TcpStream, FrozenTls)> {
        let socket = self.socket.into_std()?;
        Ok((socket, self.records.freeze(self.facts)))
    }

    pub(crate) fn info(&self) -> TlsInfo {
        let suite = self.records.suite();
        TlsInfo::new(suite.version().version, suite.suite())
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether no plaintext waits to be read and no ciphertext to be sent. A part of a record may be there: its rest is yet
    /// to come.
    pub(crate) fn is_settled(&self) -> bool {
        self.records.plain().is_empty() && self.records.output().is_empty()
    }

    /// Hands all of the output to the socket.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.records.output().is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, self.records.output()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.records.sent(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for MovableTls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let plain = this.records.plain();
            let count = plain.len().min(buf.remaining());
            if count > 0 {
                buf.put_slice(&plain[..count]);
                this.records.consume(count);
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 || this.records.is_rx_closed() {
                return Poll::Ready(Ok(()));
            }
            let opened = this.records.open();
            if matches!(opened, Ok(true)) {
                continue;
            }
            // A session that only reads must still get alerts and moved ciphertext out. Its error is the writer's to hear:
            // a peer that reads no more may have sent commands before it left.
            let _ = this.poll_output(cx);
            opened?;
            let Poll::Ready(ready) = this.socket.poll_read_ready(cx) else {
                this.records.rest();
                return Poll::Pending;
            };
            ready?;
            match poll_read_buf(Pin::new(&mut this.socket), cx, &mut this.records.room()) {
                // An end without close_notify: someone may have cut the connection (RFC 8446 §6.1).
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.records.rest();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for MovableTls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_output(cx))?;
        let taken = this.records.write(data);
        // Where the socket has no room the records wait in the output, and `flush` waits for them.
        match this.poll_output(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(taken),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_output(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.records.close();
        ready!(this.poll_output(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}
