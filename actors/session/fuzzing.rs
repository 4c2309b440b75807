//! What the fuzz targets call: octets as the state of a session that comes from another process.
//!
//! Apart so that one target reaches the states of every protocol; compiled for the targets only.

use posthouse_wire::smtp::server::Flavour;

use super::{imap, pop3, smtp};

/// The first octet chooses the protocol. Whatever the others are, reading them ends, and does not panic.
pub fn read(octets: &[u8]) {
    let Some((protocol, state)) = octets.split_first() else { return };
    let _sound = match protocol % 4 {
        0 => smtp::parked::is_sound(state, Flavour::Receive),
        1 => smtp::parked::is_sound(state, Flavour::Submit),
        2 => pop3::parked::is_sound(state),
        _ => imap::parked::is_sound(state),
    };
}
