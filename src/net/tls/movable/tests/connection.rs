//! Whole connections through hand-overs, with rustls as the client.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustls::SupportedCipherSuite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::super::peer::suites;
use super::client::{Client, SOON, Server, hop, poll_once, read_line};
use crate::error::Error;
use crate::frozen::{FrozenStream, FrozenTransport};
use crate::line_stream::LineStream;
use crate::tls::Connector;
use crate::transport::Transport;

/// The suites that a server with a key on an elliptic curve negotiates.
fn negotiable() -> impl Iterator<Item = SupportedCipherSuite> {
    suites().into_iter().filter(|suite| !format!("{:?}", suite.suite()).contains("_RSA_"))
}

fn long_reply(seed: usize) -> Vec<u8> {
    (0..300_000).map(|n| (n * 31 + n / 251 + seed) as u8).collect()
}

#[tokio::test]
async fn every_suite_survives_three_hand_overs_with_its_facts() {
    assert_eq!(negotiable().count(), 6);
    for suite in negotiable() {
        let server = Server::new();
        let (mut stream, mut client) = server.connect(server.client_config(suite)).await;
        let info = stream.transport().tls_info().expect("it is TLS");
        let binding = stream.transport().channel_binding().copied();
        let addresses = (stream.transport().peer_addr(), stream.transport().local_addr());
        for round in 0..=3 {
            client.say(format!("line {round}\r\n").as_bytes()).await;
            assert_eq!(read_line(&mut stream).await, format!("line {round}\r\n").as_bytes());
            let reply = long_reply(round);
            let (written, heard) = tokio::join!(stream.write_all(&reply, SOON), client.hear(reply.len()));
            written.expect("written");
            assert!(heard == reply, "{suite:?} after {round} hand-overs");
            stream = hop(stream);
        }
        assert_eq!(stream.transport().tls_info(), Some(info));
        assert_eq!(stream.transport().server_name(), Some("localhost"));
        assert_eq!((stream.transport().peer_addr(), stream.transport().local_addr()), addresses);
        assert_eq!(stream.transport().channel_binding().copied(), binding);
        if suite.tls13().is_some() {
            let theirs = client
                .tls
                .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
                .expect("an exporter");
            assert_eq!(binding, Some(theirs));
        } else {
            assert_eq!(binding, None);
        }
        stream.close(SOON).await;
        assert_eq!(client.end().await, Ok(Vec::new()));
    }
}

/// Lets the stream read until exactly `wanted` octets of ciphertext lie in it.
async fn buffer(mut stream: LineStream, wanted: usize) -> LineStream {
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "{wanted} octets never came");
        assert!(poll_once(stream.fill(deadline)).is_none(), "no whole record is there");
        let (socket, frozen) = stream.freeze().expect("it can move");
        let held = frozen.transport.tls.as_ref().expect("it is TLS").input.len();
        let frozen = FrozenStream::decode(&frozen.encode()).expect("what was encoded decodes");
        stream = LineStream::thaw(socket, frozen, None).expect("it goes on");
        if held == wanted {
            return stream;
        }
        yield_now().await;
    }
}

#[tokio::test]
async fn a_record_cut_anywhere_goes_on() {
    let line = [&[b'x'; 100][..], b"\r\n"].concat();
    for suite in negotiable() {
        let server = Server::new();
        let (mut stream, mut client) = server.connect(server.client_config(suite)).await;
        for cut in [1_isize, 3, 5, 6, 17, -17, -1] {
            let octets = client.seal(&line);
            let cut = if cut > 0 { cut.unsigned_abs() } else { octets.len() - cut.unsigned_abs() };
            client.send(&octets[..cut]).await;
            stream = buffer(stream, cut).await;
            client.send(&octets[cut..]).await;
            assert_eq!(read_line(&mut stream).await, line, "{suite:?} cut at {cut}");
            stream.write_all(b"250 OK\r\n", SOON).await.expect("an answer");
            assert_eq!(client.hear(8).await, b"250 OK\r\n");
        }
        // In three parts over two hand-overs.
        let octets = client.seal(&line);
        client.send(&octets[..4]).await;
        stream = buffer(stream, 4).await;
        client.send(&octets[4..60]).await;
        stream = buffer(stream, 60).await;
        client.send(&octets[60..]).await;
        assert_eq!(read_line(&mut stream).await, line);
    }
}

