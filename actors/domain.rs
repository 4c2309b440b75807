//! The domain actor: the one writer of a local domain's settings and signing keys.
//!
//! A virtual entity, so that two administrators never rotate keys at once, on any node. Sessions do not come here: they read
//! rows, and sign through `Signer`, which a watch keeps fresh.
//!
//! Owns: the rows of one domain under its shard's fence.   Receives: EnsureKeys, RotateKeys, RemoveKey, SetCatchAll, Rest.
//! Sends: answers.   Bounds: conf.domain.{inbox_max, request_timeout, passivate_after}.
//! On failure: the supervisor starts it again at the next request; each request may be repeated, as it finds what it has
//! done.   Standards: RFC 6376 §3.6, RFC 8463, RFC 8301 §3.

mod records;
pub mod signer;

use std::fmt;
use std::time::Duration;

use posthouse_cluster::{Entity, EntityKey, Permit, Placement, RouteError, Router};
use posthouse_filter::KeyAlgorithm;
use posthouse_filter::keys::generate;
use posthouse_mail::{Address, Domain, DomainId, Failure, UnixMillis};
use posthouse_storage::domain::{DkimAlgorithm, DkimKey};
use posthouse_storage::{Fence, Store, domain};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::time::Instant;

use crate::clock;

pub use records::DnsRecord;

/// Why a domain could not be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DomainError {
    #[error("{0}")]
    Store(#[from] posthouse_storage::Error),
    #[error("{0}")]
    Key(#[from] posthouse_filter::Error),
    #[error("{0}")]
    Route(#[from] RouteError),
}

impl DomainError {
    /// Whose fault it is, and whether to try again.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Store(error) => error.failure(),
            Self::Key(error) => error.failure(),
            Self::Route(_) => Failure::OURS,
        }
    }
}

/// A domain as the router knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainKey(DomainId);

impl fmt::Display for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl EntityKey for DomainKey {
    fn shard_bytes(&self) -> Vec<u8> {
        self.0.get().to_be_bytes().to_vec()
    }
}

/// What a domain is asked. Each may be asked again after an unknown outcome.
#[derive(Debug)]
pub enum Change {
    /// Makes the keys of each algorithm that the domain has none of.
    EnsureKeys,
    /// Makes a further key of each algorithm; its selector bears the day.
    RotateKeys,
    RemoveKey(Domain),
    SetCatchAll(Option<Address>),
}

pub enum DomainMsg {
    Change {
        change: Change,
        now: UnixMillis,
        permit: Permit,
        answer: RpcReplyPort<Result<(), DomainError>>,
    },
    /// Looks whether the actor may leave memory.
    Rest,
}

impl ractor::Message for DomainMsg {}

/// The way to all local domains.
#[derive(Clone)]
pub struct Domains {
    router: Router<DomainEntity>,
    store: Store,
    host_name: String,
    request_timeout: Duration,
}

impl Domains {
    /// Starts the supervisor of domains under `parent`.
    pub async fn start(
        store: Store,
        placement: Placement,
        settings: &posthouse_conf::Settings,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let entity =
            DomainEntity { store: store.clone(), settings: settings.domain.clone(), rsa_bits: settings.dkim.rsa_bits };
        let router = Router::start(entity, placement, settings.supervise.clone(), parent).await?;
        let request_timeout = settings.domain.request_timeout.get();
        Ok(Self { router, store, host_name: settings.node.hostname.clone(), request_timeout })
    }

    /// Makes an RSA and an Ed25519 key where the domain lacks them.
    pub async fn ensure_keys(&self, id: DomainId) -> Result<(), DomainError> {
        self.change(id, || Change::EnsureKeys).await
    }

    /// Makes further keys, which sign once `dkim.activation_delay` has passed; the old ones stay until they are removed.
    /// `Exists` when the domain's keys were rotated on this day already.
    pub async fn rotate_keys(&self, id: DomainId) -> Result<(), DomainError> {
        self.change(id, || Change::RotateKeys).await
    }

    /// Removes a key, whose record may then go too.
    pub async fn remove_key(&self, id: DomainId, selector: &Domain) -> Result<(), DomainError> {
        self.change(id, || Change::RemoveKey(selector.clone())).await
    }

    /// Names who takes what no address takes.
    pub async fn set_catch_all(&self, id: DomainId, catch_all: Option<&Address>) -> Result<(), DomainError> {
        self.change(id, || Change::SetCatchAll(catch_all.cloned())).await
    }

    /// The keys of a domain, by selector.
    pub async fn keys(&self, id: DomainId) -> Result<Vec<DkimKey>, DomainError> {
        Ok(domain::dkim_keys(&self.store, id).await?)
    }

    /// What the domain's zone should say: MX, SPF, DKIM, DMARC.
    pub async fn dns_records(&self, id: DomainId) -> Result<Vec<DnsRecord>, DomainError> {
        let row = domain::by_id(&self.store, id).await?.ok_or(posthouse_storage::Error::NotFound)?;
        let keys = domain::dkim_keys(&self.store, id).await?;
        Ok(records::of_domain(&row.name, &self.host_name, &keys)?)
    }

    async fn change(&self, id: DomainId, make: impl Fn() -> Change) -> Result<(), DomainError> {
        let deadline = Instant::now() + self.request_timeout;
        // Read once: a repeat has to find what the first try did.
        let now = clock::now();
        let ask = |permit, answer| DomainMsg::Change { change: make(), now, permit, answer };
        self.router.ask(&DomainKey(id), deadline, ask).await?
    }
}

