//! The opening of a node: sends what waits, binds every address, then lets clients in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use posthouse_filter::Pipeline;
use posthouse_net::Listener;
use posthouse_web::{Health, Readiness};
use ractor::{Actor, ActorCell, ActorId, ActorRef, SpawnErr};
use tokio::sync::{Mutex, Semaphore};

use super::root::StartChild;
use super::{RootMsg, Services, StartError, doors, store_link};
use crate::admin::{Admin, AdminActor};
use crate::filter::Filters;
use crate::listener::{self, ListenerArguments, SessionFactory};
use crate::queue::Queues;
use crate::queue::bounce::Reports;
use crate::queue::services::{Busy, QueueServices};
use crate::relay::SmtpCourier;
use crate::scrubber::Duty;
use crate::session::Protocol;
use crate::session::home::Lodging;
use crate::session::imap::ImapServices;
use crate::session::pop3::Pop3Services;
use crate::session::pop3::stored::StoredMaildrops;
use crate::session::smtp::SmtpServices;
use crate::spool::{NodeDelivery, Spool, SpoolNudge, SpoolServices};
use crate::{admission, scrubber, session, sweeper, tickets};

/// An address that is bound, and what will be spoken there.
struct Door {
    socket: Arc<Listener>,
    factory: Arc<dyn SessionFactory>,
}

/// Opens the node.
pub(super) async fn open(services: &Arc<Services>, root: &ActorRef<RootMsg>, admin: Admin) -> Result<(), StartError> {
    let metrics = bind(services, doors::METRICS, &services.settings.listen.metrics)?;
    store_link::serve(services).await?;
    if services.settings.storage.serve.dedicated {
        start_scrubber(services, root, Duty::Segments).await?;
        start_admin(root, admin).await?;
        return serve_all_metrics(services, metrics);
    }
    let spool = start_sending(services, root).await?;
    let doors = open_doors(services, &spool, root).await?;
    start_tickets(services, root).await?;
    start_keeping(services, root, admin).await?;
    for door in doors {
        start_listener(services, root, door).await?;
    }
    services.doors.close_rest();
    serve_all_metrics(services, metrics)
}

fn serve_all_metrics(services: &Arc<Services>, sockets: Vec<Listener>) -> Result<(), StartError> {
    for socket in sockets {
        serve_metrics(services, socket);
    }
    Ok(())
}

fn bind(services: &Services, kind: &str, addresses: &[SocketAddr]) -> Result<Vec<Listener>, StartError> {
    let backlog = services.settings.limits.accept_backlog;
    Ok(addresses.iter().map(|address| services.doors.open(kind, *address, backlog)).collect::<Result<_, _>>()?)
}

/// Queues, relays and the spool: what lies in the store is taken up at once.
async fn start_sending(services: &Arc<Services>, root: &ActorRef<RootMsg>) -> Result<Spool, StartError> {
    let (settings, store) = (services.settings.clone(), services.store.clone());
    let names = Arc::new(services.loaded.resolver.clone());
    let outbound = services.loaded.serving(&settings)?.outbound.clone();
    let courier = SmtpCourier::new(settings.clone(), store.clone(), names, outbound, services.own_smtp());
    let reports = Reports { hostname: settings.node.hostname.clone(), return_max: settings.queue.dsn_return_max.get() };
    let nudge = SpoolNudge::default();
    let queue = QueueServices {
        store: store.clone(),
        settings: settings.clone(),
        courier: Arc::new(courier),
        reports: reports.clone(),
        spool: nudge.clone(),
        relays: Arc::new(Semaphore::new(settings.queue.relays_max)),
        busy: Busy::default(),
    };
    let queues = Queues::start(Arc::new(queue), services.placement.clone(), root.get_cell());
    let queues = queues.await.map_err(StartError::actor("the queues"))?;
    let _ = services.queues.set(queues.clone());
    let local = NodeDelivery { directory: services.directory.clone(), mailboxes: services.mailboxes.clone() };
    let placement = services.placement.clone();
    let spool = SpoolServices { store, placement, settings, local: Arc::new(local), queues, reports, nudge };
    Spool::start(spool, root.get_cell()).await.map_err(StartError::actor("the spool"))
}