/// Writes pieces of `data` until the socket takes no more; how many octets were taken.
fn write_until_full(transport: &mut Transport, data: &[u8]) -> usize {
    let mut taken = 0;
    while taken < data.len() {
        let Some(written) = poll_once(transport.write(&data[taken..])) else { break };
        taken += written.expect("a write");
    }
    taken
}

#[tokio::test]
async fn a_half_written_record_reaches_a_peer_that_did_not_read() {
    let data: Vec<u8> = (0..12_000_000_u32).map(|n| (n ^ n >> 11) as u8).collect();
    for suite in negotiable() {
        let server = Server::new();
        let (stream, mut client) = server.connect(server.client_config(suite)).await;
        let (mut transport, _) = stream.into_parts();
        let mut taken = write_until_full(&mut transport, &data);
        assert!(taken < data.len(), "the client reads nothing");
        for _ in 0..2 {
            let (socket, frozen) = transport.freeze().expect("it can move");
            let octets = frozen.encode();
            assert!(!frozen.tls.as_ref().expect("it is TLS").output.is_empty(), "half a record waits");
            assert!(octets.len() < 40_000, "{}", octets.len());
            let frozen = FrozenTransport::decode(&octets).expect("decodes");
            transport = Transport::thaw(socket, frozen, None).expect("goes on");
            taken += write_until_full(&mut transport, &data[taken..]);
        }
        let write = async {
            transport.write_all(&data[taken..]).await.expect("the rest");
            transport.flush().await.expect("the rest");
        };
        let ((), heard) = tokio::join!(write, client.hear(data.len()));
        assert!(heard == data, "{suite:?}");
    }
}

#[tokio::test]
async fn plaintext_that_nobody_read_goes_along() {
    for suite in negotiable() {
        let server = Server::new();
        let (stream, mut client) = server.connect(server.client_config(suite)).await;
        // One record, of which the small buffer takes a part only; two more records behind it.
        let (transport, _) = stream.into_parts();
        let mut stream = LineStream::new(transport, 10);
        let mut octets = client.seal(b"one\r\ntwo\r\nthree\r\nfour\r\n");
        octets.extend_from_slice(&client.seal(b"five\r\n"));
        octets.extend_from_slice(&client.seal(b"six\r\n"));
        client.send(&octets).await;
        for line in ["one\r\n", "two\r\n", "three\r\n", "four\r\n", "five\r\n", "six\r\n"] {
            assert_eq!(read_line(&mut stream).await, line.as_bytes());
            stream = hop(stream);
        }
    }
}

#[tokio::test]
async fn data_right_behind_the_clients_finished_is_read() {
    for suite in negotiable() {
        let server = Server::new();
        let config = server.client_config(suite);
        // The second connection resumes; in TLS 1.2 only then the client finishes last, and can say more at once.
        for round in 0..2 {
            let (mut stream, client) = server.connect_saying(config.clone(), b"EHLO early.test\r\n").await;
            stream = hop(stream);
            assert_eq!(read_line(&mut stream).await, b"EHLO early.test\r\n", "{suite:?} {round}");
            drop(client);
        }
    }
}

/// Carries octets between a client and the server, one by one.
async fn drip(from: &mut TcpStream, to: &mut TcpStream) {
    let (mut client_reads, mut client_writes) = from.split();
    let (mut server_reads, mut server_writes) = to.split();
    let there = async {
        let mut octet = [0];
        while client_reads.read(&mut octet).await.is_ok_and(|count| count == 1) {
            if server_writes.write_all(&octet).await.is_err() {
                break;
            }
            yield_now().await;
        }
    };
    let back = tokio::io::copy(&mut server_reads, &mut client_writes);
    let _ = tokio::join!(there, back);
}

#[tokio::test]
async fn a_stream_that_comes_octet_by_octet_is_read() {
    for suite in negotiable() {
        let server = Server::new();
        let middle = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = middle.local_addr().expect("an address");
        let carry = async {
            let (mut from, _) = middle.accept().await.expect("the client");
            let mut to = TcpStream::connect(server.address()).await.expect("the server");
            to.set_nodelay(true).expect("a socket");
            drip(&mut from, &mut to).await;
        };
        let client = async {
            let mut client = Client::connect(address, server.client_config(suite), b"first\r\n").await.expect("TLS");
            client.say(b"second\r\nthird\r\n").await;
            assert_eq!(client.hear(6).await, b"heard\n");
        };
        let serve = async {
            let mut stream = server.accept(&server.acceptor).await.expect("TLS");
            for line in ["first\r\n", "second\r\n", "third\r\n"] {
                assert_eq!(read_line(&mut stream).await, line.as_bytes());
                stream = hop(stream);
            }
            stream.write_all(b"heard\n", SOON).await.expect("a write");
            stream.close(SOON).await;
        };
        tokio::join!(carry, client, serve);
    }
}

