//! The root of a node: starts everything in order, supervises it, and ends it in order.
//!
//! Owns: the store, the switch of its sessions, the children that are always there.   Receives: the ends of its children.
//! Sends: its calls to every session.   Bounds: conf.node.drain_limit for the end; conf.supervise for restarts.
//! On failure: a listener, the admin socket or a sweeper that dies is started again; a supervisor of entities that dies is
//! a fault that no restart inside mends, so the node ends and whoever runs it starts it anew.   Standards: none.

mod arrivals;
mod custody;
mod departure;
mod doors;
mod drain;
mod handover;
mod loaded;
mod opening;
mod orders;
mod parcel;
mod rehearsal;
mod root;
mod services;
mod store_link;
mod successor;
mod takeover;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use posthouse_conf::Settings;
use posthouse_storage::Store;
use posthouse_storage::backup::restore;
use posthouse_storage::gate::{Entry, Formats, Incarnation, Membership};
use ractor::ActorRef;
use thiserror::Error;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::admin::Admin;
use crate::clock;

pub use custody::{KEEP, custody, keep, settings_before};
pub use drain::DrainView;
pub(crate) use drain::{Pace, drain_once};
pub use handover::{HandoverFailure, Remains, UpgradeView};
pub(crate) use orders::Wish;
pub use orders::{Order, UpgradeOrder};
pub(crate) use root::RootMsg;
pub use services::Services;
pub use successor::{Form, Successor, TAKE_OVER, own_program};
pub use takeover::take_over;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the store in {dir}")]
    Store { dir: String, source: posthouse_storage::Error },
    #[error(transparent)]
    Net(#[from] posthouse_net::Error),
    #[error("{what} did not start")]
    Actor { what: &'static str, source: ractor::SpawnErr },
    #[error(transparent)]
    Filter(#[from] posthouse_filter::Error),
    #[error("sending: {0}")]
    Sending(String),
    #[error(
        "a restore of point {point} was cut short: begin it again, with --point {point}, before the node serves, or with an empty store"
    )]
    HalfRestored { point: String },
}

impl StartError {
    fn actor(what: &'static str) -> impl FnOnce(ractor::SpawnErr) -> Self {
        move |source| Self::Actor { what, source }
    }
}

/// The folder of the store within `node.data_dir`.
const STORE_DIR: &str = "store";

/// Where the files of the store lie.
pub fn store_dir(settings: &Settings) -> PathBuf {
    settings.node.data_dir.join(STORE_DIR)
}

