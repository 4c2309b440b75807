//! Upgrades that something outside spoils: files that do not load, addresses that are taken, a store that somebody else has.
//!
//! Apart from the upgrades that go well, and from programs that do not come up, because here the fault lies around them.

use super::upgrade::wrapper;
use crate::harness::client::Client;
use crate::harness::program::{Demo, Port, free_port};

/// Connections, each a session that has said nothing yet.
fn silent(demo: &Demo, count: usize) -> Vec<Client> {
    let mut many: Vec<Client> = (0..count).map(|_| Client::connect(demo.port(Port::Imap))).collect();
    assert!(many.iter_mut().all(|client| client.line().starts_with("* OK")));
    many
}

fn check_alive(mut clients: Vec<Client>) {
    for client in &mut clients {
        client.send("a NOOP");
        assert!(client.line().starts_with("a OK"));
    }
}

#[test]
fn new_addresses_open_and_protocols_change_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::start();
    let many = silent(&demo, 3);
    let (imap, pop3, new) = (demo.port(Port::Imap), demo.port(Port::Pop3), free_port());
    let what = format!(
        "export POSTHOUSE_LISTEN__IMAP=127.0.0.1:{pop3},127.0.0.1:{new} POSTHOUSE_LISTEN__POP3=127.0.0.1:{imap}"
    );
    let program = wrapper(folder.path(), &what);
    demo.upgrade(Some(&program));
    for (port, greeting) in [(imap, "+OK"), (pop3, "* OK"), (new, "* OK")] {
        assert!(Client::connect(port).line().starts_with(greeting), "{port}");
    }
    check_alive(many);
}
