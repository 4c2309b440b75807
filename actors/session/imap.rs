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
pub(super) mod parked;
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

use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_filter::rate::{Admission, ConnectionGuard, Refusal};
use posthouse_net::{TlsAcceptor, Transport};
use posthouse_obs::emit;
use posthouse_obs::event::session::SessionEnded;
use posthouse_wire::imap::response::status::{Code, Status};
use ractor::SpawnErr;

use crate::listener::{Accepted, SessionFactory};
use crate::session::{self, Calls, Home, Origin, Parked, Protocol, ResumeError, Resumed, Session};
use desk::Desk;
use dialogue::Dialogue;

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

    fn spawn(&self, accepted: Accepted, home: Home) -> BoxFuture<'_, Result<(), SpawnErr>> {
        let session = ImapSession::new(self.clone(), accepted.transport, Some(accepted.guard));
        session::spawn(session, home)
    }

    fn resume(&self, parked: Parked, admission: &Admission) -> Result<Resumed, ResumeError> {
        let session = ImapSession::resume(self.clone(), parked, admission)?;
        Ok(Resumed::new(|home| session::spawn(session, home)))
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
    dialogue: Dialogue<D>,
    client: IpAddr,
    origin: Origin,
    place: Option<ConnectionGuard>,
}

impl<D: Desk> ImapSession<D> {
    /// A session on a fresh connection; `place` is its place among the connections counted.
    pub fn new(services: ImapServices<D>, transport: Transport, place: Option<ConnectionGuard>) -> Self {
        let client = transport.peer_ip();
        Self { dialogue: Dialogue::new(services, transport), client, origin: Origin::Fresh, place }
    }
}

impl<D: Desk> Session for ImapSession<D> {
    fn protocol(&self) -> Protocol {
        self.dialogue.protocol
    }

    fn calls(&self) -> &Calls {
        &self.dialogue.calls
    }

    async fn run(self) -> Option<Parked> {
        let Self { dialogue, client, origin, place } = self;
        let protocol = dialogue.protocol.as_str();
        origin.tell(protocol, client);
        match dialogue.run().await {
            Ok(mut parked) => {
                if let Some(rest) = &mut parked.rest {
                    rest.place = place;
                }
                Some(parked)
            }
            Err(reason) => {
                emit(SessionEnded { protocol, client, reason });
                None
            }
        }
    }
}