/// How to bring a domain to life.
pub struct DomainEntity {
    store: Store,
    settings: posthouse_conf::Domain,
    rsa_bits: u16,
}

impl Entity for DomainEntity {
    type Key = DomainKey;
    type Msg = DomainMsg;

    const KIND: &'static str = "domain";

    fn inbox_max(&self) -> usize {
        self.settings.inbox_max
    }

    async fn spawn(
        &self,
        key: DomainKey,
        fence: Fence,
        supervisor: ActorCell,
    ) -> Result<ActorRef<DomainMsg>, SpawnErr> {
        let state = DomainState {
            id: key.0,
            fence,
            store: self.store.clone(),
            rsa_bits: self.rsa_bits,
            passivate_after: self.settings.passivate_after.get(),
            used_at: Instant::now(),
        };
        Ok(Actor::spawn_linked(None, DomainActor, state, supervisor).await?.0)
    }
}

struct DomainActor;

pub(crate) struct DomainState {
    id: DomainId,
    fence: Fence,
    store: Store,
    rsa_bits: u16,
    passivate_after: Duration,
    used_at: Instant,
}

impl Actor for DomainActor {
    type Msg = DomainMsg;
    type State = DomainState;
    type Arguments = DomainState;

    async fn pre_start(
        &self,
        myself: ActorRef<DomainMsg>,
        state: DomainState,
    ) -> Result<DomainState, ActorProcessingErr> {
        myself.send_after(state.passivate_after, || DomainMsg::Rest);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<DomainMsg>,
        message: DomainMsg,
        state: &mut DomainState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DomainMsg::Change { change, now, permit, answer } => {
                let result = state.apply(change, now).await;
                drop(permit);
                state.used_at = Instant::now();
                let _ = answer.send(result);
            }
            // A request that comes between is asked again, of the successor.
            DomainMsg::Rest if state.used_at.elapsed() >= state.passivate_after => myself.stop(None),
            DomainMsg::Rest => {
                let left = state.passivate_after.saturating_sub(state.used_at.elapsed());
                myself.send_after(left, || DomainMsg::Rest);
            }
        }
        Ok(())
    }
}

const ALGORITHMS: [DkimAlgorithm; 2] = [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519];

impl DomainState {
    async fn apply(&self, change: Change, now: UnixMillis) -> Result<(), DomainError> {
        match change {
            Change::EnsureKeys => {
                let keys = domain::dkim_keys(&self.store, self.id).await?;
                for algorithm in ALGORITHMS.into_iter().filter(|wanted| keys.iter().all(|k| k.algorithm != *wanted)) {
                    self.add_key(algorithm, now).await?;
                }
                Ok(())
            }
            Change::RotateKeys => {
                let keys = domain::dkim_keys(&self.store, self.id).await?;
                let done = |wanted: DkimAlgorithm| keys.iter().any(|k| k.algorithm == wanted && k.created_at == now);
                for algorithm in ALGORITHMS.into_iter().filter(|wanted| !done(*wanted)) {
                    self.add_key(algorithm, now).await?;
                }
                Ok(())
            }
            Change::RemoveKey(selector) => {
                Ok(domain::remove_dkim_key(&self.store, self.fence, self.id, &selector).await?)
            }
            Change::SetCatchAll(catch_all) => {
                Ok(domain::set_catch_all(&self.store, self.fence, self.id, catch_all.as_ref()).await?)
            }
        }
    }

    /// Makes a key off the runtime's threads, since RSA takes its time, and keeps it.
    async fn add_key(&self, algorithm: DkimAlgorithm, now: UnixMillis) -> Result<(), DomainError> {
        let rsa_bits = self.rsa_bits;
        let made = tokio::task::spawn_blocking(move || generate(signing_algorithm(algorithm), rsa_bits)).await;
        let private_key = made.map_err(|_| posthouse_filter::Error::Crypto)??;
        let key = DkimKey { selector: selector(algorithm, now)?, algorithm, private_key, created_at: now };
        Ok(domain::add_dkim_key(&self.store, self.fence, self.id, &key).await?)
    }
}

/// One label that tells the algorithm and the day (RFC 6376 §3.1).
fn selector(algorithm: DkimAlgorithm, now: UnixMillis) -> Result<Domain, DomainError> {
    let kind = match algorithm {
        DkimAlgorithm::Rsa => "rsa",
        DkimAlgorithm::Ed25519 => "ed25519",
    };
    let (year, month, day) = civil_day(now);
    let text = format!("{kind}-{year:04}{month:02}{day:02}");
    Domain::parse(&text).map_err(|_| posthouse_storage::Error::Invalid("not a selector").into())
}

/// The day in UTC. Counts years from March, so that the leap day comes last.
fn civil_day(now: UnixMillis) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_OF_ERA: u64 = 146_097;
    let days = now.seconds() / 86_400 + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The store's word for an algorithm as the filter's.
pub(crate) fn signing_algorithm(algorithm: DkimAlgorithm) -> KeyAlgorithm {
    match algorithm {
        DkimAlgorithm::Rsa => KeyAlgorithm::RsaSha256,
        DkimAlgorithm::Ed25519 => KeyAlgorithm::Ed25519Sha256,
    }
}

#[cfg(test)]
mod tests;