/// Binds every address of every protocol.
async fn open_doors(
    services: &Arc<Services>,
    spool: &Spool,
    root: &ActorRef<RootMsg>,
) -> Result<Vec<Door>, StartError> {
    let settings = &services.settings;
    let pipeline = Pipeline::from_settings(&settings.filter, &services.loaded.resolver)?;
    let hostname = settings.node.hostname.clone();
    let filters = Filters::start(services.store.clone(), pipeline, hostname, &settings.filter, root.get_cell());
    let filters = filters.await.map_err(StartError::actor("the filters"))?;
    let mut doors = Vec::new();
    for (protocol, addresses) in Protocol::addresses(&settings.listen, services.loaded.tls.is_some()) {
        let factory = factory(services, protocol, spool, &filters);
        for socket in bind(services, protocol.as_str(), addresses)? {
            doors.push(Door { socket: Arc::new(socket), factory: factory.clone() });
        }
    }
    Ok(doors)
}

/// What makes the sessions of a protocol, with the handles that they use.
fn factory(services: &Arc<Services>, protocol: Protocol, spool: &Spool, filters: &Filters) -> Arc<dyn SessionFactory> {
    let (settings, tls, calls) = (services.settings.clone(), services.loaded.tls.clone(), services.switch.calls());
    let (store, mailboxes, auth) = (services.store.clone(), services.mailboxes.clone(), services.auth.clone());
    match protocol {
        Protocol::Smtp | Protocol::Submission | Protocol::Submissions => {
            let desk = session::smtp::node_desk::NodeDesk {
                store,
                mailboxes,
                auth,
                directory: services.directory.clone(),
                filters: filters.clone(),
                spool: spool.clone(),
                signer: services.signer.clone(),
                admission: services.admission.clone(),
            };
            Arc::new(SmtpServices::new(desk, protocol, tls, settings, calls))
        }
        Protocol::Imap | Protocol::Imaps => {
            let desk = session::imap::node_desk::NodeDesk { store, mailboxes, auth };
            Arc::new(ImapServices { desk, protocol, tls, settings, calls })
        }
        Protocol::Pop3 | Protocol::Pop3s => {
            let maildrops = StoredMaildrops::new(store, mailboxes, auth, &settings.pop3);
            Arc::new(Pop3Services { maildrops, protocol, tls, settings, calls })
        }
    }
}

async fn start_listener(services: &Arc<Services>, root: &ActorRef<RootMsg>, door: Door) -> Result<(), StartError> {
    let (protocol, address) = (door.factory.protocol().as_str(), door.socket.local_addr().to_string());
    let lodging = Lodging::open()?;
    services.count_in(lodging.clone());
    let arguments = ListenerArguments {
        arrivals: Arc::new(Mutex::new(services.arrivals.open(door.factory.clone(), services.switch.calls()))),
        socket: door.socket,
        admission: services.admission.clone(),
        factory: door.factory,
        lodging,
        notices: services.mailboxes.notices().clone(),
        calls: services.switch.calls(),
        supervise: services.settings.supervise.clone(),
    };
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let arguments = arguments.clone();
        async move { Ok(listener::start(arguments, supervisor).await?.0.get_id()) }.boxed()
    });
    let name = format!("{protocol} {address}");
    adopt(root, "listener", name, start).await.map_err(StartError::actor("a listener"))?;
    services.show_listener(protocol, address);
    Ok(())
}

