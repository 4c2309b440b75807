//! A DNS server on loopback that says what a test wants to hear: records in any shape, or nothing at all.
//!
//! Beside `dns.rs`, which serves well-formed zones to the built program: unit tests of policy need answers that no sane
//! server gives, such as silence for one type of record. It stands here since only tests may open sockets of their own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

/// What to answer, by name in lower case without the final dot.
#[derive(Debug, Default)]
pub struct Script {
    records: HashMap<String, Vec<RData>>,
    /// Names without an answer for any type that has no record.
    silent: Vec<String>,
}

impl Script {
    pub fn txt(mut self, owner: &str, strings: &[&[u8]]) -> Self {
        let mut pieces: Vec<&[u8]> = strings.iter().flat_map(|string| string.chunks(255)).collect();
        if pieces.is_empty() {
            pieces.push(b"");
        }
        self.push(owner, RData::TXT(TXT::from_bytes(pieces)));
        self
    }

    pub fn address(mut self, owner: &str, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.push(owner, RData::A(A(v4))),
            IpAddr::V6(v6) => self.push(owner, RData::AAAA(AAAA(v6))),
        }
        self
    }

    pub fn mx(mut self, owner: &str, preference: u16, host: &str) -> Self {
        self.push(owner, RData::MX(MX::new(preference, name(host))));
        self
    }

    pub fn ptr(mut self, owner: &str, host: &str) -> Self {
        self.push(owner, RData::PTR(PTR(name(host))));
        self
    }

    pub fn cname(mut self, owner: &str, target: &str) -> Self {
        self.push(owner, RData::CNAME(CNAME(name(target))));
        self
    }

    pub fn silent(mut self, owner: &str) -> Self {
        self.silent.push(key(owner));
        self
    }

    fn push(&mut self, owner: &str, data: RData) {
        self.records.entry(key(owner)).or_default().push(data);
    }

    /// Starts to answer.
    pub fn serve(self) -> NameServer {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket takes a timeout");
        let address = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer)
                    && let Some(answer) =
                        Message::from_vec(&buffer[..length]).ok().and_then(|query| self.answer(&query))
                {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        NameServer { address, stop, thread: Some(thread) }
    }

    fn answer(&self, query: &Message) -> Option<Vec<u8>> {
        let question = query.queries.first()?;
        let owner = key(&text(question.name()));
        let known = self.records.get(&owner);
        let answers: Vec<Record> = known
            .into_iter()
            .flatten()
            .filter(|data| data.record_type() == question.query_type() || data.record_type() == RecordType::CNAME)
            .map(|data| Record::from_rdata(question.name().clone(), 60, data.clone()))
            .collect();
        if answers.is_empty() && self.silent.contains(&owner) {
            return None;
        }
        let mut response = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
        response.metadata.recursion_available = true;
        if known.is_none() && !self.has_below(&owner) {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        response.add_query(question.clone());
        response.add_answers(answers);
        response.to_vec().ok()
    }

    fn has_below(&self, owner: &str) -> bool {
        self.records.keys().any(|key| key.strip_suffix(owner).is_some_and(|rest| rest.ends_with('.')))
    }
}

/// A running server; it ends when it is dropped.
pub struct NameServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// As `resolver.servers` takes it.
    pub fn server(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The octets of a name as they are, without escapes.
fn text(name: &Name) -> String {
    name.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect::<Vec<_>>().join(".")
}

fn key(owner: &str) -> String {
    owner.trim_end_matches('.').to_ascii_lowercase()
}

/// What cannot be written as a name becomes the root.
fn name(text: &str) -> Name {
    Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap_or_else(|_| Name::root())
}
