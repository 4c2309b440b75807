//! Session tickets: on this node, on another one, after a rotation, and where they must not count.

use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind};
use std::sync::Arc;
use zeroize::Zeroizing;

use super::super::peer::suites;
use super::client::{Client, SOON, Server, read_line};
use crate::certificate;
use crate::tls::Acceptor;
use crate::tls::tickets::{TicketKey, TicketKeys};

fn key(number: u8) -> TicketKey {
    TicketKey::new([number; TicketKey::NAME], Zeroizing::new([number; TicketKey::SECRET]))
}

fn keys(current: u8, others: &[u8]) -> TicketKeys {
    TicketKeys {
        current: key(current),
        others: others.iter().copied().map(key).collect(),
        lifetime: Duration::from_secs(3600),
    }
}

/// One connection to `acceptor`, kept until the client has its tickets.
async fn visit(server: &Server, acceptor: &Acceptor, config: &Arc<ClientConfig>) -> HandshakeKind {
    let client = async {
        let mut client = Client::connect(server.address(), config.clone(), b"hello\r\n").await.expect("TLS");
        assert_eq!(client.hear(4).await, b"hi\r\n");
        client.tls.handshake_kind().expect("it is over")
    };
    let serve = async {
        let mut stream = server.accept(acceptor).await.expect("TLS");
        assert_eq!(read_line(&mut stream).await, b"hello\r\n");
        stream.write_all(b"hi\r\n", SOON).await.expect("a write");
    };
    tokio::join!(client, serve).0
}

#[tokio::test]
async fn a_client_resumes_on_every_node_that_has_the_keys() {
    let server = Server::new();
    let (first, second) = (&server.acceptor, &server.another_acceptor());
    for suite in [suites()[0], *suites().iter().find(|suite| suite.tls13().is_none()).expect("TLS 1.2")] {
        let config = server.client_config(suite);
        assert_eq!(visit(&server, first, &config).await, HandshakeKind::Full);
        assert_eq!(visit(&server, first, &config).await, HandshakeKind::Resumed, "the keys of this process");
        assert_eq!(visit(&server, second, &config).await, HandshakeKind::Full, "another process");
    }
    for node in [first, second] {
        node.set_ticket_keys(keys(1, &[])).expect("keys");
    }
    for suite in [suites()[0], *suites().iter().find(|suite| suite.tls13().is_none()).expect("TLS 1.2")] {
        let config = server.client_config(suite);
        assert_eq!(visit(&server, first, &config).await, HandshakeKind::Full);
        assert_eq!(visit(&server, second, &config).await, HandshakeKind::Resumed);
        second.reload().expect("the same files");
        assert_eq!(visit(&server, second, &config).await, HandshakeKind::Resumed, "a reload keeps them");
    }
}

#[tokio::test]
async fn a_rotation_breaks_no_ticket_in_either_direction_until_its_key_is_gone() {
    let server = Server::new();
    let (ahead, behind) = (&server.acceptor, &server.another_acceptor());
    let config = server.client_config(suites()[0]);
    behind.set_ticket_keys(keys(1, &[2])).expect("keys");
    ahead.set_ticket_keys(keys(2, &[1])).expect("keys");
    assert_eq!(visit(&server, behind, &config).await, HandshakeKind::Full);
    assert_eq!(visit(&server, ahead, &config).await, HandshakeKind::Resumed, "sealed with the key before");
    assert_eq!(visit(&server, behind, &config).await, HandshakeKind::Resumed, "sealed with the next key");
    ahead.set_ticket_keys(keys(3, &[2])).expect("keys");
    assert_eq!(visit(&server, ahead, &config).await, HandshakeKind::Full, "its key is gone");
}

#[tokio::test]
async fn no_ticket_passes_for_a_certificate() {
    let server = Server::new();
    let dir = tempfile::tempdir().expect("a folder");
    let names = ["localhost".to_owned()];
    let files = certificate::issue_node(&dir.path().join("ca"), &dir.path().join("node"), &names).expect("a node");
    let mutual = Acceptor::mutual(&files, &posthouse_conf::Tls::default()).expect("an acceptor");
    let config = server.client_config(suites()[0]);
    server.acceptor.set_ticket_keys(keys(1, &[])).expect("keys");
    mutual.set_ticket_keys(keys(1, &[])).expect("left alone");
    assert_eq!(visit(&server, &server.acceptor, &config).await, HandshakeKind::Full);
    let client = async {
        let mut client = Client::connect(server.address(), config.clone(), b"hello\r\n").await.ok()?;
        client.end().await.ok()
    };
    let (refused, heard) = tokio::join!(server.accept(&mutual), client);
    assert!(refused.is_err() && heard.is_none());
}

#[test]
fn an_altered_or_foreign_ticket_opens_nothing() {
    use rustls::server::ProducesTickets;
    let tickets = crate::tls::tickets::Tickets::of_this_process().expect("tickets");
    tickets.set(keys(1, &[2])).expect("keys");
    assert!(tickets.enabled() && tickets.lifetime() == 3600);
    let ticket = tickets.encrypt(b"a session").expect("a ticket");
    assert_ne!(tickets.encrypt(b"a session"), Some(ticket.clone()), "a nonce of its own");
    assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
    for at in 0..ticket.len() {
        let mut altered = ticket.clone();
        altered[at] ^= 1;
        assert_eq!(tickets.decrypt(&altered), None, "{at}");
        assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at}");
    }
    // The name of a key that did not seal it.
    let mut renamed = ticket.clone();
    renamed[..TicketKey::NAME].fill(2);
    assert_eq!(tickets.decrypt(&renamed), None);
    assert!(tickets.set(keys(1, &[2; 9])).is_err(), "more than any rotation needs");
}
