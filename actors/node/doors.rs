//! The listening sockets of a node: bound by itself, or taken over from the process before.
//!
//! Apart from the listeners because a socket outlives them: its queue of connections goes to a successor with it, so that
//! nobody is refused while processes change.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use posthouse_cluster::handoff::Door;
use posthouse_net::{Error, Listener, listening_address, stop_listening};

/// What a door that takes metrics or serves the store is called; those of protocols bear the protocol's word.
pub(super) const METRICS: &str = "metrics";
pub(super) const STORE: &str = "store";

#[derive(Default)]
pub(crate) struct Doors {
    /// Of the process before, not yet asked for.
    inherited: Mutex<Vec<Listener>>,
    /// One more descriptor of each that is open.
    open: Mutex<Vec<Door>>,
}

impl Doors {
    /// Takes sockets that listen already.
    pub(super) fn inherit(&self, sockets: Vec<Door>) -> Result<(), Error> {
        for Door { socket, .. } in sockets {
            lock(&self.inherited).push(Listener::inherit(socket)?);
        }
        Ok(())
    }

    /// Opens an address: with the socket that the process before had there, whatever it spoke on it, else with one of its own.
    pub(super) fn open(&self, kind: &str, address: SocketAddr, backlog: u32) -> Result<Listener, Error> {
        let listener = match self.take(address) {
            Some(listener) => listener,
            None => Listener::bind(address, backlog)?,
        };
        lock(&self.open).push(Door { kind: kind.to_owned(), socket: listener.duplicate()? });
        Ok(listener)
    }

    /// What was inherited and has no place in the configuration any more closes.
    pub(super) fn close_rest(&self) {
        lock(&self.inherited).clear();
    }

    /// Nobody is let in any more, but those who watch the node, and others who use its store.
    pub(super) fn close(&self) {
        lock(&self.open).retain(|door| {
            let stays = [METRICS, STORE].contains(&door.kind.as_str());
            if !stays {
                // Who shares the socket still has it, so it has to end itself.
                stop_listening(&door.socket);
            }
            stays
        });
    }

    /// Descriptors of all open sockets, for whoever comes next.
    pub(super) fn duplicates(&self) -> std::io::Result<Vec<Door>> {
        let duplicate =
            |door: &Door| Ok(Door { kind: door.kind.clone(), socket: door.socket.as_fd().try_clone_to_owned()? });
        lock(&self.open).iter().map(duplicate).collect()
    }

    fn take(&self, address: SocketAddr) -> Option<Listener> {
        let mut inherited = lock(&self.inherited);
        let place = inherited.iter().position(|listener| listener.local_addr() == address)?;
        Some(inherited.swap_remove(place))
    }
}

/// Where a socket listens.
pub(super) fn address_of(door: &Door) -> Result<SocketAddr, Error> {
    Ok(listening_address(&door.socket)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