/// A running node.
pub struct Node {
    services: Arc<Services>,
    membership: Membership,
    root: ActorRef<RootMsg>,
    root_ended: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Node {
    /// Opens the store and starts every actor but the listeners: commands work, nobody can connect. On one node that is
    /// not there to be taken back, the store's format goes as far as this program writes.
    pub async fn start(settings: Arc<Settings>) -> Result<Self, StartError> {
        let node = Self::start_for_a_command(settings).await?;
        match node.open_gate().await {
            Ok(()) => Ok(node),
            Err(source) => {
                let dir = store_dir(&node.services.settings).display().to_string();
                node.stop().await;
                Err(StartError::Store { dir, source })
            }
        }
    }

    /// As `start`, but the store keeps its format: a command that gets in between two programs, of which the first may have
    /// to take the store back, is not to close that way.
    pub async fn start_for_a_command(settings: Arc<Settings>) -> Result<Self, StartError> {
        let loaded = loaded::Loaded::read(&settings)?;
        Self::start_unproved(settings, loaded).await
    }

    /// Writes no newer format than was there: the program before may have to take the store back.
    async fn start_unproved(settings: Arc<Settings>, loaded: loaded::Loaded) -> Result<Self, StartError> {
        let store = store_link::open(&settings, loaded.link.clone()).await?;
        let membership = match enter(&settings, &store).await {
            Ok(membership) => membership,
            Err(source) => {
                let _ = store.close().await;
                let dir = store_dir(&settings).display().to_string();
                return Err(StartError::Store { dir, source });
            }
        };
        let (failed, stop_requested) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (root, root_ended) = root::start(&settings, failed.clone(), stop_requested.clone()).await?;
        end_when_lost(&store, (failed.clone(), stop_requested.clone()));
        let services = match services::start((settings, loaded), store.clone(), &root, (failed, stop_requested)).await {
            Ok(services) => Arc::new(services),
            Err(error) => {
                root.stop(None);
                let _ = store.close().await;
                return Err(error);
            }
        };
        Ok(Self { services, membership, root, root_ended: Mutex::new(Some(root_ended)) })
    }

    /// This program stays: the store's format goes as far as it writes.
    pub(crate) async fn open_gate(&self) -> Result<(), posthouse_storage::Error> {
        self.membership.open_alone().await.map(drop)
    }

    /// Runs administrators' commands on this node.
    pub fn admin(&self) -> Admin {
        Admin::new(self.services.clone())
    }

    /// Binds every address first, then accepts on all: a taken port leaves nothing half open.
    pub async fn listen(&self) -> Result<(), StartError> {
        self.refuse_half_restored().await?;
        opening::open(&self.services, &self.root, self.admin()).await?;
        self.services.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// A store that a restore was cut short in lacks accounts: mail to them would be refused for good.
    pub async fn refuse_half_restored(&self) -> Result<(), StartError> {
        let services = &self.services;
        let failed = |source| StartError::Store { dir: store_dir(&services.settings).display().to_string(), source };
        match restore::unfinished(&services.store).await.map_err(failed)? {
            Some(point) => Err(StartError::HalfRestored { point }),
            None => Ok(()),
        }
    }

    /// Reads the certificate and its key anew; new connections get it, and a pair that does not fit changes nothing.
    pub fn reload_certificate(&self) -> Result<(), StartError> {
        match &self.services.loaded.tls {
            Some(acceptor) => Ok(acceptor.reload()?),
            None => Ok(()),
        }
    }

    /// Returns when a command or a fault asks for the end of the node.
    pub async fn stop_requested(&self) {
        self.services.stop_requested.notified().await;
    }

    /// The next order that concerns the process as a whole.
    pub async fn ordered(&self) -> Order {
        self.services.orders.next().await
    }

    /// Whether an administrator told this node to end. Of one that is closed it concerns whatever has its place.
    pub fn was_told_to_end(&self) -> bool {
        self.services.departure.was_told_to_end()
    }

    /// Whether a fault asked for the end.
    pub fn failed(&self) -> bool {
        self.services.failed.load(Ordering::Acquire)
    }

    /// Ends the node: sessions finish at their next safe point, within `node.drain_limit`; then the store is closed.
    pub async fn stop(&self) {
        self.services.drain(Pace::AT_ONCE, &|_, _, _| {}).await;
        // Deliveries had their time within the drain.
        self.close(Instant::now()).await;
    }

    /// Ends every actor and closes the store. Deliveries under way have until `deadline`.
    async fn close(&self, deadline: Instant) {
        let services = &self.services;
        services.ready.store(false, Ordering::Release);
        services.departure.close();
        services.orders.close().await;
        if let Ok(queues) = services.queues() {
            queues.settle(deadline).await;
            posthouse_net::local_socket::unbind(&services.settings.node.data_dir);
        }
        let _ = services.closing.send(true);
        self.root.stop(None);
        if let Some(ended) = self.root_ended.lock().await.take() {
            let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
        }
        // A row that stays is of a run that was killed; the next one knows.
        let left = self.membership.leave().await;
        if let Err(error) = services.store.close().await.and(left) {
            posthouse_obs::emit(posthouse_obs::event::actor::NodeEndedBadly { reason: error.to_string() });
        }
    }
}

/// A node whose store another process took can do nothing more; whoever runs it starts it anew.
fn end_when_lost(store: &Store, (failed, stop_requested): (Arc<AtomicBool>, Arc<Notify>)) {
    let lost = store.lost();
    tokio::spawn(async move {
        lost.await;
        failed.store(true, Ordering::Release);
        stop_requested.notify_one();
    });
}

/// Registers this run at the version gate.
async fn enter(settings: &Settings, store: &Store) -> Result<Membership, posthouse_storage::Error> {
    let entry = Entry {
        incarnation: Incarnation::new(rand::random()),
        name: settings.node.hostname.clone(),
        formats: Formats::up_to(settings.cluster.format_max)?,
        now: clock::now(),
    };
    Membership::enter(store, entry).await
}

#[cfg(test)]
mod tests;
