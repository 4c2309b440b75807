//! The rehearsal of a program that is to take over: whatever can be known before the one that serves lets anything go.
//!
//! Apart from the start of a node because it touches no store: the forms of what comes, what stands in files, what has to be
//! built from settings, and the addresses. Both forms of the upgrade begin with it.

use std::net::SocketAddr;

use posthouse_cluster::handoff::Door;
use posthouse_conf::Settings;
use posthouse_filter::Pipeline;
use posthouse_net::Listener;
use posthouse_storage::Store;

use super::doors::{METRICS, STORE, address_of};
use super::loaded::Loaded;
use super::takeover::words;
use super::{StartError, store_dir};
use crate::session::Protocol;

/// What a rehearsal leaves for the node that begins afterwards.
pub(super) struct Rehearsed {
    pub(super) loaded: Loaded,
    /// The sockets that were given, and those of addresses that are new: bound already, so that nobody else can take them.
    pub(super) doors: Vec<Door>,
}

/// Needs a Tokio runtime.
pub(super) fn rehearse(settings: &Settings, doors: Vec<Door>) -> Result<Rehearsed, String> {
    let loaded = read(settings).map_err(|error| words(&error))?;
    let doors = open(settings, &loaded, doors).map_err(|error| words(&error))?;
    Ok(Rehearsed { loaded, doors })
}

fn read(settings: &Settings) -> Result<Loaded, StartError> {
    let loaded = Loaded::read(settings)?;
    loaded.serving(settings)?;
    Pipeline::from_settings(&settings.filter, &loaded.resolver)?;
    let dir = store_dir(settings);
    Store::rehearse(&dir, &settings.storage)
        .map_err(|source| StartError::Store { dir: dir.display().to_string(), source })?;
    Ok(loaded)
}

/// Listens on every address that has no socket yet.
fn open(settings: &Settings, loaded: &Loaded, mut doors: Vec<Door>) -> Result<Vec<Door>, StartError> {
    let mut without_place = doors.iter().map(address_of).collect::<Result<Vec<_>, _>>()?;
    for (kind, address) in addresses(settings, loaded.tls.is_some()) {
        // The kernel chooses that one anew each time.
        if address.port() == 0 {
            continue;
        }
        match without_place.iter().position(|inherited| *inherited == address) {
            // One that the settings name twice is taken the second time.
            Some(place) => drop(without_place.swap_remove(place)),
            None => {
                let socket = Listener::bind(address, settings.limits.accept_backlog)?.duplicate()?;
                doors.push(Door { kind: kind.to_owned(), socket });
            }
        }
    }
    Ok(doors)
}

/// Every address that a node listens on.
pub(super) fn addresses(settings: &Settings, has_certificate: bool) -> Vec<(&'static str, SocketAddr)> {
    let (listen, serve) = (&settings.listen, &settings.storage.serve);
    let mut all: Vec<_> = listen.metrics.iter().map(|address| (METRICS, *address)).collect();
    all.extend(serve.listen.iter().map(|address| (STORE, *address)));
    if !serve.dedicated {
        for (protocol, addresses) in Protocol::addresses(listen, has_certificate) {
            all.extend(addresses.iter().map(|address| (protocol.as_str(), *address)));
        }
    }
    all
}
