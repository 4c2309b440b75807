//! The wait for a client's TLS handshake, under the calls of the node.
//!
//! Apart because all protocols share the rule: a client that has not begun has no state, so that its session moves or ends like
//! any other; one that has begun holds an upgrade up for a moment only, for it loses nothing and connects anew.

use std::time::Duration;

use posthouse_net::{Error, LineStream, TlsAcceptor};
use tokio::time::{sleep, timeout};

use super::{Call, Calls};

/// How long a handshake may still go on after the node has called: some round trips.
const GRACE: Duration = Duration::from_secs(2);

/// What ended the wait for the first octet of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Begun,
    /// The node asks for something else than before.
    Called,
    /// The node asks to leave.
    Leaving,
    /// Nothing came for so long that nothing will, or the client is gone.
    Lost,
}

/// Waits until the client has begun, and reads nothing. Cancel-safe.
pub(super) async fn opening(stream: &LineStream, limit: Duration, calls: &mut Calls) -> Opening {
    let leaving = calls.leaves(true);
    tokio::select! {
        biased;
        () = std::future::ready(()), if leaving => {
            calls.said_goodbye();
            Opening::Leaving
        }
        begun = timeout(limit, stream.transport().readable()) => match begun {
            Ok(Ok(())) => Opening::Begun,
            _ => Opening::Lost,
        },
        () = calls.changed() => Opening::Called,
    }
}

/// The handshake itself. Given up some time after the node has called, it is an error like any other.
pub(super) async fn shake(stream: LineStream, acceptor: &TlsAcceptor, calls: &Calls) -> Result<LineStream, Error> {
    let mut calls = calls.clone();
    tokio::select! {
        biased;
        secured = stream.starttls(acceptor) => secured,
        () = late(&mut calls) => Err(Error::ReadTimeout),
    }
}

async fn late(calls: &mut Calls) {
    while matches!(calls.now(), Call::Serve | Call::Drain(_)) {
        calls.changed().await;
    }
    sleep(GRACE).await;
}
