//! Rows of the nodes and of what they agree on.

use crate::codec::Record;

/// The format of records that every node reads, and that therefore may be written.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GateRow {
    #[prost(uint32, tag = "1")]
    pub level: u32,
    /// Node rows, so that a lost one is seen.
    #[prost(uint32, tag = "2")]
    pub node_count: u32,
}

impl Record for GateRow {}

/// A node that runs, or did until it was killed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeRow {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Formats that it reads, from
    #[prost(uint32, tag = "2")]
    pub format_min: u32,
    /// up to.
    #[prost(uint32, tag = "3")]
    pub format_max: u32,
    #[prost(uint64, tag = "4")]
    pub started_at: u64,
    /// Rises with every renewal. Who sees it stand still for long takes the node for dead; no clock is compared.
    #[prost(uint64, tag = "5")]
    pub heartbeat: u64,
}

impl Record for NodeRow {}

/// The keys of TLS session tickets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TicketKeysRow {
    /// The newest first.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<TicketKeyRow>,
}

impl Record for TicketKeysRow {}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct TicketKeyRow {
    #[prost(uint64, tag = "1")]
    pub made_at: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub octets: Vec<u8>,
}

/// Keys are never shown.
impl std::fmt::Debug for TicketKeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeyRow(made at {})", self.made_at)
    }
}
