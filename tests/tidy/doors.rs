//! The doors: which crate may name which library, by manifest and by source.
//!
//! A door keeps a library replaceable and its rules in one place: sockets and TLS in `net`, rows in `storage`, lines and
//! numbers in `obs`, actors in `actors` and `cluster`.

use super::edges::packages;
use super::{assert_none, source};

/// A library and the crates whose manifest may name it. Tests and chaos stand outside: they drive the program.
const MANIFEST_DOORS: &[(&str, &[&str])] = &[
    ("ractor", &["main", "actors", "cluster"]),
    ("redb", &["storage"]),
    ("object_store", &["storage"]),
    ("foundationdb", &["storage"]),
    ("foundationdb-sys", &["storage"]),
    ("libloading", &["foundationdb-sys"]),
    ("rustls", &["net", "chaos"]),
    ("tokio-rustls", &["net", "chaos"]),
    ("rustls-platform-verifier", &["net"]),
    ("rcgen", &["net"]),
    ("socket2", &["net"]),
    ("rustix", &["net"]),
    ("hickory-resolver", &["net"]),
    ("mail-auth", &["filter"]),
    ("governor", &["filter"]),
    ("psl", &["filter"]),
    ("prometheus", &["obs"]),
    ("tracing", &["obs"]),
    ("tracing-subscriber", &["obs"]),
    ("axum", &["web"]),
    ("argon2", &["actors", "storage"]),
    ("clap", &["main", "chaos"]),
    ("sd-notify", &["main"]),
    ("anyhow", &["main", "chaos"]),
    ("hickory-server", &[]),
];

/// Libraries that the vocabulary and the codecs must not see: time and ids are arguments there.
const PURE_CRATES: &[&str] = &["mail", "wire"];
const IMPURE: &[&str] = &["tokio", "rand", "futures-util", "libc"];

/// A piece of code, the folders where it may stand, and what to do instead.
const SOURCE_DOORS: &[(&str, &[&str], &str)] = &[
    ("tokio::net", &["src/net", "chaos", "tests"], "take a stream of posthouse-net"),
    ("TcpStream", &["src/net", "chaos", "tests"], "take a stream of posthouse-net"),
    ("TcpListener", &["src/net", "chaos", "tests"], "take a listener of posthouse-net"),
    ("UdpSocket", &["src/net", "chaos", "tests"], "ask posthouse-net"),
    ("UnixStream", &["src/net", "chaos", "tests"], "take a stream of posthouse-net"),
    ("UnixListener", &["src/net", "chaos", "tests"], "take a listener of posthouse-net"),
    ("tracing", &["src/obs"], "emit an event of posthouse-obs"),
    // The loader of FoundationDB's library has its own lints; every other package forbids unsafe code.
    ("unsafe", &["src/storage/foundationdb-sys"], "use a library that is safe to call"),
    ("println", &["src/main.rs", "src/cli", "chaos", "tests"], "emit an event of posthouse-obs"),
    ("eprintln", &["src/main.rs", "src/cli", "chaos", "tests"], "emit an event of posthouse-obs"),
];

/// Clock, randomness and the outside world, which the pure crates take as arguments.
const IMPURE_CODE: &[&str] =
    &["Instant::now", "SystemTime::now", "std::fs", "std::env", "std::thread", "std::net::Tcp"];

#[test]
fn each_library_has_one_door() {
    let mut findings = Vec::new();
    for package in packages() {
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.is_dev) {
            let door = MANIFEST_DOORS.iter().find(|(library, _)| *library == dependency.name);
            if door.is_some_and(|(_, crates)| !crates.contains(&package.name.as_str())) {
                findings.push(format!("{} names {}", package.name, dependency.name));
            }
            if PURE_CRATES.contains(&package.name.as_str()) && IMPURE.contains(&dependency.name.as_str()) {
                findings
                    .push(format!("{} names {}: time, ids and I/O are arguments there", package.name, dependency.name));
            }
        }
    }
    assert_none("libraries named outside their door", &findings);
}

#[test]
fn sockets_and_log_lines_stay_behind_their_doors() {
    let mut findings = Vec::new();
    for file in source::files() {
        for (code, folders, instead) in SOURCE_DOORS {
            if folders.iter().any(|folder| is_below(&file.path, folder)) {
                continue;
            }
            for (line, text) in file.production_lines() {
                if source::find_word(text, code, 0).is_some() {
                    findings.push(format!("{}:{line}: {code}; {instead}", file.path));
                }
            }
        }
    }
    assert_none("code outside its door", &findings);
}

#[test]
fn vocabulary_and_codecs_have_no_clock_and_no_world() {
    let mut findings = Vec::new();
    for file in source::files() {
        if !PURE_CRATES.iter().any(|name| is_below(&file.path, &format!("src/{name}"))) {
            continue;
        }
        for (line, text) in file.production_lines() {
            for code in IMPURE_CODE.iter().filter(|code| text.contains(**code)) {
                findings.push(format!("{}:{line}: {code}", file.path));
            }
        }
    }
    assert_none("a clock or the world in a pure crate", &findings);
}

fn is_below(path: &str, place: &str) -> bool {
    path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}
