//! A session that sleeps, or is on its way from one process to another: a value of a few hundred octets, and its socket.
//!
//! Apart because all protocols share the rules: one octet of version, then a prost message, so that fields can be added
//! while states of the version before stay readable; every count, length and number is checked before it is believed; and
//! a time is what is left of it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use posthouse_filter::rate::{Admission, ConnectionGuard};
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{AccountId, BlobId, ModSeq};
use posthouse_net::{Error as NetError, FrozenStream, LineStream};
use posthouse_obs::emit;
use posthouse_obs::event::session::SessionMovedOut;
use posthouse_storage::message::Octets;
use prost::Message as _;
use ractor::SpawnErr;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::call::{FAREWELL, Present};
use super::{Calls, Home, Presence, Protocol, imap, pop3, smtp};

/// A session that has stopped at a safe point. Dropped, it closes its socket without a word.
pub struct Parked {
    /// It sleeps in this process; otherwise it leaves for another one.
    pub rest: Option<Rest>,
    pub protocol: Protocol,
    /// What the session knows.
    pub state: Vec<u8>,
    /// What its stream has read, decrypted or encrypted ahead.
    pub stream: FrozenStream,
    pub socket: OwnedFd,
}

/// What a session that sleeps needs beside its state: what wakes it, and where it goes on being counted.
pub struct Rest {
    /// When it has something to do by itself.
    pub until: Instant,
    /// The account whose changes wake it, and what tells of those since the session last looked.
    pub watch: Option<(AccountId, watch::Receiver<Option<ModSeq>>)>,
    /// A socket whose client has reset the connection does not know it any more.
    pub peer: SocketAddr,
    pub place: Option<ConnectionGuard>,
    pub presence: Presence,
}

/// A parked session in one piece of memory and a socket. Dropped, it closes its socket without a word.
pub(crate) struct Packed {
    pub protocol: Protocol,
    /// The length of the stream's part, the stream, the session's state.
    pub octets: Zeroizing<Vec<u8>>,
    pub socket: OwnedFd,
}

/// Octets that tell how long the stream's part is.
const LENGTH: usize = 4;

impl Packed {
    /// A stream whose state is too long for its length to be told is none that a session has.
    pub fn of(parked: Parked) -> Self {
        let stream = parked.stream.encode();
        let length = u32::try_from(stream.len()).unwrap_or(u32::MAX);
        let mut octets = Zeroizing::new(Vec::with_capacity(LENGTH + stream.len() + parked.state.len()));
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&stream);
        octets.extend_from_slice(&parked.state);
        Self { protocol: parked.protocol, octets, socket: parked.socket }
    }

    pub fn unpack(self) -> Result<Parked, ResumeError> {
        let (length, rest) = self.octets.split_first_chunk::<LENGTH>().ok_or(ResumeError::Damaged("its length"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (stream, state) = rest.split_at_checked(length).ok_or(ResumeError::Damaged("its length"))?;
        let stream = FrozenStream::decode(stream)?;
        Ok(Parked { protocol: self.protocol, state: state.to_vec(), stream, socket: self.socket, rest: None })
    }
}

impl Parked {
    /// Takes a session's stream, with nothing under way on it, out of this process; `rest`, told the peer's address, is what
    /// the session needs where it only sleeps.
    pub(super) fn new(
        protocol: Protocol,
        (stream, state): (LineStream, Vec<u8>),
        rest: impl FnOnce(SocketAddr) -> Option<Rest>,
    ) -> Result<Self, NetError> {
        let transport = stream.transport();
        let (peer, client) = (transport.peer_addr(), transport.peer_ip());
        let (socket, stream) = stream.freeze()?;
        let rest = rest(peer);
        if rest.is_none() {
            emit(SessionMovedOut { protocol: protocol.as_str(), client });
        }
        Ok(Self { rest, protocol, state, stream, socket })
    }

    /// The stream and the state again, for a session of this protocol that reads so many octets ahead.
    pub(super) fn open<S: prost::Message + Default>(
        self,
        protocol: Protocol,
        input_max: usize,
    ) -> Result<(LineStream, S, Option<Rest>), ResumeError> {
        if self.protocol != protocol {
            return Err(ResumeError::Protocol(self.protocol.as_str()));
        }
        let state = decode(&self.state)?;
        let mut stream = LineStream::thaw(self.socket, self.stream, self.rest.as_ref().map(|rest| rest.peer))?;
        stream.set_input_max(input_max);
        Ok((stream, state, self.rest))
    }

    /// Bids goodbye in the protocol's words to a session that goes on nowhere, where its client would understand them: not in the
    /// middle of a long answer, nor before TLS where that comes first.
    pub async fn say_goodbye(self, hostname: &str) -> Result<(), ResumeError> {
        let Self { rest, protocol, state, stream, socket } = self;
        let words = match protocol {
            Protocol::Smtp | Protocol::Submission | Protocol::Submissions => {
                smtp::parked::last_words(&state, hostname)?
            }
            Protocol::Imap | Protocol::Imaps => imap::parked::last_words(&state)?,
            Protocol::Pop3 | Protocol::Pop3s => pop3::parked::last_words(&state)?,
        };
        let is_understood = stream.is_tls() || !protocol.is_implicit_tls();
        if let Some(mut words) = words.filter(|_| is_understood) {
            let mut stream = LineStream::thaw(socket, stream, rest.map(|rest| rest.peer))?;
            stream.send(&mut words, FAREWELL).await?;
            stream.close(FAREWELL).await;
        }
        Ok(())
    }
}

/// The place of a connection: the one that it had while its session slept, or a new one.
pub(super) fn place(rest: Option<Rest>, admission: &Admission, client: IpAddr) -> ConnectionGuard {
    rest.and_then(|rest| rest.place).unwrap_or_else(|| admission.readmit(client))
}

/// What happens to a session's state while it sleeps; every protocol's state has these two fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Slept {
    /// How long it slept: of every time in the state so much less is left.
    #[prost(uint64, tag = "15")]
    slept_ms: u64,
    /// Something else than its client woke it.
    #[prost(bool, tag = "16")]
    drowsy: bool,
}

