//! Session tickets under keys that are given from outside (RFC 5077, RFC 8446 §4.6.1).
//!
//! rustls's own ticketer makes its keys by itself, so that a ticket is worth nothing on another node or after an upgrade.
//! Here all processes that hold the same keys open each other's tickets. Who gives the keys also takes them away, which is
//! what ends the life of a ticket: a stolen key opens every session whose ticket it sealed.

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::error::Error;

/// One key, and the name by which a ticket says that it was sealed with it.
pub struct TicketKey {
    name: [u8; TicketKey::NAME],
    secret: Zeroizing<[u8; TicketKey::SECRET]>,
}

impl TicketKey {
    /// Octets of a name. Names are drawn at random, so that they tell nothing and meet never.
    pub const NAME: usize = 16;
    /// Octets of a key: AES-256.
    pub const SECRET: usize = 32;

    pub fn new(name: [u8; Self::NAME], secret: Zeroizing<[u8; Self::SECRET]>) -> Self {
        Self { name, secret }
    }
}

/// The keys of a moment. To rotate them, first give everybody the next key among the others, then make it the current one and
/// the one before one of the others, and after a ticket's lifetime leave that out.
pub struct TicketKeys {
    /// Seals, and opens.
    pub current: TicketKey,
    /// Open only: the one before, and the next one, with which a faster node seals already.
    pub others: Vec<TicketKey>,
    /// How long a client is told to keep its ticket: as long as its key goes on to open.
    pub lifetime: Duration,
}

/// RFC 8446 §4.6.1: no more than seven days.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// More keys than any rotation needs; each costs a look at every ticket.
const OTHERS_MAX: usize = 8;

struct Key {
    name: [u8; TicketKey::NAME],
    aead: LessSafeKey,
}

impl Key {
    fn new(key: &TicketKey) -> Result<Self, Error> {
        let unbound = UnboundKey::new(&AES_256_GCM, &key.secret[..]);
        let aead = LessSafeKey::new(unbound.map_err(|_| Error::TicketKeys("a key of another length"))?);
        Ok(Self { name: key.name, aead })
    }
}

struct Keys {
    current: Key,
    others: Vec<Key>,
    lifetime: u32,
}

/// What rustls asks for tickets.
pub(super) struct Tickets {
    /// Until keys are given: good for this process.
    own: Arc<dyn ProducesTickets>,
    given: RwLock<Option<Arc<Keys>>>,
}

impl Tickets {
    pub(super) fn of_this_process() -> Result<Self, Error> {
        let own = Ticketer::new().map_err(|_| Error::TicketKeys("the system gives no random numbers"))?;
        Ok(Self { own, given: RwLock::new(None) })
    }

    pub(super) fn set(&self, keys: TicketKeys) -> Result<(), Error> {
        if keys.others.len() > OTHERS_MAX {
            return Err(Error::TicketKeys("too many at once"));
        }
        let lifetime = u32::try_from(keys.lifetime.min(LIFETIME_MAX).as_secs()).unwrap_or(u32::MAX);
        let others = keys.others.iter().map(Key::new).collect::<Result<_, _>>()?;
        let keys = Keys { current: Key::new(&keys.current)?, others, lifetime };
        *self.given.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::new(keys));
        Ok(())
    }

    fn given(&self) -> Option<Arc<Keys>> {
        self.given.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.given().is_some() { "Tickets(shared)" } else { "Tickets(of this process)" })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.given().map_or_else(|| self.own.lifetime(), |keys| keys.lifetime)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let Some(keys) = self.given() else {
            return self.own.encrypt(plain);
        };
        seal(&keys.current, plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let Some(keys) = self.given() else {
            return self.own.decrypt(ticket);
        };
        let (name, _) = ticket.split_first_chunk::<{ TicketKey::NAME }>()?;
        let key = std::iter::once(&keys.current).chain(&keys.others).find(|key| key.name == *name)?;
        open(key, ticket)
    }
}

/// A ticket: the key's name, a nonce, the sealed session. The name is authenticated with it.
fn seal(key: &Key, plain: &[u8]) -> Option<Vec<u8>> {
    // Drawn at random, since no two nodes share a counter. A key seals fewer tickets by far than the 2^32 after which two
    // nonces might meet.
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).ok()?;
    let mut ticket = Vec::with_capacity(key.name.len() + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
    ticket.extend_from_slice(&key.name);
    ticket.extend_from_slice(&nonce);
    ticket.extend_from_slice(plain);
    let sealed = &mut ticket[key.name.len() + NONCE_LEN..];
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.aead.seal_in_place_separate_tag(nonce, Aad::from(key.name), sealed).ok()?;
    ticket.extend_from_slice(tag.as_ref());
    Some(ticket)
}

fn open(key: &Key, ticket: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = ticket.get(key.name.len()..)?.split_first_chunk::<NONCE_LEN>()?;
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = key.aead.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}
