//! Waits for any of many sockets to have something to read, without a task or a place in the runtime for each.
//!
//! An epoll of its own that the runtime polls as one descriptor: a socket costs an entry in the kernel and nothing here. Made
//! for connections whose sessions sleep; a session at work waits on the runtime as everything else does.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Error;

/// Sockets told of at once.
const BATCH: usize = 256;

pub struct Readiness {
    epoll: AsyncFd<OwnedFd>,
}

impl Readiness {
    /// Needs a Tokio runtime.
    #[expect(
        deprecated,
        reason = "it trusts any type to keep its descriptor; an OwnedFd does, and what replaces it is unsafe to call"
    )]
    pub fn new() -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        Ok(Self { epoll: AsyncFd::with_interest(epoll, Interest::READABLE)? })
    }

    /// From now on `ready` tells `key` as long as the socket has octets, an end or an error to read; also when it has them
    /// already.
    pub fn watch(&self, socket: impl AsFd, key: u64) -> Result<(), Error> {
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let added = epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), events);
        Ok(added.map_err(std::io::Error::from)?)
    }

    /// To be called before the socket is closed or given away: the kernel watches the connection, not the descriptor, and
    /// would go on as long as any process has it open.
    pub fn forget(&self, socket: impl AsFd) {
        // Fails only for a socket that is not watched.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Waits until some have something to read; their keys. Cancel-safe.
    pub async fn ready(&self) -> Vec<u64> {
        loop {
            let Ok(mut guard) = self.epoll.readable().await else {
                // The runtime ends, and with it whoever waits here.
                return std::future::pending().await;
            };
            match self.told() {
                Ok(keys) if keys.is_empty() => guard.clear_ready(),
                Ok(keys) => return keys,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn told(&self) -> rustix::io::Result<Vec<u64>> {
        let mut events = Vec::with_capacity(BATCH);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(events.iter().map(|event| event.data.u64()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let socket = listener.accept().await.expect("a connection").0.into_std().expect("a socket");
        (client, socket.into())
    }

    #[tokio::test]
    async fn octets_and_ends_are_told_from_before_and_after_the_watch_began() {
        let readiness = Readiness::new().expect("an epoll");
        let (mut early, first) = pair().await;
        early.write_all(b"x").await.expect("a write");
        let (mut late, second) = pair().await;
        readiness.watch(&second, 2).expect("watched");
        assert!(timeout(Duration::ZERO, readiness.ready()).await.is_err());
        readiness.watch(&first, 1).expect("watched");
        assert_eq!(readiness.ready().await, [1]);
        assert_eq!(readiness.ready().await, [1], "it is told until it is read or forgotten");
        readiness.forget(&first);
        late.write_all(b"x").await.expect("a write");
        assert_eq!(readiness.ready().await, [2]);
        readiness.forget(&second);
        let (gone, third) = pair().await;
        readiness.watch(&third, 3).expect("watched");
        drop(gone);
        assert_eq!(readiness.ready().await, [3]);
    }

    #[tokio::test]
    async fn many_at_once_are_all_told() {
        let readiness = Readiness::new().expect("an epoll");
        let mut sockets = Vec::new();
        for key in 0..BATCH as u64 + 40 {
            let (mut client, socket) = pair().await;
            client.write_all(b"x").await.expect("a write");
            readiness.watch(&socket, key).expect("watched");
            sockets.push((client, socket));
        }
        let mut told = 0;
        while told < sockets.len() {
            for key in readiness.ready().await {
                readiness.forget(&sockets[usize::try_from(key).expect("small")].1);
                told += 1;
            }
        }
        assert!(timeout(Duration::ZERO, readiness.ready()).await.is_err());
    }
}