impl Parked {
    /// Notes how long the session slept, once, and whether it sleeps on when it has nothing to do.
    pub(crate) fn note_sleep(&mut self, slept: Duration, drowsy: bool) {
        // Rounded up: whoever is woken at a deadline finds that it has passed.
        let slept_ms = u64::try_from(slept.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        // Fields of a message may stand in any order: what was written before stays as it is.
        self.state.extend(Slept { slept_ms, drowsy }.encode_to_vec());
    }
}

/// A parked session that was read and found sound, and is not yet started. Dropped, it closes its socket without a word.
pub struct Resumed {
    start: Box<dyn FnOnce(Home) -> Starting + Send>,
    /// Counts it while it waits to be started.
    waiting: Option<Present>,
}

type Starting = BoxFuture<'static, Result<(), SpawnErr>>;

impl Resumed {
    pub(super) fn new(start: impl FnOnce(Home) -> Starting + Send + 'static) -> Self {
        Self { start: Box::new(start), waiting: None }
    }

    /// Counts it among the sessions of its node from now on, however long it waits to be started.
    pub(crate) fn counted(self, calls: &Calls) -> Self {
        Self { waiting: Some(calls.present()), ..self }
    }

    /// Starts the session's actor at its listener.
    pub async fn start(self, home: Home) -> Result<(), SpawnErr> {
        // Counted twice for a moment, so that it never was not.
        let Self { start, waiting: _waiting } = self;
        start(home).await
    }
}

/// Why a parked session cannot go on here.
#[derive(Debug, Error)]
pub enum ResumeError {
    #[error("the state of a session has version {0}, which this program cannot read")]
    Version(u8),
    #[error("the state of a session is damaged: {0}")]
    Damaged(&'static str),
    #[error("a bug: its state brings the program down")]
    Bug,
    #[error("sessions of {0} are not served here")]
    Protocol(&'static str),
    /// `Closed`: the client has gone in the meantime.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// The version that is written. Each one back to the first is read.
pub(crate) const VERSION: u8 = 1;
/// Octets of a state: more than the bounds of what stands in one allow.
const STATE_MAX: usize = 8 << 20;
/// Answers that wait for a client which does not read: a session with more of them stays until it has less.
pub(super) const UNSENT_MAX: usize = 2 << 20;
/// Longer times than this stand in no state.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Added header fields of one message.
const PREFIX_MAX: usize = 2 << 20;

/// The state as octets.
pub(super) fn encode(message: &impl prost::Message) -> Vec<u8> {
    let mut octets = vec![VERSION];
    octets.append(&mut message.encode_to_vec());
    octets
}

pub(super) fn decode<M: prost::Message + Default>(octets: &[u8]) -> Result<M, ResumeError> {
    match octets.split_first() {
        _ if octets.len() > STATE_MAX => Err(ResumeError::Damaged("its length")),
        Some((&VERSION, message)) => M::decode(message).map_err(|_| ResumeError::Damaged("its encoding")),
        Some((version, _)) => Err(ResumeError::Version(*version)),
        None => Err(ResumeError::Damaged("its length")),
    }
}

/// What is left of a time, in milliseconds.
pub(super) fn left(until: Instant) -> u64 {
    let left = until.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// The end of a time of which so many milliseconds were left, before the session slept so many.
pub(super) fn until(left: u64, slept: u64) -> Instant {
    Instant::now() + Duration::from_millis(left.saturating_sub(slept)).min(TIME_MAX)
}

/// A check of something decoded.
pub(super) fn ensure(sound: bool, what: &'static str) -> Result<(), ResumeError> {
    if sound { Ok(()) } else { Err(ResumeError::Damaged(what)) }
}

pub(super) fn damaged(what: &'static str) -> ResumeError {
    ResumeError::Damaged(what)
}

/// Ascending numbers as the gaps between them, which are small.
pub(super) fn gaps(ascending: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut last = 0;
    ascending.into_iter().map(|number| number.saturating_sub(std::mem::replace(&mut last, number))).collect()
}

/// The numbers again: none is zero, and each is larger than the one before.
pub(super) fn of_gaps(gaps: &[u32], what: &'static str) -> Result<Vec<u32>, ResumeError> {
    let mut last = 0_u32;
    let next = |gap: &u32| {
        last = last.checked_add(*gap).filter(|_| *gap > 0)?;
        Some(last)
    };
    gaps.iter().map(next).collect::<Option<_>>().ok_or(ResumeError::Damaged(what))
}

/// What the octets of a message are read by.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OctetsState {
    #[prost(bytes = "bytes", tag = "1")]
    prefix: Bytes,
    #[prost(bytes = "vec", tag = "2")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "3")]
    body_size: u64,
}

impl OctetsState {
    pub(super) fn new(octets: &Octets) -> Self {
        let body = octets.body;
        Self { prefix: octets.prefix.clone(), blob: body.blob.as_bytes().to_vec(), body_size: body.size }
    }

    pub(super) fn read(self) -> Result<Octets, ResumeError> {
        ensure(self.prefix.len() <= PREFIX_MAX, "added header fields")?;
        let blob: [u8; 32] = self.blob.try_into().map_err(|_| damaged("a blob's id"))?;
        ensure(self.body_size <= i64::MAX.unsigned_abs(), "a body's size")?;
        Ok(Octets { prefix: self.prefix, body: BodyRef { blob: BlobId::new(blob), size: self.body_size } })
    }
}

#[cfg(test)]
pub(super) mod fixture {
    //! What the tests of every protocol's states share.

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    /// States as this version writes them, compared with those of its golden file, which stays as it is for ever: every
    /// later program reads what stands there. POSTHOUSE_BLESS=1 writes the file of a version that no release has written.
    pub fn check_golden(protocol: &str, samples: &[Vec<u8>]) {
        let path = format!("{}/session/golden/{protocol}.{}.hex", env!("CARGO_MANIFEST_DIR"), super::VERSION);
        let hex = |octets: &Vec<u8>| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>() + "\n";
        let written: String = samples.iter().map(hex).collect();
        if std::env::var_os("POSTHOUSE_BLESS").is_some() {
            std::fs::write(&path, &written).expect("a golden file");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("a golden file"), written, "{path}");
    }

    /// The golden states of a version.
    pub fn golden(protocol: &str, version: u8) -> Vec<Vec<u8>> {
        let path = format!("{}/session/golden/{protocol}.{version}.hex", env!("CARGO_MANIFEST_DIR"));
        let octet = |text: &str, at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        let state = |line: &str| (0..line.len()).step_by(2).map(|at| octet(line, at)).collect();
        std::fs::read_to_string(&path).expect("a golden file").lines().map(state).collect()
    }

    /// Cuts, changes and invents states. `read` must not panic; that it says no to most is all that is asked.
    pub fn check_damage(sound: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
        for state in sound {
            assert!(read(state));
            (0..state.len()).for_each(|end| {
                read(&state[..end]);
            });
        }
        let altered = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
        let which = any::<prop::sample::Index>();
        let altered = (which, altered).prop_map(|(which, changes)| {
            let mut state = which.get(sound).clone();
            changes.iter().for_each(|(at, octet)| *at.get_mut(&mut state) = *octet);
            state
        });
        let invented = prop::collection::vec(any::<u8>(), 0..200).prop_map(|mut state| {
            state.insert(0, super::VERSION);
            state
        });
        let mut runner = TestRunner::new(ProptestConfig { cases: 2000, ..ProptestConfig::default() });
        let outcome = runner.run(&prop_oneof![altered, invented], |state| {
            read(&state);
            Ok(())
        });
        outcome.expect("no panic");
    }
}
