//! One IMAP connection: carries out what a client asks in the words of `wire/imap`.
//!
//! `wire/imap` reads and writes the protocol and says what is legal when; here the commands meet the node. Reads come from
//! store snapshots, changes go to the account's mailbox actor, news come from the change log when a notice says so. One
//! file per group of commands; the session itself is the value in `imap/state.rs`, the loop stands in `imap/dialogue.rs`.

mod answer;
mod append;
mod copy;
pub mod desk;
mod dialogue;
mod expunge;
mod fetch;
mod folder;
mod idle;
mod list;
mod login;
pub mod node_desk;
mod rows;
mod search;
mod select;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod update;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_filter::rate::{Admission, ConnectionGuard, Refusal};
use posthouse_net::{TlsAcceptor, Transport};
use posthouse_obs::emit;
use posthouse_obs::event::net::HandshakeFailed;
use posthouse_obs::event::session::{SessionEnded, SessionStarted};
use posthouse_wire::imap::response::status::{Code, Status};
use ractor::{ActorCell, SpawnErr};

use crate::listener::{Accepted, SessionFactory};
use crate::session::{self, Calls, Parked, Protocol, ResumeError, Resumed, Session};
use desk::Desk;
use dialogue::{Dialogue, Link};

/// What every IMAP session of a listener shares.
#[derive(Clone)]
pub struct ImapServices<D> {
    pub desk: D,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub settings: Arc<Settings>,
    pub calls: Calls,
}

impl<D: Desk> SessionFactory for ImapServices<D> {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn spawn(&self, accepted: Accepted, supervisor: ActorCell) -> BoxFuture<'_, Result<(), SpawnErr>> {
        let session = ImapSession::new(self.clone(), accepted.transport, Some(accepted.guard));
        async move { session::spawn(session, supervisor).await.map(drop) }.boxed()
    }

    fn resume(&self, parked: Parked, _admission: &Admission) -> Result<Resumed, ResumeError> {
        Err(ResumeError::Protocol(parked.protocol.as_str()))
    }

    fn refusal(&self, why: Refusal) -> Vec<u8> {
        let mut out = Vec::new();
        // RFC 3501 §7.1.5: BYE may stand in the place of the greeting.
        Status::bye(why.text()).code(Code::Unavailable).put(&mut out, None);
        out
    }
}

/// One connection.
pub struct ImapSession<D> {
    services: ImapServices<D>,
    transport: Transport,
    client: IpAddr,
    _place: Option<ConnectionGuard>,
}

impl<D: Desk> ImapSession<D> {
    /// A session on a fresh connection; `place` is its place among the connections counted.
    pub fn new(services: ImapServices<D>, transport: Transport, place: Option<ConnectionGuard>) -> Self {
        let client = transport.peer_ip();
        Self { services, transport, client, _place: place }
    }

    async fn converse(services: ImapServices<D>, transport: Transport, client: IpAddr) -> &'static str {
        let ImapServices { desk, protocol, tls, settings, calls } = services;
        let transport = match &tls {
            Some(acceptor) if protocol.is_implicit_tls() => match transport.starttls(acceptor).await {
                Ok(transport) => transport,
                Err(error) => {
                    emit(HandshakeFailed { protocol: protocol.as_str(), client, reason: error.to_string() });
                    return "handshake";
                }
            },
            // Without a certificate nobody listens there.
            None if protocol.is_implicit_tls() => return "handshake",
            _ => transport,
        };
        Dialogue::new(desk, settings, tls, calls, Link { transport, protocol }).run().await
    }
}

impl<D: Desk> Session for ImapSession<D> {
    fn protocol(&self) -> Protocol {
        self.services.protocol
    }

    fn calls(&self) -> &Calls {
        &self.services.calls
    }

    async fn run(self) -> Option<Parked> {
        let Self { services, transport, client, _place } = self;
        let protocol = services.protocol.as_str();
        emit(SessionStarted { protocol, client });
        let reason = Self::converse(services, transport, client).await;
        emit(SessionEnded { protocol, client, reason });
        None
    }
}
