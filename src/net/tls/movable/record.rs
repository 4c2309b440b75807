//! The record layer of one connection, without its socket: octets in, plaintext out, and the other way round.
//!
//! What rustls would do after the handshake is done here, because a rustls connection cannot be taken apart and built again:
//! keys and their updates, size and use limits, alerts, closing. Nothing here waits or allocates beyond its bounds, so that
//! the fuzz targets drive all of it.
//!
//! The input buffer holds plaintext that nobody read yet, then octets from the socket; a record is opened where it lies. At
//! most one opened record waits, and no more is read from the socket until it was taken.

use std::io;
use std::ops::Range;

use bytes::BufMut;
use bytes::buf::Limit;
use rustls::{AlertDescription as Alert, ContentType, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::Facts;
use super::cipher::{Cipher, HEADER, PLAIN_MAX, Refused};
use super::keys::Keys;
use super::state::FrozenTls;

/// Octets of input held: the longest record there is (RFC 5246 §6.2.3).
pub(super) const INPUT_MAX: usize = HEADER + PLAIN_MAX + 2048;
/// Octets that a body may have over its plaintext (RFC 8446 §5.2).
const EXPANSION_TLS13: usize = 256;
/// Plaintext that one write takes: two full records, so that a system call carries a good piece.
const WRITE_MAX: usize = 2 * PLAIN_MAX;
/// Octets of output held: one write, sealed, and the few records that are sent beside data.
pub(super) const OUTPUT_MAX: usize = WRITE_MAX + 1024;
/// Records in a row that carry no data: empty ones, warnings, KeyUpdates. A peer that sends more wants to keep us busy.
pub(super) const MISUSE_MAX: u8 = 32;
/// Sequence numbers kept back for what ends or renews a key: KeyUpdate, warning, alert, close_notify.
const RESERVE: u64 = 4;
/// A whole KeyUpdate: its type, a length of one, and whether an answer is wanted (RFC 8446 §4.6.3).
const KEY_UPDATE: usize = 5;
/// The longest part of one that waits for its rest.
pub(super) const FRAGMENT_MAX: usize = KEY_UPDATE - 1;
const CLIENT_HELLO: u8 = 1;

/// What a connection remembers beside keys and buffers.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    /// The peer said close_notify, or the connection failed.
    pub(super) rx_closed: bool,
    /// We did.
    pub(super) tx_closed: bool,
    /// The peer wants our next data under a new key (RFC 8446 §4.6.3).
    pub(super) key_update_owed: bool,
    /// The peer tried to renegotiate and was told no.
    pub(super) renegotiation_refused: bool,
}

impl Flags {
    pub(super) fn bits(self) -> u8 {
        let marks = [self.rx_closed, self.tx_closed, self.key_update_owed, self.renegotiation_refused];
        marks.iter().enumerate().fold(0, |bits, (index, mark)| bits | u8::from(*mark) << index)
    }

    pub(super) fn of_bits(bits: u8) -> Option<Self> {
        let mark = |index: u8| bits >> index & 1 == 1;
        let [rx_closed, tx_closed, key_update_owed, renegotiation_refused] = [mark(0), mark(1), mark(2), mark(3)];
        (bits < 1 << 4).then_some(Self { rx_closed, tx_closed, key_update_owed, renegotiation_refused })
    }
}

