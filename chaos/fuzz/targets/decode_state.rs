//! Octets as the state of a moved connection: decoded, encoded again, used.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| posthouse_net::fuzzing::decode(octets));
