//! What a session reads from and writes to: a transport and one bounded input buffer.
//!
//! Reading is cancel-safe, so it may stand in a `select!` beside a hand-over or a notice: either bytes are in the buffer or
//! they are still in the kernel. An idle session holds no buffer: bytes are read into the stack first, and an emptied
//! buffer is given back before the next wait.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::error::{Error, of_stream};
use crate::frozen::{FrozenStream, INPUT_MAX};
use crate::tls::Acceptor;
use crate::transport::Transport;

/// Octets moved from the transport by one read; also what a full TLS record carries.
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub struct LineStream<T = Transport> {
    transport: T,
    input: BytesMut,
    input_max: usize,
    /// Something was written that may still lie in a buffer of the transport.
    unflushed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> LineStream<T> {
    /// A stream whose buffer never holds more than `input_max` octets.
    pub fn new(transport: T, input_max: usize) -> Self {
        Self { transport, input: BytesMut::new(), input_max: input_max.max(1), unflushed: false }
    }

    /// What has been read and not yet consumed.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// The buffer itself, for a codec that cuts its lines off the front.
    pub fn input_mut(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Takes the first `count` octets out of the buffer without copying them.
    pub fn take(&mut self, count: usize) -> BytesMut {
        self.input.split_to(count.min(self.input.len()))
    }

    /// Drops the first `count` octets of the buffer.
    pub fn consume(&mut self, count: usize) {
        self.input.advance(count.min(self.input.len()));
    }

    /// Changes the bound, as between commands and data; what is buffered stays.
    pub fn set_input_max(&mut self, input_max: usize) {
        self.input_max = input_max.max(1);
    }

    /// Waits for at least one more octet and returns how many came. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` at the end of the stream, `ReadTimeout` at the deadline, `InputFull` when the buffer has no room: the
    /// session must consume or refuse first.
    pub async fn fill(&mut self, deadline: Instant) -> Result<usize, Error> {
        let room = self.input_max.saturating_sub(self.input.len()).min(CHUNK);
        if room == 0 {
            return Err(Error::InputFull);
        }
        if self.input.is_empty() {
            // The wait may be long; memory of an answered command must not wait with it.
            self.input = BytesMut::new();
        }
        let Self { transport, input, .. } = self;
        let read = poll_fn(|cx| poll_fill(Pin::new(&mut *transport), cx, input, room));
        match timeout_at(deadline, read).await {
            Err(_) => Err(Error::ReadTimeout),
            Ok(Ok(0)) => Err(Error::Closed),
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(of_stream(error)),
        }
    }

    /// Writes all of `bytes` and flushes; `limit` bounds the time in which the peer takes nothing at all.
    pub async fn write_all(&mut self, mut bytes: &[u8], limit: Duration) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = within(limit, self.transport.write(bytes)).await?;
            if count == 0 {
                return Err(Error::Closed);
            }
            bytes = &bytes[count..];
        }
        within(limit, self.transport.flush()).await
    }

    /// Writes what the peer takes of `octets` and returns how many those are, at least one; `limit` bounds the wait for it.
    /// Cancel-safe: dropped before its end, it has written nothing.
    pub async fn write_some(&mut self, octets: &[u8], limit: Duration) -> Result<usize, Error> {
        self.unflushed = true;
        match within(limit, self.transport.write(octets)).await? {
            0 if !octets.is_empty() => Err(Error::Closed),
            count => Ok(count),
        }
    }

    /// Sends `output`; what is sent leaves it, and in the end its memory is given back. `limit` bounds the time in which the
    /// peer takes nothing at all. Cancel-safe: whenever it is dropped, `output` holds just what is not yet sent.
    pub async fn send(&mut self, output: &mut Vec<u8>, limit: Duration) -> Result<(), Error> {
        while !output.is_empty() {
            let count = self.write_some(output, limit).await?;
            output.drain(..count);
        }
        *output = Vec::new();
        if self.unflushed {
            within(limit, self.transport.flush()).await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Says goodbye: close_notify under TLS, then FIN. Errors are no news, since the session is over.
    pub async fn close(mut self, limit: Duration) {
        let _ = within(limit, self.transport.shutdown()).await;
    }

    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport and what the peer sent ahead, to go on elsewhere.
    pub fn into_parts(self) -> (T, BytesMut) {
        (self.transport, self.input)
    }
}

impl LineStream<Transport> {
    /// Runs the server's TLS handshake. Whatever the peer sent in plain text behind its STARTTLS is thrown away: someone on
    /// the path may have put it there (RFC 3207 §4.2, RFC 9051 §11.1 command injection).
    pub async fn starttls(self, acceptor: &Acceptor) -> Result<Self, Error> {
        let transport = self.transport.starttls(acceptor).await?;
        Ok(Self { transport, input: BytesMut::new(), input_max: self.input_max, unflushed: false })
    }

    /// Takes the stream apart, as [`Transport::freeze`] does; what was read and not consumed goes along. May stand wherever
    /// no write is half done: between two calls, or after one of `fill` was dropped.
    ///
    /// # Errors
    /// As [`Transport::freeze`]; and `InputFull` when more input waits than a frozen stream may hold, which no session of
    /// ours lets happen. Both end the connection.
    pub fn freeze(self) -> Result<(OwnedFd, FrozenStream), Error> {
        if self.input.len() > INPUT_MAX {
            return Err(Error::InputFull);
        }
        let (socket, transport) = self.transport.freeze()?;
        let input = Zeroizing::new(self.input.to_vec());
        Ok((socket, FrozenStream { transport, input, input_max: self.input_max }))
    }

    /// Goes on where `freeze` stopped: the same input, the same bound, the same next octet.
    ///
    /// # Errors
    /// As [`Transport::thaw`].
    pub fn thaw(socket: OwnedFd, frozen: FrozenStream, peer: Option<SocketAddr>) -> Result<Self, Error> {
        let FrozenStream { transport, input, input_max } = frozen;
        let transport = Transport::thaw(socket, transport, peer)?;
        Ok(Self { transport, input: BytesMut::from(&input[..]), input_max, unflushed: false })
    }
}

fn poll_fill<T: AsyncRead>(
    transport: Pin<&mut T>,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
    room: usize,
) -> Poll<io::Result<usize>> {
    let mut chunk = [MaybeUninit::<u8>::uninit(); CHUNK];
    let mut buffer = ReadBuf::uninit(&mut chunk[..room]);
    ready!(transport.poll_read(cx, &mut buffer))?;
    input.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

async fn within<R>(limit: Duration, io: impl Future<Output = io::Result<R>>) -> Result<R, Error> {
    timeout(limit, io).await.map_err(|_| Error::WriteTimeout)?.map_err(of_stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    const SOON: Duration = Duration::from_secs(5);

    fn pair(input_max: usize) -> (LineStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        (LineStream::new(ours, input_max), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_a_read_timeout_and_a_gone_one_is_closed() {
        let (mut stream, peer) = pair(100);
        assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::ReadTimeout)));
        drop(peer);
        assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_buffer_never_outgrows_its_bound() {
        let (mut stream, mut peer) = pair(10);
        peer.write_all(b"0123456789abcdef").await.expect("a write");
        assert_eq!(stream.fill(Instant::now() + SOON).await.expect("input"), 10);
        assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::InputFull)));
        assert_eq!(&stream.take(4)[..], b"0123");
        stream.consume(2);
        assert_eq!(stream.fill(Instant::now() + SOON).await.expect("input"), 6);
        assert_eq!(stream.input(), b"6789abcdef");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_fill_loses_nothing() {
        let (mut stream, mut peer) = pair(100);
        let cancelled = timeout(Duration::from_millis(1), stream.fill(Instant::now() + SOON)).await;
        assert!(cancelled.is_err());
        peer.write_all(b"NOOP\r\n").await.expect("a write");
        stream.fill(Instant::now() + SOON).await.expect("input");
        assert_eq!(stream.input(), b"NOOP\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_emptied_buffer_is_given_back_before_the_next_wait() {
        let (mut stream, mut peer) = pair(100);
        peer.write_all(b"NOOP\r\n").await.expect("a write");
        stream.fill(Instant::now() + SOON).await.expect("input");
        stream.consume(6);
        let _ = stream.fill(Instant::now() + SOON).await;
        assert_eq!(stream.into_parts().1.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_a_write_timeout() {
        let (mut stream, mut peer) = pair(100);
        stream.write_all(&[b'x'; 64], SOON).await.expect("room for it");
        assert!(matches!(stream.write_all(b"more", SOON).await, Err(Error::WriteTimeout)));
        let mut read = [0; 64];
        peer.read_exact(&mut read).await.expect("what was written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_send_keeps_what_the_peer_has_not_taken() {
        let (mut stream, mut peer) = pair(100);
        let sent: Vec<u8> = (0..200).collect();
        let (mut output, mut heard) = (sent.clone(), Vec::new());
        let mut read = [0; 50];
        while !output.is_empty() {
            let cancelled = timeout(Duration::from_millis(1), stream.send(&mut output, SOON)).await;
            assert_eq!(cancelled.is_ok(), output.is_empty());
            let count = peer.read(&mut read).await.expect("what was written");
            heard.extend_from_slice(&read[..count]);
        }
        drop(stream);
        peer.read_to_end(&mut heard).await.expect("the rest");
        assert_eq!(heard, sent);
    }
}
