//! Octets as a script of what a TLS client sends, a network alters and our end does, hand-overs included.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| posthouse_net::fuzzing::drive(octets));