/// Ticket keys before the first handshake, so that a client that comes back after an upgrade resumes.
async fn start_tickets(services: &Arc<Services>, root: &ActorRef<RootMsg>) -> Result<(), StartError> {
    let Some(acceptor) = services.loaded.tls.clone() else {
        return Ok(());
    };
    let lifetime = services.settings.tls.ticket_lifetime.get();
    let arguments = tickets::TicketArguments { store: services.store.clone(), acceptor, lifetime };
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let arguments = arguments.clone();
        async move { Ok(tickets::start(arguments, supervisor).await?.get_id()) }.boxed()
    });
    adopt(root, "tickets", "keys".to_owned(), start).await.map_err(StartError::actor("the ticket keys"))
}

/// What keeps the node tidy, and its administrator's socket.
async fn start_keeping(services: &Arc<Services>, root: &ActorRef<RootMsg>, admin: Admin) -> Result<(), StartError> {
    let started = services.clone();
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let (limits, settings) = (started.admission.clone(), started.settings.clone());
        async move { Ok(admission::start(limits, &settings, supervisor).await?.get_id()) }.boxed()
    });
    adopt(root, "admission", "limits".to_owned(), start).await.map_err(StartError::actor("the limits"))?;

    let started = services.clone();
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let arguments = sweeper::SweeperArguments {
            store: started.store.clone(),
            mailboxes: started.mailboxes.clone(),
            interval: started.settings.storage.sweep_interval.get(),
        };
        async move { Ok(sweeper::start(arguments, supervisor).await?.get_id()) }.boxed()
    });
    adopt(root, "sweeper", "store".to_owned(), start).await.map_err(StartError::actor("the sweeper"))?;

    start_scrubber(services, root, Duty::All).await?;
    start_admin(root, admin).await
}

async fn start_scrubber(services: &Arc<Services>, root: &ActorRef<RootMsg>, duty: Duty) -> Result<(), StartError> {
    let started = services.clone();
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let interval = started.settings.storage.sweep_interval.get();
        let arguments = scrubber::ScrubberArguments { store: started.store.clone(), interval, duty };
        async move { Ok(scrubber::start(arguments, supervisor).await?.get_id()) }.boxed()
    });
    adopt(root, "scrubber", "store".to_owned(), start).await.map_err(StartError::actor("the scrubber"))
}

async fn start_admin(root: &ActorRef<RootMsg>, admin: Admin) -> Result<(), StartError> {
    let start: StartChild = Arc::new(move |supervisor: ActorCell| {
        let admin = admin.clone();
        async move { Ok(Actor::spawn_linked(None, AdminActor, admin, supervisor).await?.0.get_id()) }.boxed()
    });
    adopt(root, "admin", "socket".to_owned(), start).await.map_err(StartError::actor("the admin socket"))
}

/// Starts a child that the root starts again when it fails.
async fn adopt(root: &ActorRef<RootMsg>, kind: &'static str, name: String, start: StartChild) -> Result<(), SpawnErr> {
    let id: ActorId = start(root.get_cell()).await?;
    // A root that is gone has taken the child with it.
    let _ = root.cast(RootMsg::Adopt { kind, name, id, start });
    Ok(())
}

/// `/metrics` and `/health` on one address, until the node closes: a draining node is still watched.
fn serve_metrics(services: &Arc<Services>, socket: Listener) {
    let (ready, draining, calls) = (services.ready.clone(), services.draining.clone(), services.switch.calls());
    let health = move || {
        let mut waiting_for = Vec::new();
        if draining.load(Ordering::Acquire) {
            waiting_for.push("the end of the drain".to_owned());
        } else if calls.is_ended() {
            waiting_for.push("another process".to_owned());
        } else if !ready.load(Ordering::Acquire) {
            waiting_for.push("the listeners".to_owned());
        }
        Readiness { waiting_for }
    };
    services.show_listener("metrics", socket.local_addr().to_string());
    let router = posthouse_web::router(Arc::new(health) as Arc<dyn Health>);
    let (http, closing) = (services.settings.http.clone(), services.closing.subscribe());
    tokio::spawn(posthouse_web::serve(socket.into_tokio(), router, http, closing));
}
