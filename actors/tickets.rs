//! Keeps the keys of TLS session tickets in step with the store, so that a client resumes on any node and after any upgrade.
//!
//! Owns: a timer.   Receives: Refresh.   Sends: the keys to the acceptor of all TLS ports.
//! Bounds: one small transaction every quarter of tls.ticket_lifetime.   On failure: the keys that are known stay, and the
//! next refresh tries again; its supervisor starts it again.   Standards: RFC 8446 §4.6.1, RFC 5077 §5.5.

use std::time::Duration;

use posthouse_mail::secret::Secret;
use posthouse_net::{TicketKey, TicketKeys, TlsAcceptor};
use posthouse_obs::emit;
use posthouse_obs::event::net::TicketKeysStale;
use posthouse_storage::{Store, ticket_keys};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use zeroize::Zeroizing;

use crate::clock;

/// A key with the name that tickets bear.
const OCTETS: usize = TicketKey::NAME + TicketKey::SECRET;

#[derive(Clone)]
pub struct TicketArguments {
    pub store: Store,
    pub acceptor: TlsAcceptor,
    pub lifetime: Duration,
}

/// Starts the keeper of a node under `supervisor`; the keys are there when it has started.
pub async fn start(arguments: TicketArguments, supervisor: ActorCell) -> Result<ActorRef<TicketMsg>, SpawnErr> {
    Ok(Actor::spawn_linked(None, TicketActor, arguments, supervisor).await?.0)
}

pub enum TicketMsg {
    Refresh,
}

impl ractor::Message for TicketMsg {}

struct TicketActor;

impl Actor for TicketActor {
    type Msg = TicketMsg;
    type State = TicketArguments;
    type Arguments = TicketArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<TicketMsg>,
        arguments: TicketArguments,
    ) -> Result<TicketArguments, ActorProcessingErr> {
        refresh(&arguments).await;
        again(&myself, &arguments);
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: ActorRef<TicketMsg>,
        _message: TicketMsg,
        state: &mut TicketArguments,
    ) -> Result<(), ActorProcessingErr> {
        refresh(state).await;
        again(&myself, state);
        Ok(())
    }
}

fn again(myself: &ActorRef<TicketMsg>, arguments: &TicketArguments) {
    myself.send_after(arguments.lifetime / 4, || TicketMsg::Refresh);
}

/// A node without the keys of the others still serves: its clients do a full handshake elsewhere.
async fn refresh(arguments: &TicketArguments) {
    if let Err(reason) = try_refresh(arguments).await {
        emit(TicketKeysStale { reason });
    }
}

async fn try_refresh(arguments: &TicketArguments) -> Result<(), String> {
    let fresh = Secret::new(rand::random::<[u8; OCTETS]>().to_vec());
    let kept = ticket_keys::current(&arguments.store, clock::now(), arguments.lifetime, &fresh).await;
    let mut keys = kept.map_err(|error| error.to_string())?.into_iter().filter_map(|key| read(key.octets.reveal()));
    let current = keys.next().ok_or("no key in the store can be read")?;
    let keys = TicketKeys { current, others: keys.collect(), lifetime: arguments.lifetime };
    arguments.acceptor.set_ticket_keys(keys).map_err(|error| error.to_string())
}

fn read(octets: &[u8]) -> Option<TicketKey> {
    let (name, secret) = octets.split_first_chunk::<{ TicketKey::NAME }>()?;
    let secret = <[u8; TicketKey::SECRET]>::try_from(secret).ok()?;
    Some(TicketKey::new(*name, Zeroizing::new(secret)))
}