#[tokio::test]
async fn a_rustls_client_changes_its_key_and_gets_ours_changed() {
    for suite in negotiable().filter(|suite| suite.tls13().is_some()) {
        let server = Server::new();
        let (mut stream, mut client) = server.connect(server.client_config(suite)).await;
        for round in 0..3 {
            client.tls.refresh_traffic_keys().expect("TLS 1.3");
            client.say(b"under the new key\r\n").await;
            assert_eq!(read_line(&mut stream).await, b"under the new key\r\n");
            // Our own KeyUpdate is owed while the session moves.
            stream = hop(stream);
            let reply = long_reply(round);
            let (written, heard) = tokio::join!(stream.write_all(&reply, SOON), client.hear(reply.len()));
            written.expect("written");
            assert!(heard == reply);
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_ends_the_input_and_still_hears_us() {
    for suite in negotiable() {
        let server = Server::new();
        let (mut stream, mut client) = server.connect(server.client_config(suite)).await;
        client.tls.writer().write_all(b"QUIT\r\n").expect("room");
        client.tls.send_close_notify();
        let octets = client.seal(b"");
        client.send(&octets).await;
        assert_eq!(read_line(&mut stream).await, b"QUIT\r\n");
        stream = hop(stream);
        assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::Closed)));
        stream.write_all(b"221 bye\r\n", SOON).await.expect("a write");
        stream.close(SOON).await;
        assert_eq!(client.end().await, Ok(b"221 bye\r\n".to_vec()));
    }
}

