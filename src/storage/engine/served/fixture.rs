//! Connections in memory between clients and a server, for tests: they can be cut after any frame, the server restarted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use posthouse_conf::Storage;
use posthouse_conf::storage::{Serve, Served as Settings};
use tokio::io::{DuplexStream, split};
use tokio::task::AbortHandle;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::protocol::codec;
use super::{Connector, Served, Server, Stream};
use crate::engine::Embedded;

/// The other end of every connection: whichever server serves at the moment.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    server: Option<(Server, Embedded)>,
    /// Frames, both ways, until the connection is cut; once.
    cut_after: Option<usize>,
    /// The directory of a server that is restarted when its connection is cut.
    restart: Option<PathBuf>,
    /// Octets that lie on the way at most.
    narrow: Option<usize>,
    /// Frames that came through, both ways.
    carried: usize,
    /// Both ends of every connection.
    connections: Vec<AbortHandle>,
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn serve(&self, engine: Embedded) {
        let server = Server::start(engine.clone(), Serve::default()).await.expect("a server");
        self.state().server = Some((server, engine));
    }

    pub(crate) fn cut_after(&self, frames: usize) {
        self.state().cut_after = Some(frames);
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.state().cut_after.is_none()
    }

    pub(crate) fn restart_in(&self, dir: PathBuf) {
        self.state().restart = Some(dir);
    }

    pub(crate) fn carried(&self) -> usize {
        self.state().carried
    }

    pub(crate) fn narrow(&self, octets: usize) {
        self.state().narrow = Some(octets);
    }

    pub(crate) fn engine(&self) -> Embedded {
        self.state().server.as_ref().map(|(_, engine)| engine.clone()).expect("a server")
    }

    /// Ends every connection.
    pub(crate) fn sever(&self) {
        self.state().connections.drain(..).for_each(|task| task.abort());
    }

    /// As after a kill: what the server remembered is gone, what its engine committed is there.
    pub(crate) async fn restart(&self, dir: &Path) {
        let old = self.state().server.take();
        let (server, engine) = old.expect("a server");
        drop(server);
        engine.close().await.expect("closed");
        drop(engine);
        self.serve(Embedded::open(dir, &Storage::default()).await.expect("an engine")).await;
    }

    pub(crate) async fn client(&self) -> Served {
        Served::open(Box::new(self.clone()), &Settings::default()).await.expect("a connection")
    }

    /// Counts a frame; false when the connection is to be cut instead.
    fn spend(&self) -> bool {
        let mut state = self.state();
        state.carried += 1;
        match &mut state.cut_after {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// Hands frames on, both ways, until the cut.
    async fn relay(self, near: DuplexStream, far: DuplexStream) {
        let ((near_in, near_out), (far_in, far_out)) = (split(near), split(far));
        let (mut near_in, mut far_in) = (FramedRead::new(near_in, codec()), FramedRead::new(far_in, codec()));
        let (mut near_out, mut far_out) = (FramedWrite::new(near_out, codec()), FramedWrite::new(far_out, codec()));
        loop {
            let (frame, is_request) = tokio::select! {
                frame = near_in.next() => (frame, true),
                frame = far_in.next() => (frame, false),
            };
            let Some(Ok(frame)) = frame else { return };
            if !self.spend() {
                break;
            }
            let out = if is_request { &mut far_out } else { &mut near_out };
            if out.send(frame.freeze()).await.is_err() {
                return;
            }
        }
        let dir = self.state().restart.clone();
        if let Some(dir) = dir {
            self.restart(&dir).await;
        }
        self.state().cut_after = None;
    }
}

impl Connector for Network {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let (server, room) = {
            let state = self.state();
            (state.server.clone(), state.narrow.unwrap_or(64 << 10))
        };
        let network = self.clone();
        async move {
            let (server, _) = server.ok_or(io::ErrorKind::ConnectionRefused)?;
            let [(near, near_end), (far_end, far)] = [(); 2].map(|()| tokio::io::duplex(room));
            let tasks = [
                tokio::spawn(network.clone().relay(near_end, far_end)).abort_handle(),
                tokio::spawn(async move { drop(server.serve(far).await) }).abort_handle(),
            ];
            network.state().connections.extend(tasks);
            Ok(Box::new(near) as Box<dyn Stream>)
        }
        .boxed()
    }
}

/// An engine behind a connection.
pub(crate) async fn serve(engine: Embedded) -> (Served, Network) {
    let network = Network::default();
    network.serve(engine).await;
    (network.client().await, network)
}
