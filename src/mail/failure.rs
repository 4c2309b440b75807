//! Whose fault an error is, and whether to try again: the one question that every protocol's answer hangs on.

/// Who must change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client or sender asked for something that cannot be.
    Peer,
    /// This server: overload, a full disk, a bug.
    Ours,
    /// Another system that we asked: DNS, a remote MX.
    Remote,
}

/// What an edge needs to know to choose its answer: a temporary fault never becomes a 5xx, a lasting one never an endless 4xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    pub try_again: bool,
}

impl Failure {
    pub const PEER: Self = Self { fault: Fault::Peer, try_again: false };
    pub const OURS: Self = Self { fault: Fault::Ours, try_again: true };
    pub const REMOTE: Self = Self { fault: Fault::Remote, try_again: true };
}