#[tokio::test]
async fn a_connection_cut_without_close_notify_is_closed_too() {
    let server = Server::new();
    let suite = suites()[0];
    let (mut stream, client) = server.connect(server.client_config(suite)).await;
    drop(client);
    assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_tampered_record_is_told_to_the_client() {
    for suite in negotiable() {
        let server = Server::new();
        let (mut stream, mut client) = server.connect(server.client_config(suite)).await;
        let mut octets = client.seal(b"MAIL FROM:<a@b.test>\r\n");
        let last = octets.len() - 1;
        octets[last] ^= 0x80;
        client.send(&octets).await;
        assert!(matches!(stream.fill(Instant::now() + SOON).await, Err(Error::Closed)));
        let end = client.end().await.expect_err("an alert");
        assert!(end.contains("BadRecordMac"), "{end}");
        assert!(stream.write_all(b"x", SOON).await.is_err());
    }
}

#[tokio::test]
async fn what_was_sealed_before_a_hand_over_goes_out_while_the_session_only_reads() {
    let server = Server::new();
    for suite in [suites()[0]] {
        let (stream, mut client) = server.connect(server.client_config(suite)).await;
        let data = vec![b'x'; 12_000_000];
        let (mut transport, _) = stream.into_parts();
        let taken = write_until_full(&mut transport, &data);
        let (socket, frozen) = transport.freeze().expect("it can move");
        let mut stream = LineStream::new(Transport::thaw(socket, frozen, None).expect("it goes on"), 100);
        let hear = async {
            assert_eq!(client.hear(taken).await.len(), taken);
            client.say(b"thanks\r\n").await;
        };
        let (line, ()) = tokio::join!(read_line(&mut stream), hear);
        assert_eq!(line, b"thanks\r\n", "reading alone sent the rest");
    }
}

#[tokio::test]
async fn a_plain_connection_moves_with_its_unread_line() {
    let server = Server::new();
    let connect = crate::connect(server.address(), SOON);
    let listener_side = server.accept_plain();
    let (client, mut stream) = tokio::join!(connect, listener_side);
    let mut client = LineStream::new(client.expect("a connection"), 1000);
    client.write_all(b"EHLO a.test\r\nMAIL FR", SOON).await.expect("a write");
    assert_eq!(read_line(&mut stream).await, b"EHLO a.test\r\n");
    while stream.input() != b"MAIL FR" {
        stream.fill(Instant::now() + SOON).await.expect("more");
    }
    stream = hop(hop(stream));
    client.write_all(b"OM:<>\r\n", SOON).await.expect("a write");
    assert_eq!(read_line(&mut stream).await, b"MAIL FROM:<>\r\n");
    assert!(!stream.transport().is_tls());
    stream.write_all(b"250 OK\r\n", SOON).await.expect("a write");
    assert_eq!(read_line(&mut client).await, b"250 OK\r\n");
}

#[tokio::test]
async fn a_silent_connection_takes_no_handshakes_place() {
    let server = Server::with_places(1);
    let config = server.client_config(suites()[0]);
    let silent = TcpStream::connect(server.address()).await.expect("a connection");
    let mut waiting = Box::pin(server.accept(&server.acceptor));
    // Half a ClientHello is silence too.
    silent.writable().await.expect("a socket");
    silent.try_write(&[22, 3, 1, 2, 0, 1, 0]).expect("a write");
    let serve = async {
        tokio::select! {
            biased; // The silent one came first.
            _ = &mut waiting => panic!("nothing was said"),
            both = server.connect(config) => both,
        }
    };
    let (mut stream, mut client) = serve.await;
    client.say(b"NOOP\r\n").await;
    assert_eq!(read_line(&mut stream).await, b"NOOP\r\n");
}

/// `K` and `k` at the start of a line make OpenSSL's client send a KeyUpdate, without and with a wish for ours.
#[tokio::test]
#[ignore = "needs openssl"]
async fn openssl_changes_keys_while_its_session_moves() {
    for version in ["-tls1_3", "-tls1_2"] {
        let server = Server::new();
        let mut process = tokio::process::Command::new("openssl")
            .args(["s_client", version, "-connect", &server.address().to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl");
        let mut input = process.stdin.take().expect("a pipe");
        let mut output = process.stdout.take().expect("a pipe");
        let mut log = process.stderr.take().expect("a pipe");
        let mut stream = server.accept(&server.acceptor).await.expect("TLS");
        for round in 0..4 {
            let order = ["", "K\n", "k\n", ""][round];
            if version == "-tls1_3" && !order.is_empty() {
                input.write_all(order.as_bytes()).await.expect("a write");
                read_until(&mut log, "KEYUPDATE").await;
            }
            let line = format!("round {round}\n");
            input.write_all(line.as_bytes()).await.expect("a write");
            assert_eq!(read_line(&mut stream).await, line.as_bytes());
            stream = hop(stream);
            stream.write_all(format!("heard {line}").as_bytes(), SOON).await.expect("a write");
            read_until(&mut output, &format!("heard round {round}")).await;
        }
        stream.close(SOON).await;
    }
}

async fn read_until(pipe: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(wanted) {
        assert!(pipe.read_buf(&mut read).await.expect("a pipe") > 0, "it ended before {wanted}");
    }
}

#[tokio::test]
async fn what_cannot_go_on_says_why() {
    // A connection of ours to others stays where it is.
    let server = Server::new();
    let connector = Connector::opportunistic();
    let connect = async {
        let plain = crate::connect(server.address(), SOON).await?;
        connector.connect(plain, "localhost", SOON).await
    };
    let (client, _stream) = tokio::join!(connect, server.accept(&server.acceptor));
    assert!(matches!(client.expect("TLS").freeze(), Err(Error::NotMovable)));

    // A descriptor that is no TCP connection.
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let thawed = Transport::thaw(OwnedFd::from(ours), FrozenTransport { tls: None }, None);
    assert!(matches!(thawed, Err(Error::Frozen(_))));
    let file = std::fs::File::open("/dev/null").expect("a file");
    assert!(Transport::thaw(OwnedFd::from(file), FrozenTransport { tls: None }, None).is_err());

    // A peer that reset the connection while it was on its way.
    let suite = suites()[0];
    let (stream, client) = server.connect(server.client_config(suite)).await;
    let (socket, frozen) = stream.freeze().expect("it can move");
    socket2::SockRef::from(&client.socket).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
    drop(client);
    let socket = wait_for_reset(socket);
    assert!(matches!(LineStream::thaw(socket, frozen, None), Err(Error::Closed)));
}

/// Waits until the kernel has heard of the reset.
fn wait_for_reset(socket: OwnedFd) -> OwnedFd {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(false).expect("a socket");
    let read = std::io::Read::read(&mut &stream, &mut [0; 16]);
    assert!(read.is_err(), "a reset");
    stream.into()
}
