//! A store on two nodes: the built program as the data node that serves it, and what its client needs, over mutual TLS on loopback.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use posthouse_conf::storage::{Engine, Served};
use posthouse_conf::{Span, Storage};
use posthouse_net::certificate::{CA_FILE, CERTIFICATE_FILE, Files, PRIVATE_KEY_FILE, issue_node};
use posthouse_net::{TlsConnector, connect};
use posthouse_storage::{Connector, Store, Stream};

use crate::scenario::store_load;
use crate::server::{Server, start};

/// The name in both certificates.
const NAME: &str = "localhost";
/// How long a killed owner's successor waits. Nothing else owns the store meanwhile, so that it may be short.
const LEASE: Duration = Duration::from_millis(600);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The folder of both nodes, and the address between them.
pub struct Site {
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Site {
    /// Makes the certificates and the data node's configuration.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let names = [NAME.to_owned()];
        let pair = issue_node(&folder.join("authority"), &folder.join("store-pair"), &names)?;
        issue_node(&folder.join("authority"), &folder.join("mail-pair"), &names)?;
        let address = free_address().context("no free port")?;
        let site = Self { folder: folder.to_owned(), address };
        fs::write(site.configuration(), data_node(folder, address, &pair))?;
        Ok(site)
    }

    /// Where the store lies.
    pub fn store(&self) -> PathBuf {
        self.folder.join("data").join("store")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("data-node.toml")
    }

    /// Starts the data node and waits until it serves.
    pub fn serve(&self, program: &Path) -> anyhow::Result<Server> {
        let configuration = self.configuration().to_string_lossy().into_owned();
        let mut server =
            start(program, &["serve", "--config", &configuration], &[], &self.folder.join("data-node.log"))?;
        server.wait_ready().with_context(|| self.last_words())?;
        Ok(server)
    }

    /// What the data node said last.
    pub fn last_words(&self) -> String {
        let said = fs::read_to_string(self.folder.join("data-node.log")).unwrap_or_default();
        let last: Vec<_> = said.lines().rev().take(5).collect();
        format!("the data node's last lines, the newest first: {last:#?}")
    }

    /// Opens the store as the data node's client, and becomes its owner.
    pub async fn connect(&self) -> anyhow::Result<Store> {
        Ok(connect_store(&self.folder, self.address).await?)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// As `Site::connect`, for a process of its own.
pub async fn connect_store(folder: &Path, server: SocketAddr) -> Result<Store, posthouse_storage::Error> {
    posthouse_net::tls::install_provider();
    let pair = folder.join("mail-pair");
    let files = Files {
        ca: pair.join(CA_FILE),
        certificate: pair.join(CERTIFICATE_FILE),
        private_key: pair.join(PRIVATE_KEY_FILE),
    };
    let tls = TlsConnector::mutual(&files);
    let tls = tls.map_err(|error| posthouse_storage::Error::Unavailable(error.to_string()))?;
    let settings = Storage {
        engine: Engine::Served,
        served: Served { server: server.to_string(), ..Served::default() },
        key_file: folder.join("data/store/storage.keys"),
        owner_lease: Span::ms(LEASE.as_millis().try_into().unwrap_or(u64::MAX)),
        ..store_load::settings()
    };
    Store::connect(Box::new(Link { server, tls }), &folder.join("mail"), &settings).await
}

struct Link {
    server: SocketAddr,
    tls: TlsConnector,
}

impl Connector for Link {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + '_>> {
        Box::pin(async {
            let plain = connect(self.server, CONNECT_MAX).await.map_err(io::Error::other)?;
            let transport = self.tls.connect(plain, NAME, CONNECT_MAX).await.map_err(io::Error::other)?;
            Ok(Box::new(transport) as Box<dyn Stream>)
        })
    }
}

/// Small segments and a small journal, as the load's own, and a look at dead segments every second.
fn data_node(folder: &Path, address: SocketAddr, pair: &Files) -> String {
    let Files { ca, certificate, private_key } = pair;
    let data = folder.join("data");
    format!(
        "[node]\nhostname = \"store.test\"\ndata_dir = {data:?}\n\n\
         [storage]\nsegment_max = \"2MiB\"\njournal_max = \"256KiB\"\ncheckpoint_interval = \"300ms\"\n\
         sweep_interval = \"1s\"\nbackground_rate = \"1GiB\"\n\n\
         [storage.serve]\nlisten = [\"{address}\"]\ndedicated = true\nca = {ca:?}\ncertificate = {certificate:?}\n\
         private_key = {private_key:?}\n\n[listen]\nmetrics = []\n"
    )
}

/// An address that nobody has at the moment, below the ports that the system gives to clients: a killed server must find its own
/// free again.
fn free_address() -> Option<SocketAddr> {
    let mut drawn = (0..1000).map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(20_000..32_000))));
    drawn.find(|address| TcpListener::bind(address).is_ok())
}
