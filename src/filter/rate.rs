//! Who may connect, log in, send: limits by address, neighbourhood and account, decided at once from memory.
//!
//! Apart from the other stages because it runs before a byte is read and may never wait for store or network. Counting is
//! local to the node. What it remembers is bounded: see `rate/store.rs` for the rates, `rate/count.rs` for connections.

mod count;
mod store;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use posthouse_conf::{Limits, Submission};
use posthouse_mail::AccountId;
use posthouse_net::{Prefix, PrefixSet};

pub use count::ConnectionGuard;
use count::Connections;
use store::{Key, Limiter};

/// Why a client is turned away. Each passes with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node holds as many connections as it may.
    Connections,
    /// One address holds as many as it may.
    ConnectionsPerAddress,
    /// One neighbourhood holds as many as it may.
    ConnectionsPerPrefix,
    /// One address connects too often.
    ConnectRate,
    /// One address sends too many messages.
    MessageRate,
    /// Too many wrong passwords from one address.
    FailedLoginsPerAddress,
    /// Too many wrong passwords for one account.
    FailedLoginsPerAccount,
    /// One account submits too many messages.
    SubmissionRate,
}

impl Refusal {
    /// A word for metrics and log lines.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::ConnectionsPerPrefix => "connections_per_prefix",
            Self::ConnectRate => "connect_rate",
            Self::MessageRate => "message_rate",
            Self::FailedLoginsPerAddress => "failed_logins_per_address",
            Self::FailedLoginsPerAccount => "failed_logins_per_account",
            Self::SubmissionRate => "submission_rate",
        }
    }

    /// What the client hears, whatever its protocol.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connections => "too many connections, try again later",
            Self::ConnectionsPerAddress | Self::ConnectionsPerPrefix => "too many connections from your network",
            Self::ConnectRate => "too many connections in a short time, try again later",
            Self::MessageRate | Self::SubmissionRate => "too many messages in a short time, try again later",
            Self::FailedLoginsPerAddress | Self::FailedLoginsPerAccount => "too many failed logins, try again later",
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// All limits of a node. Shared by every listener and session behind an `Arc`.
#[derive(Debug)]
pub struct Admission<C: Clock = DefaultClock> {
    exempt: PrefixSet,
    connections: Arc<Connections>,
    connects: Limiter<C>,
    messages: Limiter<C>,
    failures_by_address: Limiter<C>,
    failures_by_account: Limiter<C>,
    submissions: Limiter<C>,
    /// Login names are remembered as keyed hashes: bounded in size, and unknown to whoever picks the names.
    names: RandomState,
}

