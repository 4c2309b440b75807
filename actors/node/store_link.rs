//! The store of a node: its own directory, or the store of another node over mutual TLS; and its own served to others.
//!
//! Apart because this is where the store meets the network: `storage` opens no socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use posthouse_conf::Settings;
use posthouse_mail::Domain;
use posthouse_net::certificate::Files;
use posthouse_net::{Answer, Listener, Resolver, TlsAcceptor, TlsConnector, Transport, connect};
use posthouse_obs::emit;
use posthouse_obs::event::store::StoreClientRefused;
use posthouse_storage::{Connector, Server, Store, Stream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::doors::STORE;
use super::{Services, StartError, store_dir};

/// Opens the store that the settings name, of another node where there is a way to one.
pub(super) async fn open(settings: &Settings, link: Option<Link>) -> Result<Store, StartError> {
    let dir = store_dir(settings);
    let (place, opened) = match link {
        Some(link) => {
            (settings.storage.served.server.clone(), Store::connect(Box::new(link), &dir, &settings.storage).await)
        }
        None => (dir.display().to_string(), Store::open(&dir, &settings.storage).await),
    };
    opened.map_err(|source| StartError::Store { dir: place, source })
}

/// The way to the node that serves the store.
#[derive(Clone)]
pub(super) struct Link {
    host: String,
    port: u16,
    /// In that node's certificate.
    name: String,
    tls: TlsConnector,
    resolver: Resolver,
    limit: Duration,
}

impl Link {
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let served = &settings.storage.served;
        let files = Files {
            ca: served.ca.clone(),
            certificate: served.certificate.clone(),
            private_key: served.private_key.clone(),
        };
        let (host, port) = served.address().unwrap_or_default();
        Ok(Self {
            host: host.to_owned(),
            port,
            name: served.host().to_owned(),
            tls: TlsConnector::mutual(&files)?,
            resolver: Resolver::new(&settings.resolver)?,
            limit: served.connect_timeout.get(),
        })
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = self.host.parse() {
            return Ok(vec![address]);
        }
        let name = Domain::parse(&self.host).map_err(|error| format!("{}: {error}", self.host))?;
        match self.resolver.addresses(&name).await {
            Ok(Answer::Found(addresses)) => Ok(addresses),
            Ok(_) => Err(format!("{name} has no address")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Tries each address of the host in turn.
    async fn dial(&self) -> Result<Transport, String> {
        let mut reason = format!("{} has no address", self.host);
        for address in self.addresses().await? {
            let dialled = async {
                let plain = connect(SocketAddr::new(address, self.port), self.limit).await?;
                self.tls.connect(plain, &self.name, self.limit).await
            };
            match dialled.await {
                Ok(transport) => return Ok(transport),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

impl Connector for Link {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        async {
            let transport = self.dial().await.map_err(io::Error::other)?;
            Ok(Box::new(transport) as Box<dyn Stream>)
        }
        .boxed()
    }
}

/// Serves the store to other nodes, where the settings give an address for it, until the node closes.
pub(super) async fn serve(services: &Arc<Services>) -> Result<(), StartError> {
    let storage = &services.settings.storage;
    let serve = &storage.serve;
    let Some(acceptor) = services.loaded.serving(&services.settings)?.store_tls.clone() else {
        return Ok(());
    };
    let backlog = services.settings.limits.accept_backlog;
    let sockets: Vec<_> =
        serve.listen.iter().map(|address| services.doors.open(STORE, *address, backlog)).collect::<Result<_, _>>()?;
    let server = services.store.server(storage).await;
    let server = server.map_err(|source| StartError::Store { dir: "storage.serve".to_owned(), source })?;
    for socket in sockets {
        services.show_listener("store", socket.local_addr().to_string());
        let door = Door { server: server.clone(), acceptor: acceptor.clone(), connections_max: serve.connections_max };
        tokio::spawn(door.accept(socket, services.closing.subscribe()));
    }
    Ok(())
}

/// Where other nodes come in.
struct Door {
    server: Server,
    acceptor: TlsAcceptor,
    connections_max: usize,
}

impl Door {
    async fn accept(self, socket: Listener, mut closing: watch::Receiver<bool>) {
        // Dropped with this task: the connections end with the node.
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                transport = socket.accept() => {
                    // Handshakes count too, so that strangers hold no more than this.
                    if sessions.len() < self.connections_max {
                        sessions.spawn(session(self.server.clone(), self.acceptor.clone(), transport));
                    }
                }
                Some(_) = sessions.join_next() => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    }
}

async fn session(server: Server, acceptor: TlsAcceptor, transport: Transport) {
    let client = transport.peer_ip().to_string();
    let reason = match transport.starttls(&acceptor).await {
        Ok(transport) => server.serve(transport).await.err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        emit(StoreClientRefused { client, reason });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use posthouse_conf::storage::{Engine, Serve, Served};
    use posthouse_conf::{Listen, Storage};
    use posthouse_net::certificate::issue_node;
    use posthouse_storage::engine::conformance::over_connections;

    use super::super::Node;
    use super::*;
    use crate::admin::AdminRequest;
    use crate::listener::fixture::free_address;

    fn settings(dir: &Path, storage: Storage) -> Arc<Settings> {
        let closed = Listen {
            smtp: Vec::new(),
            submission: Vec::new(),
            submissions: Vec::new(),
            imap: Vec::new(),
            imaps: Vec::new(),
            pop3: Vec::new(),
            pop3s: Vec::new(),
            metrics: Vec::new(),
        };
        let mut settings = Settings { listen: closed, storage, ..Settings::default() };
        settings.node.data_dir = dir.to_owned();
        Arc::new(settings)
    }

    /// Served engines between two ends of mutual TLS, each on a port of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_rules_of_every_engine_hold_over_mutual_tls() {
        posthouse_net::tls::install_provider();
        let dir = tempfile::tempdir().expect("a folder");
        let pair = |name: &str| {
            issue_node(&dir.path().join("authority"), &dir.path().join(name), &["localhost".to_owned()])
                .expect("a pair")
        };
        let (store_pair, mail_pair) = (pair("store"), pair("mail"));
        let acceptor = TlsAcceptor::mutual(&store_pair, &posthouse_conf::Tls::default()).expect("an acceptor");
        let (_open, closing) = watch::channel(false);
        let carry = async |server: Server| {
            let socket = Listener::bind("127.0.0.1:0".parse().expect("an address"), 16).expect("a port");
            let server_address = socket.local_addr().to_string();
            let door = Door { server, acceptor: acceptor.clone(), connections_max: 16 };
            tokio::spawn(door.accept(socket, closing.clone()));
            let Files { ca, certificate, private_key } = mail_pair.clone();
            let (server, name) = (server_address, "localhost".to_owned());
            let served = Served { server, name, ca, certificate, private_key, ..Served::default() };
            let storage = Storage { engine: Engine::Served, served, ..Storage::default() };
            let link = Link::new(&settings(dir.path(), storage)).expect("a way");
            Box::new(link) as Box<dyn Connector>
        };
        over_connections(&dir.path().join("stores"), carry).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_keeps_its_mail_with_the_node_that_serves_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let pair = |name: &str| {
            issue_node(&dir.path().join("authority"), &dir.path().join(name), &["localhost".to_owned()])
                .expect("a pair")
        };
        let (store_pair, mail_pair) = (pair("store"), pair("mail"));
        let free = free_address();
        let Files { ca, certificate, private_key } = store_pair;
        let serve = Serve { listen: vec![free], dedicated: true, ca, certificate, private_key, ..Serve::default() };
        let data_settings = settings(&dir.path().join("data"), Storage { serve, ..Storage::default() });
        let Files { ca, certificate, private_key } = mail_pair;
        let (server, name) = (free.to_string(), "localhost".to_owned());
        let served = Served { server, name, ca, certificate, private_key, ..Served::default() };
        // Both nodes hold the site's keys.
        let key_file = dir.path().join("data/store/storage.keys");
        let storage = Storage { engine: Engine::Served, served, key_file, ..Storage::default() };
        let mail_settings = settings(&dir.path().join("mail"), storage);

        let data = Node::start(data_settings).await.expect("the data node");
        data.listen().await.expect("it serves");
        let mail = Node::start(mail_settings.clone()).await.expect("the node with the mail");
        let create = AdminRequest::DomainCreate { name: "x.test".to_owned() };
        mail.admin().run(create, &|_, _, _| {}).await.expect("a domain");
        match Node::start(mail_settings.clone()).await.map(drop) {
            Err(StartError::Store { source, .. }) => {
                assert!(matches!(source, posthouse_storage::Error::Owned { .. }), "{source}");
            }
            other => panic!("a second owner: {other:?}"),
        }
        mail.stop().await;
        let mail = Node::start(mail_settings).await.expect("the first one left");
        let domains = mail.admin().run(AdminRequest::DomainList, &|_, _, _| {}).await.expect("the domains");
        assert!(domains.to_string().contains("x.test"), "{domains}");
        mail.stop().await;
        data.stop().await;
    }
}
