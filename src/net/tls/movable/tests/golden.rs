//! The frozen form: golden values that decode for ever, and everything else that must be an error.
//!
//! `golden/*.hex` were written by the program that had that version. A change of the layout fails here until there is a new
//! version with golden values of its own (`POSTHOUSE_BLESS=1` writes those of the current version); the old ones stay.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustls::{CipherSuite, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::super::Facts;
use super::super::peer::{self, records, state, suites};
use crate::frozen::{FrozenStream, FrozenTransport};

fn suite(name: CipherSuite) -> SupportedCipherSuite {
    *suites().iter().find(|suite| suite.suite() == name).expect("a suite of ours")
}

/// A connection in the middle of everything, made only from constants.
fn busy(suite: SupportedCipherSuite) -> FrozenStream {
    let mut ours = records(state(suite, 1, 2));
    let mut theirs = records(state(suite, 2, 1));
    theirs.write(b"unread\r\n").expect("a write");
    if suite.tls13().is_some() {
        assert!(theirs.seal(rustls::ContentType::Handshake, &[24, 0, 0, 1, 1]).is_ok());
        theirs.update_sending_key();
    }
    theirs.write(b"sealed\r\n").expect("a write");
    theirs.write(b"cut").expect("a write");
    let octets = theirs.output();
    ours.receive(&octets[..octets.len() - 4]);
    ours.write(b"half sent").expect("a write");
    ours.sent(9);
    // The first record is opened; in TLS 1.3 a KeyUpdate stands before the next.
    assert!(ours.open().expect("a record"));
    ours.consume(2);
    let facts = Facts {
        server_name: Some("mail.example.test".into()),
        exporter: suite.tls13().is_some().then(|| Zeroizing::new([7; 32])),
    };
    let transport = FrozenTransport { tls: Some(ours.freeze(facts)) };
    FrozenStream { transport, input: Zeroizing::new(b"EHLO half a li".to_vec()), input_max: 8192 }
}

fn values() -> Vec<(&'static str, FrozenStream)> {
    let plain = FrozenTransport { tls: None };
    vec![
        ("tls13_aes_256_gcm", busy(suite(CipherSuite::TLS13_AES_256_GCM_SHA384))),
        ("tls13_aes_128_gcm", busy(suite(CipherSuite::TLS13_AES_128_GCM_SHA256))),
        ("tls13_chacha20_poly1305", busy(suite(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256))),
        ("tls12_aes_256_gcm", busy(suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384))),
        ("tls12_aes_128_gcm", busy(suite(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256))),
        ("tls12_chacha20_poly1305", busy(suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256))),
        ("plain", FrozenStream { transport: plain, input: Zeroizing::new(b"NOOP\r\nNO".to_vec()), input_max: 1000 }),
    ]
}

fn path(version: u8, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tls/movable/golden").join(format!("{version}_{name}.hex"))
}

fn hex(octets: &[u8]) -> String {
    octets.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|octet| write!(text, "{octet:02x}").expect("a string takes all"));
        text.push('\n');
        text
    })
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

/// What a moved connection still does: reads what lay in it, and goes on both ways with its peer.
fn check_goes_on(frozen: FrozenStream, suite: SupportedCipherSuite) {
    let mut tls = frozen.transport.tls.expect("it is TLS");
    let facts = std::mem::take(&mut tls.facts);
    assert_eq!(facts.server_name.as_deref(), Some("mail.example.test"));
    assert_eq!(facts.exporter.is_some(), suite.tls13().is_some());
    let mut ours = records(tls);
    assert_eq!(ours.plain(), b"read\r\n");
    ours.consume(6);
    while ours.plain().is_empty() {
        assert!(ours.open().expect("a record"), "whole records lie in it");
    }
    assert_eq!(ours.plain(), b"sealed\r\n");
    ours.consume(8);
    assert!(!ours.open().expect("half a record"));
}

#[test]
fn golden_values_decode_and_go_on() {
    for (name, value) in values() {
        let path = path(1, name);
        if std::env::var_os("POSTHOUSE_BLESS").is_some() && !path.exists() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, hex(&value.encode())).expect("a writable file");
        }
        let golden = octets(&std::fs::read_to_string(&path).expect("a golden value"));
        let decoded = FrozenStream::decode(&golden).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((&decoded.input, decoded.input_max), (&value.input, value.input_max), "{name}");
        assert!(*decoded.encode() == golden, "{name}: what is written has changed: it needs a version of its own");
        match value.transport.tls {
            Some(tls) => check_goes_on(decoded, tls.suite),
            None => assert!(!decoded.is_tls()),
        }
    }
}

#[test]
fn values_cut_short_or_altered_or_of_another_time_are_errors() {
    for (name, value) in values() {
        let whole = value.encode();
        for end in 0..whole.len() {
            assert!(FrozenStream::decode(&whole[..end]).is_err(), "{name} cut at {end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut altered = whole.to_vec();
                altered[at] ^= 1 << bit;
                assert!(FrozenStream::decode(&altered).is_err(), "{name} altered at {at}");
            }
        }
        assert!(FrozenStream::decode(&[&whole[..], &[0]].concat()).is_err());
        assert!(FrozenTransport::decode(&whole).is_err(), "a stream is no transport");
        assert!(FrozenStream::decode(&value.transport.encode()).is_err(), "a transport is no stream");
        for version in [0, 2, 255] {
            let mut other = whole.to_vec();
            other[1] = version;
            let error = FrozenStream::decode(&other).err().expect("another version").to_string();
            assert!(error.contains("version"), "{error}");
        }
    }
}

/// The layout of a TLS transport without its envelope.
fn layout(value: &FrozenStream) -> Vec<u8> {
    let octets = value.transport.encode();
    octets[2..octets.len() - 8].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        peer::decode(&octets);
    }

    /// A layout that is damaged but sealed again decodes to something that can be used, or not at all.
    #[test]
    fn no_damage_under_a_good_seal_makes_it_panic(
        which in 0..6_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut layout = layout(&values()[which].1);
        for (at, octet) in damage {
            let at = at.index(layout.len());
            layout[at] = octet;
        }
        peer::decode(&layout);
    }

    #[test]
    fn no_sequence_of_events_breaks_an_end(script in proptest::collection::vec(any::<u8>(), 0..400)) {
        peer::drive(&script);
    }
}