impl Admission {
    pub fn new(limits: &Limits, submission: &Submission) -> Self {
        Self::with_clock(limits, submission, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Admission<C> {
    fn with_clock(limits: &Limits, submission: &Submission, clock: C) -> Self {
        let limiter = |count: u32, per: Duration| Limiter::new(count, per, limits.keys_max, clock.clone());
        Self {
            exempt: PrefixSet::parse(&limits.exempt),
            connections: Arc::new(Connections::new(limits)),
            connects: limiter(limits.connects_per_minute_max, MINUTE),
            messages: limiter(limits.messages_per_minute_max, MINUTE),
            failures_by_address: limiter(limits.failed_logins_per_hour_max, HOUR),
            failures_by_account: limiter(limits.failed_logins_per_account_per_hour_max, HOUR),
            submissions: limiter(submission.messages_per_hour_max, HOUR),
            names: RandomState::new(),
        }
    }

    /// A new connection: its rate, then its place among those open. The guard gives the place back when dropped.
    pub fn connect(&self, client: IpAddr) -> Result<ConnectionGuard, Refusal> {
        if self.exempt.contains(client) {
            return Ok(self.connections.enter_exempt());
        }
        // The rate first, so that a client at its connection limit still pays for each try.
        if !self.connects.take(address_key(client)) {
            return Err(Refusal::ConnectRate);
        }
        self.connections.enter(client)
    }

    /// A connection that came from another process, where it was admitted: counted, never refused.
    pub fn readmit(&self, client: IpAddr) -> ConnectionGuard {
        if self.exempt.contains(client) {
            self.connections.enter_exempt()
        } else {
            self.connections.enter_moved(client)
        }
    }

    /// Whether `limits.exempt` names the client.
    pub fn is_exempt(&self, client: IpAddr) -> bool {
        self.exempt.contains(client)
    }

    /// One message from a client without a login.
    pub fn message(&self, client: IpAddr) -> Result<(), Refusal> {
        let allowed = self.exempt.contains(client) || self.messages.take(address_key(client));
        if allowed { Ok(()) } else { Err(Refusal::MessageRate) }
    }

    /// One message submitted by an account, from wherever.
    pub fn submission(&self, account: AccountId) -> Result<(), Refusal> {
        if self.submissions.take(Key::Account(account.get())) { Ok(()) } else { Err(Refusal::SubmissionRate) }
    }

    /// Whether a login may be tried; counts nothing. `name` is what the client claims, known to us or not, so that the
    /// answer tells nothing of which accounts exist.
    pub fn login(&self, client: IpAddr, name: &str) -> Result<(), Refusal> {
        if self.exempt.contains(client) {
            return Ok(());
        }
        if !self.failures_by_address.has_room(address_key(client)) {
            return Err(Refusal::FailedLoginsPerAddress);
        }
        if !self.failures_by_account.has_room(self.name_key(name)) {
            return Err(Refusal::FailedLoginsPerAccount);
        }
        Ok(())
    }

    /// Counts a wrong password.
    pub fn login_failed(&self, client: IpAddr, name: &str) {
        if !self.exempt.contains(client) {
            self.failures_by_address.take(address_key(client));
            self.failures_by_account.take(self.name_key(name));
        }
    }

    /// Forgets whoever is back at full allowance; to be called every `limits.sweep_interval`.
    pub fn sweep(&self) {
        let limiters = [&self.connects, &self.messages, &self.failures_by_address, &self.failures_by_account];
        limiters.into_iter().for_each(Limiter::sweep);
        self.submissions.sweep();
    }

    /// Connections open now, exempt ones included.
    pub fn connections_open(&self) -> usize {
        self.connections.open()
    }

    fn name_key(&self, name: &str) -> Key {
        Key::Account(self.names.hash_one(name.to_lowercase()))
    }
}

fn address_key(client: IpAddr) -> Key {
    Key::Network(Prefix::client(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn admission(change: impl FnOnce(&mut Limits)) -> (Admission<FakeRelativeClock>, FakeRelativeClock) {
        let mut limits = Limits::default();
        change(&mut limits);
        let clock = FakeRelativeClock::default();
        let submission = Submission { messages_per_hour_max: 2, ..Default::default() };
        (Admission::with_clock(&limits, &submission, clock.clone()), clock)
    }

    #[test]
    fn connections_are_limited_by_address_prefix_and_in_all() {
        let (admission, _) = admission(|limits| {
            limits.connections_max = 5;
            limits.connections_per_ip_max = 2;
            limits.connections_per_prefix_max = 3;
        });
        let enter = |text: &str| admission.connect(ip(text));
        let first = enter("192.0.2.1").expect("room");
        let _second = enter("192.0.2.1").expect("room");
        assert_eq!(enter("192.0.2.1").err(), Some(Refusal::ConnectionsPerAddress));
        let _third = enter("192.0.2.2").expect("room");
        assert_eq!(enter("192.0.2.3").err(), Some(Refusal::ConnectionsPerPrefix));
        let _v6 = enter("2001:db8::1").expect("room");
        let _v6_of_the_same_client = enter("2001:db8::2").expect("room");
        assert_eq!(enter("198.51.100.1").err(), Some(Refusal::Connections));
        drop(first);
        let _fourth = enter("192.0.2.3").expect("the place of the first");
        assert_eq!(admission.connections_open(), 5);
    }

    #[test]
    fn a_moved_connection_is_counted_and_never_refused() {
        let (admission, _) = admission(|limits| {
            limits.connections_per_ip_max = 1;
            limits.connects_per_minute_max = 1;
        });
        let moved: Vec<_> = (0..3).map(|_| admission.readmit(ip("192.0.2.1"))).collect();
        assert_eq!(admission.connections_open(), 3);
        assert_eq!(admission.connect(ip("192.0.2.1")).err(), Some(Refusal::ConnectionsPerAddress));
        drop(moved);
        assert_eq!(admission.connections_open(), 0);
    }

    #[test]
    fn a_connect_rate_refills_over_the_minute() {
        let (admission, clock) = admission(|limits| limits.connects_per_minute_max = 2);
        let connects = || admission.connect(ip("192.0.2.1")).map(drop);
        assert_eq!((connects(), connects()), (Ok(()), Ok(())));
        assert_eq!(connects(), Err(Refusal::ConnectRate));
        clock.advance(Duration::from_secs(30));
        assert_eq!(connects(), Ok(()));
        assert_eq!(connects(), Err(Refusal::ConnectRate));
    }

    #[test]
    fn failed_logins_close_the_address_and_the_account_and_right_ones_cost_nothing() {
        let (admission, clock) = admission(|limits| {
            limits.failed_logins_per_hour_max = 2;
            limits.failed_logins_per_account_per_hour_max = 3;
        });
        for _ in 0..10 {
            assert_eq!(admission.login(ip("192.0.2.1"), "alice@demo.test"), Ok(()));
        }
        admission.login_failed(ip("192.0.2.1"), "alice@demo.test");
        admission.login_failed(ip("192.0.2.1"), "alice@demo.test");
        assert_eq!(admission.login(ip("192.0.2.1"), "bob@demo.test"), Err(Refusal::FailedLoginsPerAddress));
        assert_eq!(admission.login(ip("192.0.2.2"), "ALICE@demo.test"), Ok(()));
        admission.login_failed(ip("192.0.2.2"), "ALICE@demo.test");
        assert_eq!(admission.login(ip("192.0.2.3"), "alice@demo.test"), Err(Refusal::FailedLoginsPerAccount));
        assert_eq!(admission.login(ip("192.0.2.3"), "bob@demo.test"), Ok(()));
        clock.advance(HOUR);
        assert_eq!(admission.login(ip("192.0.2.1"), "alice@demo.test"), Ok(()));
    }

    #[test]
    fn messages_count_by_address_and_submissions_by_account() {
        let (admission, _) = admission(|limits| limits.messages_per_minute_max = 1);
        assert_eq!(admission.message(ip("192.0.2.1")), Ok(()));
        assert_eq!(admission.message(ip("192.0.2.1")), Err(Refusal::MessageRate));
        assert_eq!(admission.message(ip("192.0.2.2")), Ok(()));
        let (alice, bob) = (AccountId::new(1), AccountId::new(2));
        assert_eq!((admission.submission(alice), admission.submission(alice)), (Ok(()), Ok(())));
        assert_eq!(admission.submission(alice), Err(Refusal::SubmissionRate));
        assert_eq!(admission.submission(bob), Ok(()));
    }

    #[test]
    fn exempt_clients_meet_no_limit() {
        let (admission, _) = admission(|limits| {
            limits.exempt = vec!["127.0.0.0/8".to_owned(), "::1".to_owned()];
            limits.connections_max = 0;
            limits.connects_per_minute_max = 1;
            limits.messages_per_minute_max = 1;
            limits.failed_logins_per_hour_max = 1;
        });
        let client = ip("::ffff:127.0.0.1");
        let _guards: Vec<_> = (0..5).map(|_| admission.connect(client).expect("exempt")).collect();
        for _ in 0..5 {
            admission.login_failed(client, "alice@demo.test");
            assert_eq!((admission.message(client), admission.login(client, "alice@demo.test")), (Ok(()), Ok(())));
        }
        assert_eq!(admission.connections_open(), 5);
        assert_eq!(admission.connect(ip("192.0.2.1")).err(), Some(Refusal::Connections));
    }
}
