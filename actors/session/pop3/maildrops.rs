//! What a POP3 session asks of the node: a login, the lock and the snapshot of an inbox, octets, removal at QUIT.
//!
//! A trait, so that the dialogue can be tested against maildrops that fail; the real ones stand in `stored.rs`.

use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use posthouse_mail::{AccountId, MailboxId, Uid};
use posthouse_storage::lock::Holder;
use posthouse_storage::message::Octets;
use posthouse_wire::pop3::Maildrop;
use posthouse_wire::sasl::Credentials;
use tokio::time::Instant;

use crate::auth::AuthRefusal;

/// Why a maildrop cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Another session holds it (RFC 1939 §4).
    InUse,
    /// A fault of ours that passes.
    Temporary,
}

/// Renewals that fail are tried so often in a whole lease.
const TRIES_IN_A_LEASE: u32 = 20;

/// A locked maildrop.
#[derive(Debug, Clone)]
pub struct Opened {
    pub account: AccountId,
    pub inbox: MailboxId,
    pub holder: Holder,
    lease: Duration,
    held_until: Instant,
    /// Not before: a renewal has failed.
    retry_at: Option<Instant>,
}

impl Opened {
    pub fn new(account: AccountId, inbox: MailboxId, holder: Holder, lease: Duration) -> Self {
        Self { account, inbox, holder, lease, held_until: Instant::now() + lease, retry_at: None }
    }

    /// A maildrop that another process had locked, for so long as is left of its lease. Its lock is to be renewed at once:
    /// whatever happened to it on the way shows before anything is done with the maildrop.
    pub fn resumed(mut self, held_until: Instant) -> Self {
        self.held_until = held_until.min(Instant::now() + self.lease / 2);
        self
    }

    /// The session slept, in the process that holds the lock: that is as sound as if it had been awake.
    pub fn slept(&mut self, held_until: Instant) {
        self.held_until = held_until.min(Instant::now() + self.lease);
    }

    /// The end of the lease, as far as this session knows.
    pub fn held_until(&self) -> Instant {
        self.held_until
    }

    /// When the lock is to be renewed: with half of its time left, and after a failure some time later.
    pub fn renew_at(&self) -> Instant {
        let due = self.held_until.checked_sub(self.lease / 2).unwrap_or(self.held_until);
        // The end of the lease is never slept through.
        self.retry_at.map_or(due, |retry_at| retry_at.max(due).min(self.held_until))
    }

    /// Notes that a renewal failed for now: the half of the lease that is left is enough for ten tries.
    pub fn put_off(&mut self) {
        self.retry_at = Some(Instant::now() + self.lease / TRIES_IN_A_LEASE);
    }

    /// Whether the lock still stands, as far as this session can know.
    pub fn is_held(&self) -> bool {
        Instant::now() < self.held_until
    }

    /// Notes a renewal that was asked for at `asked_at`.
    pub fn renewed(&mut self, asked_at: Instant) {
        self.held_until = asked_at + self.lease;
        self.retry_at = None;
    }
}

pub trait Maildrops: Clone + Send + Sync + 'static {
    fn log_in(
        &self,
        credentials: &Credentials,
        client: IpAddr,
    ) -> impl Future<Output = Result<AccountId, AuthRefusal>> + Send;

    /// Takes the lock and shows what is there.
    fn open(&self, account: AccountId) -> impl Future<Output = Result<(Opened, Maildrop), Trouble>> + Send;

    fn renew(&self, opened: &mut Opened) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Gives the lock back; where that fails, it ends with its lease.
    fn release(&self, opened: &Opened) -> impl Future<Output = ()> + Send;

    fn find(&self, opened: &Opened, uid: Uid) -> impl Future<Output = Result<Option<Octets>, Trouble>> + Send;

    fn read(&self, message: &Octets, range: Range<u64>) -> impl Future<Output = Result<Bytes, Trouble>> + Send;

    /// Removes messages for good; those that are gone already are no failure.
    fn remove(&self, opened: &Opened, uids: Vec<Uid>) -> impl Future<Output = Result<(), Trouble>> + Send;
}
