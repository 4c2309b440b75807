//! A DNS server on loopback that answers for the zones of a test: `posthouse` asks it instead of the system's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_server::Server;
use hickory_server::proto::rr::rdata::{A, MX, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

/// The zone that a test describes: everything below `.test`, so that unknown names there do not exist.
pub struct Zone {
    records: Vec<(Name, RData)>,
}

impl Zone {
    pub fn new() -> Self {
        Self { records: Vec::new() }
    }

    pub fn mx(mut self, domain: &str, preference: u16, host: &str) -> Self {
        self.records.push((name(domain), RData::MX(MX::new(preference, name(host)))));
        self
    }

    pub fn a(mut self, host: &str, address: [u8; 4]) -> Self {
        self.records.push((name(host), RData::A(A(Ipv4Addr::from(address)))));
        self
    }

    /// A text record in pieces of at most 255 octets.
    pub fn txt(mut self, owner: &str, text: &str) -> Self {
        let pieces = text.as_bytes().chunks(255).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
        self.records.push((name(owner), RData::TXT(TXT::new(pieces))));
        self
    }

    /// Starts to answer.
    pub fn serve(self) -> Dns {
        let origin = name("test");
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 60, 60, 60, 60);
        let mut handler: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny, None);
        for (owner, data) in std::iter::once((origin.clone(), RData::SOA(soa))).chain(self.records) {
            assert!(handler.upsert_mut(Record::from_rdata(owner, 60, data), 1), "a record of the zone");
        }
        let mut catalog = Catalog::new();
        catalog.upsert(origin.into(), vec![Arc::new(handler)]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the DNS server");
        let (server, address) = runtime.block_on(async {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = socket.local_addr().expect("an address");
            let mut server = Server::new(catalog);
            server.register_socket(socket);
            (server, address)
        });
        Dns { address, _server: server, _runtime: runtime }
    }
}

/// A running DNS server; it ends when it is dropped.
pub struct Dns {
    address: SocketAddr,
    _server: Server<Catalog>,
    _runtime: Runtime,
}

impl Dns {
    /// As `resolver.servers` takes it.
    pub fn server(&self) -> String {
        self.address.to_string()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).expect("a domain name")
}
