//! What a node is made of before anybody can connect, and what its administrator can see of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use posthouse_cluster::Placement;
use posthouse_conf::Settings;
use posthouse_filter::rate::Admission;
use posthouse_storage::{Store, queue};
use ractor::ActorRef;
use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::Instant;

use super::arrivals::Arrivals;
use super::departure::Departure;
use super::doors::{Doors, METRICS, STORE};
use super::drain::DrainView;
use super::loaded::Loaded;
use super::orders::Orders;
use super::{RootMsg, StartError};
use crate::admin::{ListenerView, StatusView};
use crate::auth::Authenticator;
use crate::directory::Directory;
use crate::domain::Domains;
use crate::domain::signer::Signer;
use crate::mailbox::Mailboxes;
use crate::notice::Notices;
use crate::queue::Queues;
use crate::session::Switch;
use crate::session::home::Lodging;

/// The handles that the composition of a node and its administrator's commands use; no session gets this.
pub struct Services {
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Store,
    pub(crate) placement: Placement,
    pub(crate) loaded: Loaded,
    pub(crate) admission: Arc<Admission>,
    pub(crate) directory: Directory,
    pub(crate) auth: Authenticator,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) domains: Domains,
    pub(crate) signer: Signer,
    /// What every session is asked.
    pub(super) switch: Switch,
    pub(super) doors: Doors,
    pub(super) arrivals: Arrivals,
    pub(crate) orders: Orders,
    pub(crate) departure: Departure,
    pub(super) ready: Arc<AtomicBool>,
    /// The node takes no more clients, or is about to.
    pub(crate) draining: Arc<AtomicBool>,
    /// What its drain came to.
    pub(super) drained: OnceCell<DrainView>,
    pub(super) failed: Arc<AtomicBool>,
    pub(super) stop_requested: Arc<Notify>,
    /// Set once the node serves: a command on a stopped node sends no mail.
    pub(super) queues: OnceLock<Queues>,
    /// Turns true when nothing is left to watch.
    pub(super) closing: watch::Sender<bool>,
    listeners: Mutex<Vec<ListenerView>>,
    /// Of each listener, the places of its sessions.
    lodgings: Mutex<Vec<Lodging>>,
    started_at: Instant,
}

/// Opens everything that commands need.
pub(super) async fn start(
    (settings, loaded): (Arc<Settings>, Loaded),
    store: Store,
    root: &ActorRef<RootMsg>,
    (failed, stop_requested): (Arc<AtomicBool>, Arc<Notify>),
) -> Result<Services, StartError> {
    let placement = Placement::local(store.clone());
    let admission = Arc::new(Admission::new(&settings.limits, &settings.submission));
    let mailboxes = Mailboxes::start(store.clone(), placement.clone(), Notices::new(), &settings, root.get_cell());
    let mailboxes = mailboxes.await.map_err(StartError::actor("the mailboxes"))?;
    let domains = Domains::start(store.clone(), placement.clone(), &settings, root.get_cell());
    let domains = domains.await.map_err(StartError::actor("the domains"))?;
    Ok(Services {
        directory: Directory::new(store.clone(), &settings),
        auth: Authenticator::new(store.clone(), admission.clone(), &settings.auth),
        signer: Signer::new(store.clone(), settings.dkim.clone(), &settings.filter),
        settings,
        store,
        placement,
        loaded,
        admission,
        mailboxes,
        domains,
        switch: Switch::new(),
        doors: Doors::default(),
        arrivals: Arrivals::default(),
        orders: Orders::default(),
        departure: Departure::default(),
        ready: Arc::default(),
        draining: Arc::default(),
        drained: OnceCell::new(),
        failed,
        stop_requested,
        queues: OnceLock::new(),
        closing: watch::Sender::new(false),
        listeners: Mutex::default(),
        lodgings: Mutex::default(),
        started_at: Instant::now(),
    })
}

impl Services {
    /// The queues, where mail is being sent.
    pub(crate) fn queues(&self) -> Result<&Queues, String> {
        self.queues.get().ok_or_else(|| "no node is running: mail is sent by a running node only".to_owned())
    }

    /// Counts the sessions of a listener for `status`.
    pub(super) fn count_in(&self, lodging: Lodging) {
        self.lodgings.lock().unwrap_or_else(PoisonError::into_inner).push(lodging);
    }

    fn asleep(&self) -> usize {
        self.lodgings.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Lodging::asleep).sum()
    }

    /// Notes an open address for `status`.
    pub(super) fn show_listener(&self, protocol: &str, address: String) {
        let view = ListenerView { protocol: protocol.to_owned(), address };
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(view);
    }

    /// Mail protocols have no open address any more.
    pub(super) fn hide_listeners(&self) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|view| [METRICS, STORE].contains(&view.protocol.as_str()));
    }

    /// Returns once nobody can come in and no session is left: each is over, or parked.
    pub(super) async fn vacated(&self) {
        self.switch.shut().await;
        self.switch.vacated().await;
    }

    /// Asks the node to end; whoever runs it hears of it, also after an upgrade.
    pub(crate) fn request_stop(&self) -> Result<(), String> {
        self.departure.tell_to_end()?;
        self.stop_requested.notify_one();
        Ok(())
    }

    pub(crate) async fn status(&self) -> Result<StatusView, String> {
        let counts = queue::counts(&self.store).await.map_err(|error| error.to_string())?;
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            hostname: self.settings.node.hostname.clone(),
            ready: self.ready.load(Ordering::Acquire),
            draining: self.draining.load(Ordering::Acquire),
            uptime_seconds: self.started_at.elapsed().as_secs(),
            listeners: self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: self.admission.connections_open(),
            asleep: self.asleep(),
            active_mailboxes: self.mailboxes.active(),
            queued_messages: counts.queue_messages,
            spooled_messages: counts.spool_messages,
        })
    }

    /// Where our own SMTP takes mail from others: mail that would be sent there loops.
    pub(super) fn own_smtp(&self) -> Vec<SocketAddr> {
        self.settings.listen.smtp.clone()
    }
}
