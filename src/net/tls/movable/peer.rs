//! Both ends of a connection without handshake and sockets, for the tests and the fuzz targets.
//!
//! The other end is the same record layer with the two directions exchanged, so that it can also seal what no client of a
//! good library would send.

use rustls::SupportedCipherSuite;
use zeroize::Zeroizing;

use super::Facts;
use super::cipher::Refused;
use super::keys::{Keys, material_len};
use super::record::{Flags, Records};
use super::state::FrozenTls;
use crate::frozen::FrozenTransport;
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
