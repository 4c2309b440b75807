//! A hand-over between two nodes of this process, with parcels that something happened to on the way.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use posthouse_cluster::handoff::{Giver, Parcel, Refused};
use posthouse_conf::{Listen, Settings};
use posthouse_net::descriptors::Invitation;
use std::io::{BufRead as _, BufReader, Write as _};

use super::loaded::Loaded;
use super::parcel::{pack, part_with};
use super::successor::{hello, limits};
use super::takeover::{LOCKED_MAX, begin};
use super::{Node, Remains, take_over};
use crate::listener::fixture::free_address;

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(dir: &Path) -> (Arc<Settings>, SocketAddr) {
    let free = free_address();
    let listen = Listen {
        smtp: Vec::new(),
        submission: Vec::new(),
        submissions: Vec::new(),
        imap: vec![free],
        imaps: Vec::new(),
        pop3: Vec::new(),
        pop3s: Vec::new(),
        metrics: Vec::new(),
    };
    let mut settings = Settings { listen, ..Settings::default() };
    settings.node.data_dir = dir.to_owned();
    (Arc::new(settings), free)
}

/// A client that was greeted.
async fn client(address: SocketAddr) -> BufReader<TcpStream> {
    let connecting = tokio::task::spawn_blocking(move || {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut client = BufReader::new(stream);
        assert!(line(&mut client).starts_with("* OK"));
        client
    });
    connecting.await.expect("no panic")
}

/// The next line; empty where the connection has ended.
fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    // One that was reset has ended too.
    let _ = client.read_line(&mut line);
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_state_was_damaged_is_closed_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (settings, address) = settings(dir.path());
    let node = Node::start(settings.clone()).await.expect("a node");
    node.listen().await.expect("it serves");
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(address).await);
    }
    let doors = node.services.doors.duplicates().expect("the listeners");
    let stopped = node.stop_sessions().await;
    node.close(tokio::time::Instant::now()).await;
    let mut parcels: Vec<Parcel> = stopped.parked.into_iter().map(|(_, parked)| pack(parked)).collect();
    assert_eq!(parcels.len(), 4);
    let half = parcels[0].state.len() / 2;
    parcels[0].state.truncate(half);
    let middle = parcels[1].state.len() / 2;
    parcels[1].state[middle] ^= 0x20;
    parcels[2].kind = "gopher".to_owned();

    let invitation = Invitation::bind(dir.path()).expect("a socket");
    let socket = invitation.path().to_owned();
    let (giving, limits) = (settings.clone(), limits(&settings.upgrade));
    let given = tokio::spawn(async move {
        let mut giver = Giver::invite(invitation, hello(), limits).await.expect("a taker");
        giver.doors(&doors).await.expect("it holds them");
        giver.store_is_free().await.expect("it serves");
        let moved = giver.sessions(parcels).await.expect("the hand-over goes on");
        giver.done().await.expect("it knows");
        drop(giving);
        (moved.moved.len(), moved.refused.into_iter().map(|refused| refused.reason).collect::<Vec<_>>())
    });
    let taken = take_over(settings, &socket).await.expect("a node");
    let (moved, refused) = given.await.expect("no panic");
    assert_eq!((moved, refused.len()), (1, 3), "{refused:?}");
    let alive = tokio::task::spawn_blocking(move || {
        let mut alive = 0;
        for client in &mut clients {
            let _ = client.get_mut().write_all(b"a NOOP\r\n");
            alive += usize::from(line(client).starts_with("a OK"));
        }
        alive
    });
    assert_eq!(alive.await.expect("no panic"), 1);
    drop(client(address).await);
    taken.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_open_leaves_the_sockets_that_it_was_given_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let (settings, address) = settings(dir.path());
    let node = Node::start(settings.clone()).await.expect("a node");
    node.listen().await.expect("it serves");
    let doors = || node.services.doors.duplicates().expect("the listeners");
    let (given, kept) = (doors(), doors());
    node.stop_sessions().await;
    node.close(tokio::time::Instant::now()).await;

    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut wrong = Settings::clone(&settings);
    wrong.listen.pop3 = vec![other.local_addr().expect("an address")];
    let (wrong, loaded) = (Arc::new(wrong), Loaded::read(&settings).expect("no files"));
    let begun = begin(wrong, given, loaded.clone(), LOCKED_MAX).await.map(drop);
    assert!(begun.as_ref().is_err_and(|error| error.to_string().contains("is taken")), "{begun:?}");

    let waiting = TcpStream::connect(address).expect("the kernel takes it");
    let node = begin(settings, kept, loaded, LOCKED_MAX).await.expect("it serves");
    let greeted = tokio::task::spawn_blocking(move || line(&mut BufReader::new(waiting)));
    assert!(greeted.await.expect("no panic").starts_with("* OK"));
    drop(client(address).await);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_session_nobody_takes_hears_goodbye() {
    let dir = tempfile::tempdir().expect("a folder");
    let (settings, address) = settings(dir.path());
    let node = Node::start(settings.clone()).await.expect("a node");
    node.listen().await.expect("it serves");
    let mut client = client(address).await;
    let stopped = node.stop_sessions().await;
    node.close(tokio::time::Instant::now()).await;
    let refused = stopped
        .parked
        .into_iter()
        .map(|(_, parked)| Refused { parcel: pack(parked), reason: "a program that takes none".to_owned() });
    part_with(refused.collect(), "mail.example.test").await;
    let heard = tokio::task::spawn_blocking(move || (line(&mut client), line(&mut client)));
    let (words, end) = heard.await.expect("no panic");
    assert!(words.starts_with("* BYE ") && end.is_empty(), "{words}{end}");
}

/// A node in which so many sessions have just arrived, and their clients.
async fn with_arrivals(settings: &Arc<Settings>, address: SocketAddr) -> (Node, Vec<BufReader<TcpStream>>) {
    let node = Node::start(settings.clone()).await.expect("a node");
    node.listen().await.expect("it serves");
    let mut clients = Vec::new();
    for _ in 0..ARRIVALS {
        clients.push(client(address).await);
    }
    let doors = node.services.doors.duplicates().expect("the listeners");
    let sessions = node.stop_sessions().await.parked.into_iter().map(|(_, parked)| parked).collect();
    node.close(tokio::time::Instant::now()).await;
    let node = node.take_back(Remains { doors, sessions }).await.expect("it serves");
    (node, clients)
}

const ARRIVALS: usize = 10;

// On one thread nothing that arrives has begun when the next call comes.
#[tokio::test]
async fn sessions_that_have_just_arrived_move_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (settings, address) = settings(dir.path());
    let (node, _clients) = with_arrivals(&settings, address).await;
    let stopped = node.stop_sessions().await;
    assert_eq!((stopped.parked.len(), stopped.cut), (ARRIVALS, 0));
    node.close(tokio::time::Instant::now()).await;
}

#[tokio::test]
async fn sessions_that_have_just_arrived_hear_goodbye() {
    let dir = tempfile::tempdir().expect("a folder");
    let (settings, address) = settings(dir.path());
    let (node, mut clients) = with_arrivals(&settings, address).await;
    node.stop().await;
    for client in &mut clients {
        assert!(line(client).starts_with("* BYE "));
    }
}
