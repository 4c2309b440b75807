//! Octets as the state of a session of SMTP, submission, POP3 or IMAP.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| posthouse_actors::session::fuzzing::read(octets));