/// Why a connection ends, as the peer is told and as the log is.
struct Fatal(Alert, &'static str);

struct Direction {
    keys: Keys,
    cipher: Cipher,
}

impl Direction {
    fn new(suite: SupportedCipherSuite, mut keys: Keys) -> Result<Self, Refused> {
        let cipher = keys.cipher(suite)?;
        Ok(Self { keys, cipher })
    }

    fn update(&mut self, suite: SupportedCipherSuite) -> Result<(), Refused> {
        self.keys.update(suite)?;
        self.cipher = self.keys.cipher(suite)?;
        Ok(())
    }
}

pub(super) struct Records {
    suite: SupportedCipherSuite,
    is_tls13: bool,
    rx: Direction,
    tx: Direction,
    /// Records that may be sealed under one key.
    limit: u64,
    flags: Flags,
    misuse: u8,
    fragment: Vec<u8>,
    input: Vec<u8>,
    /// Where in `input` unread plaintext lies; before `opened`.
    plain: Range<usize>,
    /// Where in `input` the first record begins that is not opened yet.
    opened: usize,
    output: Vec<u8>,
    /// How much of `output` the socket took.
    sent: usize,
}

impl Records {
    /// Fails where the keys do not fit the suite, which no decoded value can bring about.
    pub(super) fn thaw(frozen: FrozenTls) -> Result<(Self, Facts), Refused> {
        let FrozenTls { suite, rx, tx, flags, misuse, fragment, plain, input: ciphertext, output, facts } = frozen;
        let (is_tls13, limit) = match suite {
            SupportedCipherSuite::Tls13(suite) => (true, suite.common.confidentiality_limit),
            SupportedCipherSuite::Tls12(suite) => (false, suite.common.confidentiality_limit),
        };
        let opened = plain.len();
        let mut input = ciphertext;
        input.splice(..0, plain.iter().copied());
        let (rx, tx) = (Direction::new(suite, rx)?, Direction::new(suite, tx)?);
        let records = Self {
            suite,
            is_tls13,
            rx,
            tx,
            limit,
            flags,
            misuse,
            fragment,
            input,
            plain: 0..opened,
            opened,
            output,
            sent: 0,
        };
        Ok((records, facts))
    }

    /// Takes the keys out, so that nothing can be sealed under them here any more.
    pub(super) fn freeze(self, facts: Facts) -> FrozenTls {
        FrozenTls {
            suite: self.suite,
            flags: self.flags,
            misuse: self.misuse,
            plain: Zeroizing::new(self.input[self.plain].to_vec()),
            input: self.input[self.opened..].to_vec(),
            output: self.output[self.sent..].to_vec(),
            rx: self.rx.keys,
            tx: self.tx.keys,
            fragment: self.fragment,
            facts,
        }
    }

    pub(super) fn suite(&self) -> SupportedCipherSuite {
        self.suite
    }

    pub(super) fn is_rx_closed(&self) -> bool {
        self.flags.rx_closed
    }

    /// Decrypted octets that wait to be read.
    pub(super) fn plain(&self) -> &[u8] {
        &self.input[self.plain.clone()]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.plain.start += count;
    }

    /// Room for octets from the socket: enough for the rest of the first record. Only while no plaintext waits and `open`
    /// found no whole record.
    pub(super) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        self.plain = 0..0;
        self.input.drain(..std::mem::take(&mut self.opened));
        let room = INPUT_MAX - self.input.len();
        self.input.reserve_exact(room);
        (&mut self.input).limit(room)
    }

    /// Gives an empty input buffer back: the wait that begins may be long.
    pub(super) fn rest(&mut self) {
        if self.input.len() == self.opened && self.plain.is_empty() {
            (self.input, self.opened, self.plain) = (Vec::new(), 0, 0..0);
        }
    }

    /// Encrypted octets for the socket.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Notes that the socket took `count` octets of the output.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
        }
    }

    /// Opens the first whole record of the input and acts on it; `false`: none is there. An error ends the connection, and
    /// the alert for the peer is in the output.
    pub(super) fn open(&mut self) -> io::Result<bool> {
        let Some(length) = self.whole_record().map_err(|fatal| self.fail(fatal))? else {
            return Ok(false);
        };
        let opened = self.open_record(length);
        opened.map_err(|fatal| self.fail(fatal))?;
        if self.flags.rx_closed {
            // What comes behind a closure alert is ignored (RFC 8446 §6.1).
            self.opened = self.input.len();
        }
        Ok(true)
    }

    /// The length of the first record with its header, if all of it is there.
    fn whole_record(&self) -> Result<Option<usize>, Fatal> {
        let [kind, major, minor, high, low, ..] = self.input[self.opened..] else {
            return Ok(None);
        };
        // Data under TLS 1.3 poses as data of TLS 1.2; nothing else comes after the handshake, not even a ChangeCipherSpec
        // (RFC 8446 §5). Its version octets are authenticated below.
        if self.is_tls13 && ContentType::from(kind) != ContentType::ApplicationData {
            return Err(Fatal(Alert::UnexpectedMessage, "an unprotected record"));
        }
        if major != 3 || (!self.is_tls13 && minor != 3) {
            return Err(Fatal(Alert::ProtocolVersion, "a record of another version"));
        }
        let body = usize::from(u16::from_be_bytes([high, low]));
        let body_max = if self.is_tls13 { PLAIN_MAX + EXPANSION_TLS13 } else { INPUT_MAX - HEADER };
        if body > body_max {
            return Err(Fatal(Alert::RecordOverflow, "a record over its limit"));
        }
        Ok((self.input.len() - self.opened >= HEADER + body).then_some(HEADER + body))
    }

    fn open_record(&mut self, length: usize) -> Result<(), Fatal> {
        const BAD: Fatal = Fatal(Alert::BadRecordMac, "a record that does not open");
        let end = self.opened + length;
        let (header, body) = self.input[self.opened..end].split_at_mut(HEADER);
        let header: [u8; HEADER] = (&*header).try_into().map_err(|_| BAD)?;
        let seq = self.rx.keys.seq;
        let next = seq.checked_add(1).ok_or(BAD)?;
        let found = self.rx.cipher.open(seq, header, body).map_err(|Refused| BAD)?;
        self.rx.keys.seq = next;
        let start = self.opened + HEADER;
        let mut content = start + found.start..start + found.end;
        self.opened = end;
        let mut kind = ContentType::from(header[0]);
        if self.is_tls13 {
            if content.len() > PLAIN_MAX + 1 {
                return Err(Fatal(Alert::RecordOverflow, "plaintext over its limit"));
            }
            // The type is the last octet that is not padding (RFC 8446 §5.4).
            let unpadded = self.input[content.clone()].iter().rposition(|octet| *octet != 0);
            let at = unpadded.ok_or(Fatal(Alert::UnexpectedMessage, "a record of padding alone"))?;
            content.end = content.start + at;
            kind = ContentType::from(self.input[content.end]);
        } else if content.len() > PLAIN_MAX {
            return Err(Fatal(Alert::RecordOverflow, "plaintext over its limit"));
        }
        self.act(kind, content)
    }

    fn act(&mut self, kind: ContentType, content: Range<usize>) -> Result<(), Fatal> {
        if !self.fragment.is_empty() && kind != ContentType::Handshake {
            // RFC 8446 §5.1: nothing may stand between the parts of a handshake message.
            return Err(Fatal(Alert::UnexpectedMessage, "a record inside a handshake message"));
        }
        match kind {
            ContentType::ApplicationData if content.is_empty() => self.misuse(),
            ContentType::ApplicationData => {
                self.misuse = 0;
                self.plain = content;
                Ok(())
            }
            ContentType::Alert => match self.input[content] {
                [level, alert] => self.alert(level, Alert::from(alert)),
                _ => Err(Fatal(Alert::DecodeError, "an alert of another length")),
            },
            ContentType::Handshake if self.is_tls13 => self.handshake(content),
            ContentType::Handshake if self.input[content.clone()].first() == Some(&CLIENT_HELLO) => {
                self.refuse_renegotiation()
            }
            _ => Err(Fatal(Alert::UnexpectedMessage, "a message out of place")),
        }
    }

    fn misuse(&mut self) -> Result<(), Fatal> {
        if self.misuse == MISUSE_MAX {
            return Err(Fatal(Alert::UnexpectedMessage, "too many records without data"));
        }
        self.misuse += 1;
        Ok(())
    }

    fn alert(&mut self, level: u8, alert: Alert) -> Result<(), Fatal> {
        const WARNING: u8 = 1;
        match alert {
            Alert::CloseNotify => {
                self.flags.rx_closed = true;
                Ok(())
            }
            // It is followed by a close_notify (RFC 8446 §6.1).
            Alert::UserCanceled => self.misuse(),
            // TLS 1.3 has no other warnings, whatever the level says (RFC 8446 §6).
            _ if level == WARNING && !self.is_tls13 => self.misuse(),
            _ => {
                // An alert is not answered with one (RFC 8446 §6.2).
                self.flags.tx_closed = true;
                Err(Fatal(alert, "the peer sent a fatal alert"))
            }
        }
    }

    /// In TLS 1.3 a client has only KeyUpdate left to say, since we ask for nothing else. It may come in parts, but ends with
    /// its record: what follows is under another key (RFC 8446 §5.1).
    fn handshake(&mut self, content: Range<usize>) -> Result<(), Fatal> {
        const UNEXPECTED: Fatal = Fatal(Alert::UnexpectedMessage, "a handshake message out of place");
        let part = &self.input[content];
        if part.is_empty() || self.fragment.len() + part.len() > KEY_UPDATE {
            return Err(UNEXPECTED);
        }
        self.fragment.extend_from_slice(part);
        let message = &self.fragment[..];
        if !message.iter().zip([24, 0, 0, 1]).all(|(found, wanted)| *found == wanted) {
            return Err(UNEXPECTED);
        }
        let Some(&request) = message.get(KEY_UPDATE - 1) else {
            return self.misuse();
        };
        self.fragment = Vec::new();
        if request > 1 {
            return Err(Fatal(Alert::IllegalParameter, "a KeyUpdate that asks for something unknown"));
        }
        self.misuse()?;
        self.rx.update(self.suite).map_err(|Refused| Fatal(Alert::InternalError, "no next key"))?;
        // However many were asked for, one answer does.
        self.flags.key_update_owed |= request == 1;
        Ok(())
    }

    /// A client may ask for a new handshake in TLS 1.2, and be told no (RFC 5246 §7.2.2).
    fn refuse_renegotiation(&mut self) -> Result<(), Fatal> {
        if std::mem::replace(&mut self.flags.renegotiation_refused, true) {
            return Err(Fatal(Alert::UnexpectedMessage, "a second renegotiation"));
        }
        if !self.flags.tx_closed {
            self.seal(ContentType::Alert, &[1, u8::from(Alert::NoRenegotiation)])
                .map_err(|Refused| Fatal(Alert::InternalError, "no record left"))?;
        }
        Ok(())
    }

    /// Seals a part of `data`, as much as one write takes, and tells how much. The caller sends the output first, which
    /// bounds it.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.flags.tx_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let data = &data[..data.len().min(WRITE_MAX)];
        self.output.reserve_exact(data.len() + OUTPUT_MAX - WRITE_MAX);
        let mut taken = 0;
        for fragment in data.chunks(PLAIN_MAX) {
            let sealed = self.renew_key().and_then(|()| self.seal(ContentType::ApplicationData, fragment));
            if let Err(Refused) = sealed {
                // A key at its end (TLS 1.2 cannot change it), or a cipher that fails: nothing more goes out under it.
                self.close();
                break;
            }
            taken += fragment.len();
        }
        if taken == 0 && !data.is_empty() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
    }

    /// Says close_notify, once; nothing is sealed after it.
    pub(super) fn close(&mut self) {
        if !std::mem::replace(&mut self.flags.tx_closed, true) {
            let _ = self.seal(ContentType::Alert, &[1, u8::from(Alert::CloseNotify)]);
        }
    }

    /// Changes the sending key where the peer asked for it or the key has sealed as much as it may (RFC 8446 §4.6.3, §5.5).
    fn renew_key(&mut self) -> Result<(), Refused> {
        let is_used_up = self.tx.keys.seq.saturating_add(RESERVE) >= self.limit;
        if !is_used_up && !self.flags.key_update_owed {
            return Ok(());
        }
        if !self.is_tls13 {
            return Err(Refused);
        }
        self.seal(ContentType::Handshake, &[24, 0, 0, 1, 0])?;
        self.flags.key_update_owed = false;
        self.tx.update(self.suite)
    }

    pub(super) fn seal(&mut self, kind: ContentType, payload: &[u8]) -> Result<(), Refused> {
        let seq = self.tx.keys.seq;
        // Counted before the record is made: whatever happens, no number is used twice.
        self.tx.keys.seq = seq.checked_add(1).ok_or(Refused)?;
        let before = self.output.len();
        let sealed = self.tx.cipher.seal(seq, kind, payload, &mut self.output);
        if sealed.is_err() {
            // What could not be sealed must not go out bare.
            self.output.truncate(before);
        }
        sealed
    }

    /// As if `bytes` had come from the socket; the fuzz targets and tests have none.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut room = self.room();
        let count = bytes.len().min(room.remaining_mut());
        room.put_slice(&bytes[..count]);
        count
    }

    fn fail(&mut self, Fatal(alert, reason): Fatal) -> io::Error {
        const FATAL: u8 = 2;
        if !std::mem::replace(&mut self.flags.tx_closed, true) {
            let _ = self.seal(ContentType::Alert, &[FATAL, u8::from(alert)]);
        }
        self.flags.rx_closed = true;
        (self.input, self.opened, self.plain) = (Vec::new(), 0, 0..0);
        // It may be longer than what waits for its rest, and nothing comes any more.
        self.fragment = Vec::new();
        io::Error::new(io::ErrorKind::ConnectionAborted, format!("TLS {alert:?}: {reason}"))
    }

    /// Called after a KeyUpdate was sealed by hand.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn update_sending_key(&mut self) {
        assert!(self.tx.update(self.suite).is_ok(), "TLS 1.3 has a next key");
    }
}

#[cfg(test)]
impl Records {
    pub(super) fn set_limit(&mut self, records: u64) {
        self.limit = records;
    }

    pub(super) fn at_sequence(mut self, seq: u64) -> Self {
        (self.rx.keys.seq, self.tx.keys.seq) = (seq, seq);
        self
    }

    /// Memory that the buffers hold.
    pub(super) fn buffers(&self) -> (usize, usize) {
        (self.input.capacity(), self.output.capacity())
    }
}
