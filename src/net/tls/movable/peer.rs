//! Both ends of a connection without handshake and sockets, for the tests and the fuzz targets.
//!
//! The other end is the same record layer with the two directions exchanged, so that it can also seal what no client of a
//! good library would send. `drive` takes a script of events out of octets and watches what must hold whatever happens.

use std::collections::VecDeque;

use rustls::{ContentType, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::Facts;
use super::cipher::Refused;
use super::keys::{Keys, material_len};
use super::record::{Flags, OUTPUT_MAX, Records};
use super::state::FrozenTls;
use crate::frozen::{FrozenStream, FrozenTransport, sealed_transport};
use crate::tls::provider;

/// Every suite that is offered, in both versions.
pub(super) fn suites() -> Vec<SupportedCipherSuite> {
    provider().cipher_suites.clone()
}

/// The state of our end right after a handshake, with secrets that repeat `theirs` and `ours`.
pub(super) fn state(suite: SupportedCipherSuite, theirs: u8, ours: u8) -> FrozenTls {
    let keys = |octet| {
        let material = Zeroizing::new(vec![octet; material_len(suite).expect("a suite of ours")]);
        Keys::new(suite, material, 0).unwrap_or_else(|Refused| unreachable!("the length is the suite's"))
    };
    FrozenTls {
        suite,
        rx: keys(theirs),
        tx: keys(ours),
        flags: Flags::default(),
        misuse: 0,
        fragment: Vec::new(),
        plain: Zeroizing::default(),
        input: Vec::new(),
        output: Vec::new(),
        facts: Facts::default(),
    }
}

pub(super) fn records(state: FrozenTls) -> Records {
    let thawed = Records::thaw(state).unwrap_or_else(|Refused| unreachable!("the keys fit the suite"));
    thawed.0
}

/// Our end and the client's.
pub(super) fn pair(suite: SupportedCipherSuite) -> (Records, Records) {
    (records(state(suite, 1, 2)), records(state(suite, 2, 1)))
}

/// Through the octets of a hand-over and back.
pub(super) fn hop(records: Records) -> Records {
    let frozen = FrozenTransport { tls: Some(records.freeze(Facts::default())) };
    let thawed = FrozenTransport::decode(&frozen.encode()).expect("what was encoded decodes");
    self::records(thawed.tls.expect("it is TLS"))
}

/// Decodes anything, bare and under a good seal; what decodes must encode to the same octets and be usable.
pub fn decode(octets: &[u8]) {
    let _ = FrozenStream::decode(octets);
    let _ = FrozenTransport::decode(octets);
    let sealed = sealed_transport(octets);
    let Ok(frozen) = FrozenTransport::decode(&sealed) else { return };
    assert!(*frozen.encode() == *sealed, "two forms of one value");
    let Some(tls) = frozen.tls else { return };
    let mut records = records(tls);
    while matches!(records.open(), Ok(true)) {
        records.consume(records.plain().len());
    }
    records.sent(records.output().len());
    let _ = records.write(b"* OK still here\r\n");
    assert!(records.output().len() <= OUTPUT_MAX);
    records.close();
}

/// Two ends, what is on its way from theirs to ours, and what must come out of it.
struct Play {
    ours: Records,
    theirs: Records,
    wire: Vec<u8>,
    expected: VecDeque<u8>,
    /// Whether theirs has been a good client up to now.
    is_clean: bool,
    has_failed: bool,
}

/// Plays the script in `octets`: the first chooses the suite, then an event and its argument follow one another.
pub fn drive(octets: &[u8]) {
    let Some((first, mut script)) = octets.split_first() else { return };
    let suites = suites();
    let (ours, theirs) = pair(suites[usize::from(*first) % suites.len()]);
    let (wire, expected) = (Vec::new(), VecDeque::new());
    let mut play = Play { ours, theirs, wire, expected, is_clean: true, has_failed: false };
    while let [event, argument, rest @ ..] = script {
        script = play.step(*event, *argument, rest);
        assert!(play.ours.output().len() <= OUTPUT_MAX, "the output has outgrown its bound");
    }
}

impl Play {
    fn step<'a>(&mut self, event: u8, argument: u8, rest: &'a [u8]) -> &'a [u8] {
        let count = usize::from(argument);
        let (piece, after) = rest.split_at(count.min(rest.len()));
        match event % 10 {
            0 => self.send(ContentType::ApplicationData, piece),
            1 => {
                let Some((kind, payload)) = piece.split_first() else { return after };
                self.is_clean = false;
                self.send(ContentType::from(*kind), payload);
            }
            2 => {
                self.wire.extend_from_slice(piece);
                self.is_clean &= piece.is_empty();
            }
            3 => return self.then(rest, |play| play.update_key(argument & 1)),
            4 => return self.then(rest, |play| play.alter(count)),
            5 => return self.then(rest, |play| play.receive(count * 64)),
            6 => return self.then(rest, |play| play.consume(count)),
            7 if self.ours.output().is_empty() => drop(self.ours.write(&vec![argument; count * 256])),
            8 => return self.then(rest, |play| play.hear(count)),
            _ => return self.then(rest, |play| play.turn(argument)),
        }
        after
    }

    fn then<'a>(&mut self, rest: &'a [u8], act: impl FnOnce(&mut Self)) -> &'a [u8] {
        act(self);
        rest
    }

    fn send(&mut self, kind: ContentType, payload: &[u8]) {
        if self.theirs.seal(kind, payload).is_ok() {
            self.take_theirs();
            if kind == ContentType::ApplicationData {
                self.expected.extend(payload);
            }
        }
    }

    fn take_theirs(&mut self) {
        self.wire.extend_from_slice(self.theirs.output());
        self.theirs.sent(self.theirs.output().len());
    }

    fn update_key(&mut self, asks: u8) {
        if self.ours.suite().tls13().is_some() {
            self.send(ContentType::Handshake, &[24, 0, 0, 1, asks]);
            self.theirs.update_sending_key();
        }
    }

    fn alter(&mut self, at: usize) {
        if let Some(octet) = self.wire.get_mut(at) {
            *octet ^= 1 << (at % 8);
            self.is_clean = false;
        }
    }

    /// As the stream does it: opened first, read only when nothing is there to open.
    fn receive(&mut self, count: usize) {
        if !self.ours.plain().is_empty() || self.ours.is_rx_closed() {
            return;
        }
        match self.ours.open() {
            Ok(true) => {}
            Ok(false) => {
                let piece: Vec<u8> = self.wire.drain(..count.min(self.wire.len())).collect();
                let taken = self.ours.receive(&piece);
                self.wire.splice(..0, piece[taken..].iter().copied());
            }
            Err(error) => {
                let is_flood = error.to_string().contains("too many records without data");
                assert!(!self.is_clean || is_flood, "a good client was refused: {error}");
                self.has_failed = true;
            }
        }
    }

    fn consume(&mut self, count: usize) {
        let plain = self.ours.plain();
        let count = count.min(plain.len());
        if self.is_clean {
            assert!(self.expected.drain(..count).eq(plain[..count].iter().copied()), "other data than was sent");
        }
        self.ours.consume(count);
    }

    /// Their end reads what ours has sent, which always opens.
    fn hear(&mut self, count: usize) {
        let count = (count * 256).min(self.ours.output().len());
        let mut octets = self.ours.output()[..count].to_vec();
        self.ours.sent(count);
        while !self.theirs.is_rx_closed() {
            match self.theirs.open() {
                Ok(true) => self.theirs.consume(self.theirs.plain().len()),
                Ok(false) if octets.is_empty() => break,
                Ok(false) => drop(octets.drain(..self.theirs.receive(&octets))),
                Err(error) => {
                    let is_told = self.has_failed && error.to_string().contains("the peer sent a fatal alert");
                    assert!(is_told, "a record of ours was refused: {error}");
                }
            }
        }
        self.take_theirs();
    }

    fn turn(&mut self, argument: u8) {
        match argument % 4 {
            0 => self.ours.close(),
            1 => self.ours.rest(),
            _ => {
                let (state, other) = (self::state(self.ours.suite(), 1, 2), self::state(self.ours.suite(), 2, 1));
                let plain = self.ours.plain().to_vec();
                self.ours = hop(std::mem::replace(&mut self.ours, records(state)));
                self.theirs = hop(std::mem::replace(&mut self.theirs, records(other)));
                assert!(self.ours.plain() == plain, "unread data was lost on the way");
            }
        }
    }
}
